"""What likely caused something: what else moved in the same window, and what did not."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from reports.findings.finding import Cause, Evidence, Finding, Kind, Severity
from reports.findings.signals import (
    PhaseSpan,
    Second,
    Signals,
    inside,
    outside,
    typical,
)
from reports.findings.stretches import Stretch
from reports.findings.wording import clock, listed, ms_text, seconds_text, times_text
from reports.limits import BUSY_CPU_PERCENT

HELD_UP_MS = 1000.0
"""A worker so late may lose polls, answers and connections; less only delays what it measures."""
_MOVED_SHARE = 0.15
_SLOWER = 3.0
_SLOWER_BY_MS = 20.0
_LOAD_SHARE = 0.25
_ONE_WORKERS_SHARE = 0.9
_LAST_SEEN_S = 5


@dataclass(frozen=True)
class Explanation:
    """A cause, the clause that says why, and the figures that it rests on."""

    cause: Cause
    clause: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True)
class Moved:
    """How the relay and the load stood inside a window and in the rest of its phase."""

    memory_before_mb: float | None
    memory_inside_mb: float | None
    connections_before: float | None
    connections_inside_min: float | None
    connections_inside: float | None
    response_before_ms: float | None
    response_inside_ms: float | None
    offered_before: float
    offered_inside: float
    polls: int
    polls_failed: int
    restarted: bool


def explain(
    signals: Signals, phase: PhaseSpan, stretch: Stretch, *, generator_late_ms: float = HELD_UP_MS
) -> Explanation:
    """Say what most likely caused an anomaly of a whole phase's figures in a stretch.

    The generator is asked first: what it is late by is no doing of the relay. Then what the
    relay itself shows, then what the load asked for; what remains is unknown, and said so.
    """
    moved = movements(signals, phase, stretch)
    relay = relay_clause(moved)
    busy = busy_worker(signals, stretch, late_ms=generator_late_ms)
    if busy:
        worker, clause, evidence = busy
        calm = relay_clause(moved, verb="was")
        return Explanation(
            "generator",
            f"while {calm} and {clause}: the generator, not the relay",
            evidence | {"worker_at_fault": worker} | relay_evidence(moved),
        )
    if moved.restarted:
        return Explanation(
            "relay",
            "and the relay was restarted in that window: the relay",
            relay_evidence(moved),
        )
    if moved.polls_failed >= max(2, 0.3 * moved.polls):
        return Explanation(
            "relay",
            f"while {moved.polls_failed} of {moved.polls} polls of the relay's /metrics failed "
            f"and no worker was busy: the relay",
            relay_evidence(moved),
        )
    if relay_is_moved(moved):
        return Explanation(
            "relay",
            f"while {relay} and no worker was busy or late: the relay",
            relay_evidence(moved),
        )
    if moved.offered_inside > (1 + _LOAD_SHARE) * moved.offered_before > 0:
        more = times_text(moved.offered_inside / moved.offered_before)
        return Explanation(
            "load",
            f"while the offered edits rose {more} and no worker was busy: more load than before",
            relay_evidence(moved),
        )
    return Explanation(
        "unknown",
        f"while {relay} and no worker was busy or late: the relay or the network before it",
        relay_evidence(moved),
    )


def busy_worker(
    signals: Signals, stretch: Stretch, *, late_ms: float = HELD_UP_MS, only: str | None = None
) -> tuple[str, str, Evidence] | None:
    """Return the worker that was busiest or latest in a stretch, if one was: name, clause, figures.

    It counts if it was that late, or missed edits, in at least a third of the stretch's seconds: a
    full CPU explains nothing by itself.
    """
    best: tuple[float, str, str, Evidence] | None = None
    for worker, seconds in signals.workers.items():
        if only is not None and worker != only:
            continue
        rows = [s for t, s in seconds.items() if stretch.from_s <= t < stretch.to_s]
        hot = [s for s in rows if s.late_ms >= late_ms or s.missed]
        if not hot or len(hot) < max(1, len(rows) / 3):
            continue
        cpu = median(s.cpu_percent for s in hot)
        late = max(s.late_ms for s in hot)
        clause = f"{worker} was up to {ms_text(late)} late (its CPU at {cpu:.0f} %)"
        if cpu > BUSY_CPU_PERCENT:
            clause = f"{worker}'s CPU was at {cpu:.0f} % and it was up to {ms_text(late)} late"
        score = len(hot) / len(rows) + cpu / 100 + min(late, 1000) / 1000
        if best is None or score > best[0]:
            best = score, worker, clause, {"worker_cpu_percent": cpu, "worker_late_ms": late}
    return best[1:] if best else None


def movements(signals: Signals, phase: PhaseSpan, stretch: Stretch) -> Moved:
    """Return how the relay and the load moved in a stretch of a phase."""
    seconds = signals.in_phase(phase)
    within, rest = inside(seconds, stretch), outside(seconds, stretch)
    # Memory drifts in a long phase: what counts is what it was just before.
    before = [s for s in rest if stretch.from_s - 60 <= s.second < stretch.from_s]
    before = before if len(before) >= _LAST_SEEN_S else rest
    just_before = [
        s for s in before if s.second >= stretch.from_s - 10 and s.second < stretch.from_s
    ]
    polls = signals.rows("relay_polls") if within else []
    return Moved(
        memory_before_mb=typical([s.relay_memory_mb for s in before]),
        memory_inside_mb=typical([s.relay_memory_mb for s in within]),
        connections_before=typical([s.relay_connections for s in just_before]),
        connections_inside_min=min(
            (s.relay_connections for s in within if s.relay_connections is not None), default=None
        ),
        connections_inside=typical([s.relay_connections for s in within]),
        response_before_ms=typical([s.relay_response_ms for s in rest]),
        response_inside_ms=typical([s.relay_response_ms for s in within]),
        offered_before=_rate(rest),
        offered_inside=_rate(within),
        polls=sum(s.polls for s in within),
        polls_failed=sum(s.polls_failed for s in within),
        restarted=any(
            is_restart(row) and stretch.from_s - _LAST_SEEN_S <= row["at_s"] <= stretch.to_s + 15
            for row in polls
        ),
    )


def is_restart(poll: dict[str, float | int | None]) -> bool:
    """Say whether a poll was answered by another process than the poll before it."""
    pid, pid_before = poll["pid"], poll["pid_before"]
    if pid is not None and pid_before is not None and pid != pid_before:
        return True
    uptime, before = poll["uptime_s"], poll["uptime_before_s"]
    # Polls may overtake each other by as much as one takes; a restart takes more.
    return (
        uptime is not None and before is not None and uptime < before - 2 and uptime < 0.9 * before
    )


def relay_is_moved(moved: Moved) -> bool:
    """Say whether the relay's own figures moved with the anomaly."""
    memory = _ratio(moved.memory_inside_mb, moved.memory_before_mb)
    connections = _ratio(moved.connections_inside_min, moved.connections_before)
    return (
        (memory is not None and abs(memory - 1) > _MOVED_SHARE)
        or (connections is not None and connections < 1 - _MOVED_SHARE)
        or _is_slower(moved)
    )


