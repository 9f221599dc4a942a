"""Hosts of the user's own, as the command line and the flow's parameters name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from run_store.errors import UsageError
from scenarios.model import Scenario


def with_hosts(
    overrides: Mapping[str, Any],
    *,
    fleet: str | None = None,
    hosts: Sequence[str] = (),
    ssh_key: str | None = None,
    known_hosts: str | None = None,
    wheelhouse: str | None = None,
) -> tuple[str | None, dict[str, Any]]:
    """Return the kind of fleet and the scenario's overrides that these parameters stand for.

    Naming hosts asks for the `ssh` fleet, with a worker on each unless `fleet.workers` says
    otherwise. Raises UsageError for hosts of another fleet.
    """
    if hosts and fleet not in (None, "ssh"):
        raise UsageError(
            f"Hosts are named, and the fleet is to be {fleet}.", hint="Hosts go with --fleet ssh."
        )
    given: dict[str, Any] = {}
    if hosts:
        given |= {"fleet.hosts": list(hosts), "fleet.workers": len(hosts)}
    files = {"key_file": ssh_key, "known_hosts": known_hosts, "wheelhouse": wheelhouse}
    # Absolute, since agents are started and hosts released from other folders as well.
    given |= {
        f"fleet.{name}": str(Path(path).expanduser().resolve())
        for name, path in files.items()
        if path
    }
    return fleet or ("ssh" if hosts else None), {**given, **overrides}


def check_hosts(scenario: Scenario, fleet: str) -> None:
    """Raise UsageError unless there is what workers on other hosts need: nothing is reached yet."""
    if fleet == "local":
        return
    spec = scenario.fleet
    files = {"SSH key": spec.key_file, "file of known hosts": spec.known_hosts}
    for what, path in files.items():
        if path and not Path(path).expanduser().is_file():
            raise UsageError(f"There is no {what} {path}.")
    if spec.wheelhouse and not list(Path(spec.wheelhouse).expanduser().glob("*.whl")):
        raise UsageError(
            f"There are no wheels in {spec.wheelhouse}.",
            hint="Fill it: pip download --only-binary :all: -r requirements/worker.txt -d FOLDER",
        )
    if fleet != "ssh":
        return
    # asyncssh takes its time to import, and only other hosts are reached with it.
    from tasks.fleets.remote import Access, Host  # noqa: PLC0415

    hosts = [Host.from_text(text) for text in spec.hosts]
    Access.of_scenario(spec)
    if not hosts:
        raise UsageError("No hosts are named.", hint="Name each: --host user@address:port.")
    if len(set(hosts)) < len(hosts):
        raise UsageError("A host is named twice.", hint="Each worker needs one of its own.")
    if len(hosts) < spec.workers:
        raise UsageError(
            f"The scenario asks for {spec.workers} workers and names {len(hosts)} hosts.",
            hint="Name more with --host user@address:port, or set fleet.workers.",
        )
