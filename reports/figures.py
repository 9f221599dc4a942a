"""The figures of a run and of each of its phases and workers, asked of the named queries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel

from reports.engine import RunDatabase
from reports.summary import (
    Connections,
    Deliveries,
    Distribution,
    Edits,
    Figures,
    Number,
    PhaseSummary,
    Relay,
    Storm,
    Sync,
    WorkerSummary,
)

LATENCIES = (
    "acknowledgement_ms",
    "acknowledgement_service_ms",
    "delivery_ms",
    "delivery_service_ms",
    "delivery_between_workers_ms",
    "connect_ms",
    "handshake_ms",
    "sync_ms",
    "bootstrap_ms",
    "lateness_ms",
)
DECIMALS = 6
"""Times are sampled in whole microseconds, and a quantile's rank divides them by 100 at most:
rounded to so many decimals of a millisecond, a figure is exact and looks it."""

Row = Mapping[str, Any]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class RunFigures:
    """All figures of a run: its own, and those of its phases and workers, in their order."""

    run: Figures
    phases: tuple[PhaseSummary, ...]
    workers: tuple[WorkerSummary, ...]

    def of(self, phase: str | None) -> Figures | None:
        """Return the figures of the phase of that name, or the run's; None if it did not run."""
        if phase is None:
            return self.run
        return next((figures for figures in self.phases if figures.name == phase), None)


def rounded(value: float | None) -> float | None:
    """Return a figure to the decimals that are published; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), DECIMALS)


def counted(value: float) -> Number:
    """Return a count: whole where it is."""
    return int(value) if float(value).is_integer() else round(float(value), DECIMALS)


def iso_time(at_us: int | None) -> str | None:
    """Return microseconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    if at_us is None:
        return None
    return datetime.fromtimestamp(at_us / 1e6, tz=UTC).isoformat(timespec="milliseconds")


def run_figures(database: RunDatabase) -> RunFigures:
    """Return all figures of a run."""
    latencies = {name: database.rows("distribution", metric=name) for name in LATENCIES}
    by_scope = _ByScope(database)
    phases = database.rows("phases")
    return RunFigures(
        run=Figures(
            **_distributions(latencies, None, None), **by_scope.figures(None, phases, database)
        ),
        phases=tuple(
            PhaseSummary(
                label=phase["label"],
                name=phase["name"],
                kind=phase["kind"],
                attempt=phase["attempt"],
                complete=phase["complete"],
                started_at=iso_time(phase["started_us"]),
                from_s=rounded(phase["from_s"]),
                to_s=rounded(phase["to_s"]),
                planned_s=phase["planned_s"],
                connections_start=phase["connections_start"],
                connections_end=phase["connections_end"],
                edits_per_s_start=phase["edits_per_s_start"],
                edits_per_s_end=phase["edits_per_s_end"],
                edits_planned=phase["edits_planned"],
                stopped_early=phase["stopped_early"],
                **_distributions(latencies, phase["label"], None),
                **by_scope.figures(phase["label"], phases, database),
            )
            for phase in phases
        ),
        workers=_workers(database, latencies, _edit_seconds(phases, by_scope)),
    )


