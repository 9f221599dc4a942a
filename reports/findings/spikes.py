"""Latency that jumped for a while: its median, or its tail alone."""

from __future__ import annotations

import math
from statistics import median

from reports.findings.causes import Explanation, explain, finding_of, window_text
from reports.findings.finding import Evidence, Finding, Severity
from reports.findings.robust import Trend, chance_of, scaled_mad
from reports.findings.signals import PhaseSpan, Signals
from reports.findings.stretches import Stretch, crowded, merged
from reports.findings.windows import (
    EDITS_A_WINDOW,
    LEAST_LATE_MS,
    METRICS,
    NAMES,
    RISE_MS,
    Window,
)
from reports.findings.wording import ms_text, times_text

_LEAST_MAD = 0.06
_MADS = 5.0
_MEDIAN_RATIO = 1.6
_SLOW_RATIO = 2.5
_LEAST_RATIO, _SHORT_RATIO, _SHORT_S = 1.6, 2.0, 5
_LEAST_SLOW = 4
_SLOW_SHARE = 0.15
_SLOW_CHANCE = 1e-6


def spikes(
    signals: Signals,
    phase: PhaseSpan,
    metric: str,
    points: list[Window],
    *,
    wide_s: int,
    line: Trend | None,
) -> list[Stretch]:
    """Return where a latency stood out of its phase, or of the line along which it grew."""
    return [*_hot(points, wide_s, line), *_slow(signals, phase, metric, line)]


def _hot(points: list[Window], width_s: int, line: Trend | None) -> list[Stretch]:
    """Return where the median of a window stands out of its phase.

    A window of w seconds shows a median that moved when half of it has: so its outer seconds
    are given up.
    """
    logs = [math.log(point.p50) for point in points]
    slope = line.slope if line else 0.0
    flat = [a - slope * point.start_s for a, point in zip(logs, points, strict=True)]
    middle = median(flat)
    threshold = max(math.log(_MEDIAN_RATIO), _MADS * max(scaled_mad(flat), _LEAST_MAD))
    usual_ms = math.exp(median(logs))
    hot = [
        Stretch(point.start_s, point.start_s + 1)
        for point, residual in zip(points, flat, strict=True)
        if residual - middle > threshold and point.p50 - usual_ms > RISE_MS
    ]
    half = width_s // 2
    return [
        Stretch(run.from_s + half, run.to_s - 1 + width_s - half)
        for run in merged(hot, gap_s=half)
        if run.length_s >= max(2, half)
    ]


def _slow(signals: Signals, phase: PhaseSpan, metric: str, line: Trend | None) -> list[Stretch]:
    """Return where far more edits than usual were slow: a tail that a median does not show.

    Edits are counted, not deliveries: all observers of one slow edit see it slow.
    """
    rows = signals.rows(
        "slow_edits",
        metric=metric,
        phase=phase.label,
        ratio=_SLOW_RATIO,
        slope=line.slope if line else 0.0,
    )
    edits = {row["second"]: float(row["edits"]) for row in rows}
    slow = {row["second"]: float(row["slow"]) for row in rows}
    # The usual share is that of the better seconds: what is looked for must not hide itself.
    kept = sorted(rows, key=lambda row: row["slow"] / row["edits"])[: math.ceil(0.85 * len(rows))]
    usual = sum(row["slow"] for row in kept) / sum(row["edits"] for row in kept)
    usual = max(usual, sum(slow.values()) / sum(edits.values()) / 4)
    rate = sum(edits.values()) / max(len(phase.seconds), 1)
    found: list[Stretch] = []
    for least in (EDITS_A_WINDOW, 5 * EDITS_A_WINDOW):
        width_s = max(2, math.ceil(least / rate))

        def is_crowded(count: float, first: int, width_s: int = width_s) -> bool:
            whole = sum(edits.get(t, 0.0) for t in range(first, first + width_s))
            return (
                count >= _LEAST_SLOW
                and count >= _SLOW_SHARE * whole
                and chance_of(count, usual * whole) < _SLOW_CHANCE
            )

        found += crowded(slow, phase.seconds, width_s, is_crowded)
    return found


