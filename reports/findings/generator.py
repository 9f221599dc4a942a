"""What the generator itself did wrong: too busy, gone, or with a clock of its own."""

from __future__ import annotations

from statistics import median

from reports.findings.causes import window_text
from reports.findings.finding import Evidence, Finding, Severity
from reports.findings.signals import Signals, WorkerSecond
from reports.findings.stretches import Stretch, merged
from reports.findings.wording import clock, count_text, ms_text, seconds_text
from reports.limits import BUSY_AND_LATE_SECONDS, MISSED_INVALID, is_strained

_HOT_SHARE = 0.6
_LOOK_S = 5
_STALLED_MS = 150.0
"""A worker so late delays what it measures, whatever its CPU: one process may be full."""
_LONG_S = 10
_FROZEN_MS = 1000.0
_GAP_S = 6.0
_LOST_S = 8.0
_SKEW_MS = 25.0
_SKEW_WARNING_MS = 100.0
_SKEW_CRITICAL_MS = 60_000.0
_ERRORS = 3.0


def generator_findings(signals: Signals) -> list[Finding]:
    """Return where workers were saturated, silent or lost, and whose clocks are off."""
    return [*_saturated(signals), *_lost(signals), *_skewed(signals)]


def _saturated(signals: Signals) -> list[Finding]:
    found = []
    for worker, seconds in sorted(signals.workers.items()):
        hot = {t for t, second in seconds.items() if _is_hot(second)}
        full = [
            Stretch(t, t + 1)
            for t in hot
            if any(
                sum(u in hot for u in range(first, first + _LOOK_S)) >= _HOT_SHARE * _LOOK_S
                for first in range(t - _LOOK_S + 1, t + 1)
            )
        ]
        for stretch in merged(full, gap_s=_LOOK_S):
            rows = [
                s for t, s in seconds.items() if t in hot and stretch.from_s <= t < stretch.to_s
            ]
            if len(rows) >= BUSY_AND_LATE_SECONDS:
                found.append(_saturation(signals, worker, stretch, rows))
    return found


def _is_hot(second: WorkerSecond) -> bool:
    return (
        is_strained(cpu_percent=second.cpu_percent, late_ms=second.late_ms)
        or second.late_ms >= _STALLED_MS
        or second.missed > 0
    )


def _saturation(
    signals: Signals, worker: str, stretch: Stretch, rows: list[WorkerSecond]
) -> Finding:
    cpu = median(s.cpu_percent for s in rows)
    late = max(s.late_ms for s in rows)
    strained = sum(is_strained(cpu_percent=s.cpu_percent, late_ms=s.late_ms) for s in rows)
    missed = sum(s.missed for s in rows)
    offered = sum(second.offered for second in signals.seconds.values())
    severity: Severity = "note"
    if strained >= BUSY_AND_LATE_SECONDS or missed or len(rows) >= _LONG_S or late >= _FROZEN_MS:
        severity = "warning"
    if missed > MISSED_INVALID * offered:
        severity = "critical"
    said = f", and {count_text(missed, 'edit')} came too late to be made" if missed else ""
    how = (
        f"was saturated {window_text(signals, stretch)}: its CPU was at {cpu:.0f} % and its timers "
        f"or edits up to {ms_text(late)} late"
        if strained >= len(rows) / 2
        else f"ran up to {ms_text(late)} late {window_text(signals, stretch)}, though its CPU was "
        f"at {cpu:.0f} %: one of its processes was full, or the machine was held up"
    )
    return Finding(
        kind="generator_saturated",
        severity=severity,
        phase=signals.phase_at(stretch.from_s),
        started_us=signals.us(stretch.from_s),
        ended_us=signals.us(stretch.to_s),
        worker=worker,
        evidence={
            "cpu_percent": cpu,
            "late_max_ms": late,
            "seconds_busy_and_late": float(strained),
            "edits_missed": float(missed),
        },
        sentence=(
            f"{worker} {how}{said}. Latencies measured on it then are partly the generator's own, "
            f"not the relay's."
        ),
        cause="generator",
    )