class _ByScope:
    """The rows of the queries that answer for the run, each phase and each worker at once."""

    def __init__(self, database: RunDatabase) -> None:
        self.edits = database.rows("edit_counts")
        self._deliveries = database.rows("deliveries")
        self._expected = database.rows("expected_deliveries")
        self._connections = database.rows("connection_counts")
        self._recoveries = database.rows("recoveries")
        self._health = database.rows("fleet_health")
        self._relay = database.rows("relay_figures")
        self._sync = database.rows("convergence_totals")
        self._storms = database.rows("storms")

    def figures(
        self, label: str | None, phases: list[dict[str, Any]], database: RunDatabase
    ) -> dict[str, BaseModel]:
        """Return all figures of a phase, or of the run, but for its latencies."""
        relay_answers = database.facts.record.has_metrics
        return {
            "edits": self._edits_of(label, phases),
            "connections": self._connections_of(label, phases),
            "deliveries": self._deliveries_of(label),
            "relay": _relay(_row(self._relay, label), relay_answers=relay_answers),
            "sync": _sync(_row(self._sync, label)),
            "storm": _storm([row for row in self._storms if label in (None, row["phase"])]),
        }

    def _edits_of(self, label: str | None, phases: list[dict[str, Any]]) -> Edits:
        row, sync = _row(self.edits, label), _row(self._sync, label)
        expected = _row(self._expected, label)
        mine = [phase for phase in phases if label in (None, phase["label"])]
        reported = {e["phase"]: e["offered"] for e in self.edits if e["scope"] == "phase"}
        unreported = sum(
            max(phase["edits_planned"] - reported.get(phase["label"], 0), 0)
            for phase in mine
            if phase["complete"] and not phase["stopped_early"]
        )
        offered = int(row.get("offered", 0))
        failed = int(row.get("failed", 0)) + int(row.get("unacknowledged", 0))
        completed = int(row.get("acknowledged", 0))
        seconds = sum(_length_s(phase) for phase in mine if reported.get(phase["label"]))
        # An edit can only be said not to be lost where somebody looked.
        sampled = _row(self._health, label).get("peak") is not None
        looked = (not completed and sampled) or expected.get("expected") or sync.get("replicas")
        return Edits(
            offered=offered + unreported,
            completed=completed,
            failed=failed,
            missed=int(row.get("missed", 0)),
            unreported=unreported,
            unacknowledged=int(row.get("unacknowledged", 0)),
            per_second=rounded(completed / seconds) if seconds else None,
            error_rate=rounded(failed / (failed + completed)) if failed + completed else None,
            lost=int(expected.get("edits_lost") or 0) if looked else None,
        )

    def _connections_of(self, label: str | None, phases: list[dict[str, Any]]) -> Connections:
        row, health = _row(self._connections, label), _row(self._health, label)
        back = _row(self._recoveries, label)
        mine = [phase for phase in phases if label in (None, phase["label"])]
        planned = max(
            (max(phase["connections_start"], phase["connections_end"]) for phase in mine), default=0
        )
        healthy = health.get("healthy_judged_mean") if label is None else None
        score = health.get("score_sustained") if label is None else None
        return Connections(
            target=max(round(planned), int(health.get("target") or 0)),
            peak=int(health.get("peak") or 0),
            healthy=rounded(health.get("healthy_mean") if healthy is None else healthy),
            health_score=rounded(health.get("score") if score is None else score),
            attempted=int(row.get("attempted", 0)),
            failed=int(row.get("failed", 0)),
            dropped=int(row.get("dropped", 0)),
            closed=int(row.get("closed", 0)),
            recovered=int(back.get("recovered", 0)),
            recovery_p95_ms=rounded(back.get("p95")),
            recovery_max_ms=rounded(back.get("max")),
        )

    def _deliveries_of(self, label: str | None) -> Deliveries:
        row, expected = _row(self._deliveries, label), _row(self._expected, label)
        return Deliveries(
            count=counted(row.get("deliveries", 0)),
            repeats=counted(row.get("repeats", 0)),
            expected=int(expected.get("expected", 0)),
            delivered=int(expected.get("delivered", 0)),
            share=rounded(expected.get("share")),
            edits_delivered_to_all=expected.get("edits_delivered_to_all", 0),
            max_weight=row.get("max_weight", 1.0),
        )


def _row(rows: list[dict[str, Any]], label: str | None) -> Row:
    scope = "run" if label is None else "phase"
    return next((row for row in rows if row["scope"] == scope and row["phase"] == label), {})


def _length_s(phase: Row) -> float:
    return float((phase["to_s"] or 0) - (phase["from_s"] or 0))


