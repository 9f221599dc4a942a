"""What a fleet is: it gives workers to an attempt of a run, and takes them back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tasks.run_context import RunContext


@dataclass(frozen=True)
class Worker:
    """One worker that a fleet gave. `where` is for people: a host, or this machine."""

    name: str
    where: str
    details: dict[str, str] = field(default_factory=dict)


class Fleet(Protocol):
    """Where workers come from.

    Any process may call `release`, any number of times, with nothing but the context: what to
    give back is found, not remembered.
    """

    async def acquire(self, context: RunContext) -> list[Worker]:
        """Give the scenario's workers, or raise FleetError and leave nothing behind."""

    async def deploy(self, context: RunContext, worker: Worker) -> None:
        """Have the agent of `context` running on a worker; FleetError if it does not start."""

    async def substitute(self, context: RunContext, name: str, lost: Worker) -> Worker | None:
        """Give one more worker, called `name`, in the place of one that is lost.

        None if the fleet has none to give, which it tells the observer; FleetError if it could
        not be had. It is deployed to as the others are, and `release` finds it.
        """

    async def is_alive(self, context: RunContext, worker: Worker) -> bool:
        """Say whether a worker's agent can still be running; True if that is not known."""

    async def release(self, context: RunContext) -> list[str]:
        """Give everything of this run back; return what could not be."""


def fleet_of(kind: str) -> Fleet:
    """Return the fleet of that kind; UsageError names those that there are."""
    from run_store.errors import UsageError  # noqa: PLC0415 - fleets are imported when asked for

    if kind == "local":
        from tasks.fleets.local import LocalFleet  # noqa: PLC0415 - likewise

        return LocalFleet()
    if kind == "ssh":
        from tasks.fleets.ssh import SshFleet  # noqa: PLC0415 - likewise

        return SshFleet()
    if kind == "ec2":
        from tasks.fleets.ec2 import Ec2Fleet  # noqa: PLC0415 - likewise

        return Ec2Fleet()
    raise UsageError(f"There is no fleet called {kind!r}.", hint="Choose local, ssh or ec2.")
