"""What findings are judged on: a run's seconds, its workers' and its phases, read by SQL once."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from statistics import median
from typing import Any

import duckdb

from reports.engine import RunDatabase
from reports.findings.stretches import Stretch
from scenarios.objectives import Objective


@dataclass(frozen=True)
class Second:
    """The run in one second; None where nothing was sampled."""

    second: int
    phase: str
    offered: int
    made: int
    completed: int
    failed: int
    unacknowledged: int
    missed: int
    errors: float
    drops: int
    connections_target: int | None
    connections_open: int | None
    polls: int
    polls_failed: int
    relay_connections: int | None
    relay_memory_mb: float | None
    relay_cpu_seconds: float | None
    relay_response_ms: float | None


@dataclass(frozen=True)
class WorkerSecond:
    """One worker in one second. `lag_ms` is of its timers, `lateness_ms` of its edits."""

    second: int
    phase: str
    worker: str
    cpu_percent: float
    lag_ms: float
    lateness_ms: float
    missed: int
    drops: int
    connections_open: int

    @property
    def late_ms(self) -> float:
        """How late the latest of its edits and timers was."""
        return max(self.lag_ms, self.lateness_ms)


@dataclass(frozen=True)
class PhaseSpan:
    """A phase that was run: its label and kind, and when it was, in run time."""

    label: str
    kind: str
    from_s: float
    to_s: float
    complete: bool
    planned_edits_per_s: float

    @property
    def seconds(self) -> range:
        """The seconds that are its own."""
        return range(round(self.from_s), round(self.to_s))

    @property
    def holds_connections(self) -> bool:
        """Whether its plan leaves the connections as they are."""
        return self.kind in ("sustained", "cooldown")


@dataclass(frozen=True)
class Signals:
    """Everything at hand for judging a run."""

    database: RunDatabase
    phases: tuple[PhaseSpan, ...]
    seconds: dict[int, Second]
    workers: dict[str, dict[int, WorkerSecond]]

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the scenario asks of the relay."""
        scenario = self.database.facts.scenario
        return scenario.parsed_objectives if scenario else ()

    def wanted(self, metric: str, phase: str) -> float | None:
        """Return the bound that an objective sets on a metric in a phase; None if none does."""
        name = phase.partition("-")[2]
        bounds = [
            objective.value
            for objective in self.objectives
            if objective.metric == metric
            and objective.phase in (None, name)
            and objective.operator in ("<", "<=")
        ]
        return min(bounds, default=None)

    def us(self, at_s: float) -> int:
        """Return a run time as microseconds since the epoch."""
        return self.database.origin_us + round(at_s * 1e6)

    def in_phase(self, phase: PhaseSpan) -> list[Second]:
        """Return the seconds of a phase, in order."""
        return [s for t in phase.seconds if (s := self.seconds.get(t)) and s.phase == phase.label]

    def phase_at(self, at_s: float) -> str:
        """Return the label of the phase in which an instant lies, or of the nearest before it."""
        before = [phase for phase in self.phases if phase.from_s <= at_s + 1]
        return (before[-1] if before else self.phases[0]).label if self.phases else ""

    def rows(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a query of this package, each a dict by column."""
        return _rows(self.database.connection, name, parameters)


def read_signals(database: RunDatabase) -> Signals:
    """Read what the findings of a run rest on. Latencies are read by those who need them."""
    connection = database.connection
    phases = tuple(
        PhaseSpan(
            label=row["label"],
            kind=row["kind"],
            from_s=row["from_s"],
            to_s=row["to_s"],
            complete=row["complete"],
            planned_edits_per_s=max(row["edits_per_s_start"] or 0, row["edits_per_s_end"] or 0),
        )
        for row in database.rows("phases")
        if row["from_s"] is not None and row["to_s"] is not None and row["to_s"] > row["from_s"]
    )
    connection.execute(sql_text("latency_cells"))
    connection.execute(sql_text("edit_latencies"))
    seconds = {row["second"]: Second(**row) for row in _rows(connection, "seconds", {})}
    workers: dict[str, dict[int, WorkerSecond]] = {}
    for row in _rows(connection, "worker_seconds", {}):
        workers.setdefault(row["worker"], {})[row["second"]] = WorkerSecond(**row)
    return Signals(database, phases, seconds, workers)


@functools.cache
def sql_text(name: str) -> str:
    """Return the SQL of one of this package's queries."""
    folder = resources.files("reports") / "findings"
    return (folder / f"{name}.sql").read_text(encoding="utf-8")


def _rows(
    connection: duckdb.DuckDBPyConnection, name: str, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    cursor = connection.execute(sql_text(name), parameters or None)
    columns = [column[0] for column in cursor.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def inside(seconds: list[Second], stretch: Stretch) -> list[Second]:
    """Return the seconds within a stretch."""
    return [s for s in seconds if stretch.from_s <= s.second < stretch.to_s]


def outside(seconds: list[Second], stretch: Stretch) -> list[Second]:
    """Return the seconds that are not within a stretch."""
    return [s for s in seconds if not stretch.from_s <= s.second < stretch.to_s]


def typical(values: list[float | None]) -> float | None:
    """Return the median of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