def spike_finding(
    signals: Signals, phase: PhaseSpan, stretch: Stretch, metrics: list[str]
) -> Finding | None:
    """Return the finding of a spike; None if its exact figures do not bear it out."""
    metric = next(name for name in METRICS if name in metrics)
    figures = _inside(signals, phase, stretch, metric)
    if figures is None:
        return None
    before, within = figures
    quantile = max(
        ("p50", "p95", "p99"), key=lambda q: (within[q] / max(before[q], 1e-3), q == "p99")
    )
    ratio = within[quantile] / max(before[quantile], 1e-3)
    rise_ms = within[quantile] - before[quantile]
    is_short = stretch.length_s < _SHORT_S
    if rise_ms < RISE_MS or ratio < (_SHORT_RATIO if is_short else _LEAST_RATIO):
        return None
    why = _cause_of_spike(signals, phase, stretch, metric, rise_ms)
    bound = signals.wanted(f"{metric}.p95", phase.label)
    severity: Severity = "note"
    # Twice as long, by what a user can feel; a moment's rise must be steeper to be worth acting on.
    if ratio >= (3 if is_short else 2) and rise_ms >= 30:  # noqa: PLR2004
        severity = "warning"
    if (bound is not None and within["p95"] > bound) or (ratio >= 8 and rise_ms >= 500):  # noqa: PLR2004
        severity = "critical"
    evidence: Evidence = {
        "metric": metric,
        "quantile": quantile,
        "ratio": ratio,
        "before_ms": before[quantile],
        "inside_ms": within[quantile],
        "inside_p95_ms": within["p95"],
        "samples": float(within["count"]),
    }
    sentence = (
        f"{NAMES[metric].capitalize()} {quantile} rose {times_text(ratio)} "
        f"({ms_text(before[quantile])} to {ms_text(within[quantile])}) "
        f"{window_text(signals, stretch)} {why.clause}."
    )
    return finding_of(
        signals,
        phase,
        stretch,
        kind="latency_spike",
        severity=severity,
        sentence=sentence,
        why=why,
        evidence=evidence,
    )


def _inside(
    signals: Signals, phase: PhaseSpan, stretch: Stretch, metric: str
) -> tuple[dict[str, float], dict[str, float]] | None:
    rows = signals.rows(
        "latency_inside",
        metric=metric,
        phase=phase.label,
        from_s=math.floor(stretch.from_s),
        to_s=math.ceil(stretch.to_s),
    )
    by_place = {row["inside"]: row for row in rows}
    if True not in by_place or False not in by_place:
        return None
    return by_place[False], by_place[True]


def _cause_of_spike(
    signals: Signals, phase: PhaseSpan, stretch: Stretch, metric: str, rise_ms: float
) -> Explanation:
    # A worker explains a rise only if it was late by half of it.
    late_ms = max(rise_ms / 2, LEAST_LATE_MS)
    general = explain(signals, phase, stretch, generator_late_ms=late_ms)
    if general.cause == "generator":
        return general
    alone = _only_worker(signals, phase, stretch, metric)
    if alone and general.cause != "relay":
        return Explanation(
            "network",
            f"on {alone} alone, while it was neither busy nor late and the other workers saw "
            f"nothing: {alone}'s way to the relay",
            general.evidence | {"worker_at_fault": alone},
        )
    return general


def _only_worker(signals: Signals, phase: PhaseSpan, stretch: Stretch, metric: str) -> str | None:
    rows = signals.rows(
        "latency_shift_by_worker",
        metric=metric,
        phase=phase.label,
        from_s=math.floor(stretch.from_s),
        to_s=math.ceil(stretch.to_s),
    )
    known = {
        row["worker"]: row["inside_ms"] / row["outside_ms"]
        for row in rows
        if row["inside_ms"] and row["outside_ms"] and row["count"] >= 5  # noqa: PLR2004
    }
    if len(known) < 2:  # noqa: PLR2004 - alone it is no exception
        return None
    ordered = sorted(known, key=lambda worker: known[worker])
    worst, next_worst = known[ordered[-1]], known[ordered[-2]]
    return ordered[-1] if worst >= _MEDIAN_RATIO and next_worst < 1.2 else None  # noqa: PLR2004