def _lost(signals: Signals) -> list[Finding]:
    found = []
    told: set[str] = set()
    for row in signals.rows("lost_workers"):
        told.add(row["worker"])
        ends_s, until = row["run_ends_s"], "the run ended"
        if row["replaced_by"]:
            ends_s = row["replaced_s"]
            until = f"{row['replaced_by']} took its place in {row['replaced_from']}"
        found.append(
            _loss(
                signals,
                row["worker"],
                row["phase"],
                Stretch(row["last_seen_s"], max(ends_s or 0, row["noticed_s"])),
                until=until,
                said=f"{count_text(row['connections'] or 0, 'connection')} went with it",
                evidence={
                    "connections": float(row["connections"] or 0),
                    "reason": row["reason"] or "",
                },
            )
        )
    missing = {(part.of.worker, part.of.phase) for part in signals.database.missing}
    for row in signals.rows("worker_gaps", least_s=_GAP_S):
        worker, phase = row["worker"], row["phase"]
        if worker in told or phase is None:
            continue
        stretch = Stretch(row["silent_s"], row["until_s"])
        if row["back_s"] is None:
            if stretch.length_s >= _LOST_S and row["complete"]:
                found.append(
                    _loss(signals, worker, phase, stretch, said="it never came back", evidence={})
                )
            continue
        why = (
            "its samples of then are missing from the bucket"
            if (worker, phase) in missing
            else "it hung, or was restarted"
        )
        severity: Severity = "warning" if stretch.length_s < 30 else "critical"  # noqa: PLR2004
        found.append(
            Finding(
                kind="worker_lost",
                severity=severity,
                phase=phase,
                started_us=signals.us(stretch.from_s),
                ended_us=signals.us(stretch.to_s),
                worker=worker,
                evidence={"silent_s": stretch.length_s},
                sentence=(
                    f"{worker} sampled nothing {window_text(signals, stretch)}: {why}. That is the "
                    f"generator's, not the relay's."
                ),
                cause="generator",
            )
        )
    return found


def _loss(
    signals: Signals,
    worker: str,
    phase: str,
    stretch: Stretch,
    *,
    said: str,
    evidence: Evidence,
    until: str = "the run ended",
) -> Finding:
    silence: Evidence = {"silent_s": stretch.length_s}
    return Finding(
        kind="worker_lost",
        severity="critical",
        phase=phase,
        started_us=signals.us(stretch.from_s),
        ended_us=signals.us(stretch.to_s),
        worker=worker,
        evidence=silence | evidence,
        sentence=(
            f"{worker} was last heard at {clock(signals.us(stretch.from_s))}, "
            f"{seconds_text(stretch.length_s)} before {until}; {said}: the generator, not "
            f"the relay."
        ),
        cause="generator",
    )


def _skewed(signals: Signals) -> list[Finding]:
    """Find clocks that stand apart from the other workers', or that moved during the run."""
    parts: dict[str, list[dict[str, float]]] = {}
    for row in signals.rows("clock_offsets"):
        if row["offset_ms"] is not None:
            parts.setdefault(row["worker"], []).append(row)
    if not parts:
        return []
    typical = {worker: median(r["offset_ms"] for r in rows) for worker, rows in parts.items()}
    found = []
    for worker, rows in sorted(parts.items()):
        error = median(r["error_ms"] or 0.0 for r in rows)
        moved = median(r["offset_ms"] for r in rows[-2:]) - median(r["offset_ms"] for r in rows[:2])
        apart = _apart(worker, typical)
        size = max(abs(apart), abs(moved))
        if size < max(_SKEW_MS, _ERRORS * error):
            continue
        severity: Severity = "note"
        if size >= _SKEW_WARNING_MS:
            severity = "warning"
        if size >= _SKEW_CRITICAL_MS:
            severity = "critical"
        stretch = Stretch(rows[0]["from_s"], rows[-1]["to_s"] + 1)
        which = "ahead of" if apart > 0 else "behind"
        said = f"{worker}'s clock was {ms_text(abs(apart))} {which} the other workers'"
        if abs(moved) > abs(apart) / 2:
            said = f"{worker}'s clock moved by {ms_text(moved)} against the relay's during the run"
        found.append(
            Finding(
                kind="clock_skew",
                severity=severity,
                phase=signals.phase_at(max(stretch.from_s, 0)),
                started_us=signals.us(stretch.from_s),
                ended_us=signals.us(stretch.to_s),
                worker=worker,
                evidence={"apart_ms": apart, "moved_ms": moved, "error_ms": error},
                sentence=(
                    f"{said} (known within {ms_text(error)}): the generator's clock, not the "
                    f"relay's latency; figures between workers are corrected by it."
                ),
                cause="generator",
            )
        )
    return found


def _apart(worker: str, offsets: dict[str, float]) -> float:
    """Return how far a worker's clock is from the others'.

    With three or more, from the median of all, with which most agree. Of two, the one that is
    further from the relay's clock is the one that is off.
    """
    others = [offset for name, offset in offsets.items() if name != worker]
    if not others:
        return 0.0
    if len(others) == 1:
        return offsets[worker] - others[0] if abs(offsets[worker]) > abs(others[0]) else 0.0
    return offsets[worker] - median(offsets.values())
