"""What every step of one attempt of a run needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from run_store.layout import RunLayout
from run_store.store import Store, StoreAddress
from scenarios.model import Scenario


def worker_name(number: int) -> str:
    """Return a worker's name; the scenario's own count from 1, and substitutes go on."""
    return f"worker-{number}"


@dataclass(frozen=True)
class RunContext:
    """One attempt of one run. `folder` is the run's own on this machine: logs, pids, report.

    `in_haste`: somebody cancelled the run, and little time is left to give everything back.
    """

    run_id: str
    attempt: int
    scenario: Scenario
    relay_url: str
    has_metrics: bool
    address: StoreAddress
    folder: Path
    fleet: str
    chromium: str | None = None
    in_haste: bool = False

    @property
    def layout(self) -> RunLayout:
        """Where things stand in the bucket."""
        return RunLayout(self.run_id)

    def store(self) -> Store:
        """Return the client of the run's store, which all steps of the attempt share."""
        return self._store

    @cached_property
    def _store(self) -> Store:
        return Store(self.address)

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of the workers that the scenario asks for."""
        return tuple(worker_name(number + 1) for number in range(self.scenario.fleet.workers))