def relay_clause(moved: Moved, *, verb: str = "stayed") -> str:
    """Return what the relay's own figures did, as a clause."""
    if moved.memory_before_mb is None or moved.memory_inside_mb is None:
        return "nothing was known of the relay's memory"
    parts: list[str] = []
    memory = moved.memory_inside_mb / moved.memory_before_mb if moved.memory_before_mb else 1.0
    if abs(memory - 1) > _MOVED_SHARE:
        parts.append(
            f"relay memory went from {moved.memory_before_mb:.0f} to "
            f"{moved.memory_inside_mb:.0f} MB"
        )
    connections = _ratio(moved.connections_inside_min, moved.connections_before)
    if connections is not None and connections < 1 - _MOVED_SHARE:
        parts.append(
            f"its connections fell from {moved.connections_before:.0f} to "
            f"{moved.connections_inside_min:.0f}"
        )
    if _is_slower(moved):
        parts.append(
            f"its /metrics took {ms_text(moved.response_inside_ms or 0)} instead of "
            f"{ms_text(moved.response_before_ms or 0)}"
        )
    return listed(parts) if parts else f"relay memory {verb} flat"


def relay_evidence(moved: Moved) -> Evidence:
    """Return the relay's figures in the window and before it, as far as they are known."""
    figures: dict[str, float | None] = {
        "relay_memory_before_mb": moved.memory_before_mb,
        "relay_memory_mb": moved.memory_inside_mb,
        "relay_connections_before": moved.connections_before,
        "relay_connections": moved.connections_inside,
        "relay_response_before_ms": moved.response_before_ms,
        "relay_response_ms": moved.response_inside_ms,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def one_workers(counts: dict[str, float], workers: int) -> str | None:
    """Return the worker that nearly all of something belongs to, if there are others."""
    total = sum(counts.values())
    if workers < 2 or total <= 0:  # noqa: PLR2004 - alone it is no exception
        return None
    worker = max(counts, key=lambda name: counts[name])
    return worker if counts[worker] >= _ONE_WORKERS_SHARE * total else None


def finding_of(
    signals: Signals,
    phase: PhaseSpan,
    stretch: Stretch,
    *,
    kind: Kind,
    severity: Severity,
    sentence: str,
    why: Explanation,
    evidence: Evidence,
) -> Finding:
    """Return a finding with its explanation: its cause, its figures, and the worker at fault."""
    at_fault = why.evidence.get("worker_at_fault")
    return Finding.model_validate(
        {
            "kind": kind,
            "severity": severity,
            "phase": phase.label,
            "started_us": signals.us(stretch.from_s),
            "ended_us": signals.us(stretch.to_s),
            "worker": at_fault,
            "evidence": evidence | why.evidence,
            "sentence": sentence,
            "cause": why.cause,
        }
    )


def window_text(signals: Signals, stretch: Stretch) -> str:
    """Return when a stretch was, such as `at 12:03:10 for 20 s`."""
    return f"at {clock(signals.us(stretch.from_s))} for {seconds_text(stretch.length_s)}"


def _is_slower(moved: Moved) -> bool:
    before, within = moved.response_before_ms, moved.response_inside_ms
    if before is None or within is None:
        return False
    return within > _SLOWER * before and within > before + _SLOWER_BY_MS


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _rate(seconds: list[Second]) -> float:
    return sum(s.offered for s in seconds) / len(seconds) if seconds else 0.0