def _edit_seconds(phases: list[dict[str, Any]], by_scope: _ByScope) -> float:
    labels = {row["phase"] for row in by_scope.edits if row["scope"] == "phase"}
    return sum(_length_s(phase) for phase in phases if phase["label"] in labels)


def _distributions(
    latencies: Mapping[str, list[dict[str, Any]]], phase: str | None, worker: str | None
) -> dict[str, Any]:
    return {name: _distribution(rows, phase, worker) for name, rows in latencies.items()}


def _distribution(
    rows: list[dict[str, Any]], phase: str | None, worker: str | None
) -> Distribution:
    scope = "phase" if phase is not None else "worker" if worker is not None else "run"
    for row in rows:
        if (row["scope"], row["phase"], row["worker"]) == (scope, phase, worker) and row["count"]:
            names = ("min", "mean", "p50", "p95", "p99", "max")
            return Distribution(
                count=counted(row["count"]), **{name: rounded(row[name]) for name in names}
            )
    return Distribution()


def _relay(row: Row, *, relay_answers: bool) -> Relay:
    if not row.get("polls"):
        return Relay()
    start_mb, end_mb = row["memory_start_mb"], row["memory_end_mb"]
    return Relay(
        memory_start_mb=rounded(start_mb),
        memory_end_mb=rounded(end_mb),
        memory_peak_mb=rounded(row["memory_peak_mb"]),
        memory_growth_mb=None if start_mb is None else rounded(end_mb - start_mb),
        peak_connections=row["peak_connections"],
        polls=row["polls"],
        polls_failed=row["polls_failed"] if relay_answers else None,
        restarts=row["restarts"],
        uptime_s=rounded(row["uptime_s"]),
        pid=row["pid"],
        version=row["version"],
    )


def _sync(row: Row) -> Sync:
    replicas = int(row.get("replicas", 0))
    return Sync(
        documents=int(row.get("documents", 0)),
        documents_converged=int(row.get("documents_converged", 0)),
        replicas=replicas,
        in_sync=int(row.get("in_sync", 0)),
        diverged=int(row["diverged"]) if replicas else None,
        converged_max_ms=rounded(row.get("converged_max_ms")),
    )


def _storm(rows: list[dict[str, Any]]) -> Storm:
    times = [row["recovery_s"] for row in rows if row["dropped"]]
    return Storm(
        recovery_s=rounded(max(times)) if times and None not in times else None,
        dropped=sum(row["dropped"] for row in rows),
        recovered=sum(row["recovered"] for row in rows),
    )


def _workers(
    database: RunDatabase, latencies: Mapping[str, list[dict[str, Any]]], edit_seconds: float
) -> tuple[WorkerSummary, ...]:
    statuses = {status.worker: status for status in database.facts.statuses}
    lost = {row["worker"] for row in database.rows("lost_workers")}
    by_type: dict[str, dict[str, Number]] = {}
    for row in database.rows("errors_by_worker"):
        by_type.setdefault(row["worker"], {})[row["type"] or "unknown"] = counted(row["count"])
    rows = {row["worker"]: row for row in database.rows("workers")}
    summaries = []
    for worker in sorted({*rows, *statuses}):
        row = rows.get(worker, {})
        completed = row.get("edits_completed") or 0
        numbers = {
            name: rounded(value) if isinstance(value, float) else value
            for name, value in row.items()
            if value is not None and name in WorkerSummary.model_fields and name != "worker"
        }
        summaries.append(
            WorkerSummary(
                worker=worker,
                state=statuses[worker].state if worker in statuses else "",
                lost=worker in lost,
                **{**numbers, "errors": counted(row.get("errors") or 0)},
                edits_per_second=rounded(completed / edit_seconds) if edit_seconds else None,
                acknowledgement_ms=_distribution(latencies["acknowledgement_ms"], None, worker),
                delivery_ms=_distribution(latencies["delivery_ms"], None, worker),
                errors_by_type=by_type.get(worker, {}),
                host=statuses[worker].host if worker in statuses else {},
            )
        )
    return tuple(summaries)
