"""The evidence for a run's validity, gathered from its samples and facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from reports.engine import RunDatabase
from reports.limits import BUSY_CPU_PERCENT, HELD_SHARE, LATE_MS
from reports.summary import LostWorkerSummary, ObjectiveRow, Summary
from reports.wording import replaced_text


@dataclass(frozen=True)
class Lateness:
    """How late edits began in one sustained or stress phase, by the generator's own fault."""

    phase: str
    from_s: float
    to_s: float
    edits: int
    p99_ms: float


@dataclass(frozen=True)
class Strain:
    """One worker's seconds in one sustained or stress phase."""

    phase: str
    worker: str
    from_s: float
    to_s: float
    seconds: int
    busy_and_late_seconds: int
    page_late_seconds: int
    cpu_max_percent: float


@dataclass(frozen=True)
class Shortfall:
    """Consecutive seconds in which the generator tried or held less than its share of the plan."""

    phase: str
    from_s: float
    to_s: float
    seconds: int
    attempted: int
    target: int


@dataclass(frozen=True)
class Lost:
    """A lost worker, its share of the connections planned, and who replaced it, if anybody did."""

    worker: str
    phase: str
    at_s: float
    connections: int
    share: float
    replaced: str = ""


@dataclass(frozen=True)
class Gap:
    """Parts of one kind, of one worker in one phase, that are missing or cannot be read."""

    kind: str
    phase: str
    worker: str
    parts: int
    unreadable: int = 0


@dataclass(frozen=True)
class Cut:
    """A phase that ended before its time, and why."""

    phase: str
    from_s: float
    lasted_s: float
    planned_s: float
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    samples: int
    edits_offered: int
    edits_missed: int
    edits_unreported: int
    lateness: tuple[Lateness, ...] = ()
    strain: tuple[Strain, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()
    lost: tuple[Lost, ...] = ()
    gaps: tuple[Gap, ...] = ()
    cuts: tuple[Cut, ...] = ()
    phases_not_run: tuple[str, ...] = ()
    running: bool = False
    scenario_known: bool = True
    stopped_by_objective: bool = False
    between_workers_p50_ms: float | None = None
    clock_error_ms: float | None = None
    clocks_known: bool = True
    within_workers_count: float = 0
    problems: tuple[str, ...] = field(default=())


def gather(database: RunDatabase, summary: Summary) -> Evidence:
    """Return what the validity rules look at. `summary` has its figures and objectives already."""
    facts = database.facts
    problems = [*facts.record.problems]
    if facts.record.stop_requested:
        problems.append(facts.record.stop_requested)
    return Evidence(
        samples=sum(summary.samples.counts.values()),
        edits_offered=summary.edits.offered,
        edits_missed=summary.edits.missed,
        edits_unreported=summary.edits.unreported,
        lateness=tuple(_lateness(database)),
        strain=tuple(_strain(database)),
        shortfalls=tuple(_shortfalls(database)),
        lost=tuple(_lost(summary.lost_workers)),
        gaps=tuple(_gaps(database)),
        cuts=tuple(_cuts(database)),
        phases_not_run=facts.phases_without_record,
        running=facts.is_running,
        scenario_known=facts.scenario is not None,
        stopped_by_objective=_stopped_by_objective(summary.objectives),
        between_workers_p50_ms=summary.delivery_between_workers_ms.p50,
        clock_error_ms=summary.clock.error_max_ms,
        clocks_known=summary.clock.relative_to == "relay",
        within_workers_count=summary.delivery_ms.count,
        problems=tuple(problems),
    )


def _lateness(database: RunDatabase) -> Iterable[Lateness]:
    for row in database.rows("lateness"):
        if row["judged"] and row["worker"] is None and row["p99_ms"] is not None:
            yield Lateness(row["phase"], row["from_s"], row["to_s"], row["edits"], row["p99_ms"])


def _strain(database: RunDatabase) -> Iterable[Strain]:
    rows = database.rows("generator_load", cpu_percent=BUSY_CPU_PERCENT, late_ms=LATE_MS)
    for row in rows:
        if row["judged"]:
            yield Strain(
                phase=row["phase"],
                worker=row["worker"],
                from_s=row["from_s"],
                to_s=row["to_s"],
                seconds=row["seconds"],
                busy_and_late_seconds=row["busy_and_late_seconds"],
                page_late_seconds=row["page_late_seconds"],
                cpu_max_percent=row["cpu_max_percent"] or 0.0,
            )


def _shortfalls(database: RunDatabase) -> Iterable[Shortfall]:
    for row in database.rows("generator_shortfalls", share=HELD_SHARE):
        yield Shortfall(
            phase=row["phase"],
            from_s=row["from_s"],
            to_s=row["to_s"],
            seconds=row["seconds"],
            attempted=row["sockets_attempted"],
            target=row["connections_target"],
        )


def _lost(workers: Iterable[LostWorkerSummary]) -> Iterable[Lost]:
    for lost in workers:
        yield Lost(
            lost.worker,
            lost.phase,
            lost.last_seen_s,
            lost.connections,
            lost.share,
            replaced_text(lost.replaced_by, lost.replaced_from),
        )


def _gaps(database: RunDatabase) -> Iterable[Gap]:
    """Yield missing parts by kind, phase and worker; those that are there but unreadable among.

    What a lost worker had numbered and not shipped goes with the worker.
    """
    counted = {(phase.label, phase.attempt) for phase in database.phases}
    gone = {row["worker"] for row in database.rows("lost_workers")}
    missing = Counter(
        (gap.of.kind, gap.of.phase, gap.of.worker)
        for gap in database.missing
        if gap.of.worker not in gone
    )
    bad = Counter(
        (entry.part.kind, entry.part.phase, entry.part.worker)
        for entry in database.unreadable
        if (entry.part.phase, entry.part.attempt) in counted
    )
    for place in sorted({*missing, *bad}):
        kind, phase, worker = place
        yield Gap(kind, phase, worker, max(missing[place], bad[place]), bad[place])


def _cuts(database: RunDatabase) -> Iterable[Cut]:
    for phase in database.rows("phases"):
        if phase["stopped_early"]:
            yield Cut(
                phase=phase["label"],
                from_s=phase["from_s"],
                lasted_s=phase["to_s"] - phase["from_s"],
                planned_s=phase["planned_s"],
                reason=phase["stopped_early"],
            )


def _stopped_by_objective(rows: Iterable[ObjectiveRow]) -> bool:
    return any(row.stop and row.met is False and row.got is not None for row in rows)
