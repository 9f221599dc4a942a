"""Latency that jumped for a while, or grew throughout a phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from reports.findings.causes import LATE_MS, Explanation, busy_worker, explain, window_text
from reports.findings.finding import Evidence, Finding, Severity
from reports.findings.robust import Trend, chance_of, rises_throughout, scaled_mad, theil_sen
from reports.findings.signals import PhaseSpan, Signals
from reports.findings.stretches import Stretch, crowded, merged
from reports.findings.wording import ms_text, percent_text, times_text

METRICS = ("delivery_ms", "acknowledgement_ms")
_NAMES = {"delivery_ms": "delivery", "acknowledgement_ms": "acknowledgement"}
_EDITS_A_WINDOW = 8
_WIDEST_S = 15
_LEAST_WINDOWS = 20
_LEAST_MAD = 0.06
_MADS = 5.0
_MEDIAN_RATIO = 1.6
_SLOW_RATIO = 2.5
_LEAST_RATIO = 1.6
_LEAST_SLOW = 4
_SLOW_SHARE = 0.15
_SLOW_CHANCE = 1e-6
_RISE_MS = 10.0
_ONE_SPIKE_S = 10
_TREND_POINTS = 30
_TREND_RATIO = 1.35
_TREND_LOW_RATIO = 1.15
_TREND_S = 40
_THIRD = 0.15


@dataclass(frozen=True)
class _Point:
    start_s: int
    p50: float
    p95: float


def latency_findings(signals: Signals) -> list[Finding]:
    """Return spikes and trends of each phase in which edits were made."""
    found: list[Finding] = []
    for phase in signals.phases:
        made = sum(second.made for second in signals.in_phase(phase))
        if made < 3 * _EDITS_A_WINDOW or not phase.seconds:
            continue
        width_s = _width_s(made / len(phase.seconds))
        spikes: list[tuple[Stretch, str]] = []
        trends: list[tuple[float, Finding]] = []
        for metric in METRICS:
            points = _points(signals, phase, metric, width_s, step_s=1)
            if len(points) < _LEAST_WINDOWS:
                continue
            trend = _trend(signals, phase, metric, width_s)
            if trend and phase.holds_connections:
                trends.append(trend_finding(signals, phase, metric, trend))
            line = trend.line if trend else None
            spikes += [(stretch, metric) for stretch in _hot(points, width_s, line)]
            spikes += [(stretch, metric) for stretch in _slow(signals, phase, metric, line)]
        if trends:
            found.append(max(trends, key=lambda one: one[0])[1])
        for stretch in merged((s for s, _ in spikes), gap_s=max(width_s + 2, _ONE_SPIKE_S)):
            finding = _spike(signals, phase, stretch, [m for s, m in spikes if s.overlaps(stretch)])
            if finding:
                found.append(finding)
    return found


def _width_s(edits_per_s: float) -> int:
    """Return the width of a window that holds enough edits for its quantiles to mean something."""
    return min(max(math.ceil(_EDITS_A_WINDOW / edits_per_s), 1), _WIDEST_S)


def _points(
    signals: Signals, phase: PhaseSpan, metric: str, width_s: int, *, step_s: int
) -> list[_Point]:
    rows = signals.rows(
        "latency_windows", metric=metric, phase=phase.label, width_s=width_s, step_s=step_s
    )
    return [_Point(row["start_s"], row["p50"], row["p95"]) for row in rows]


@dataclass(frozen=True)
class _Trend:
    line: Trend
    from_s: float
    to_s: float

    def _change(self, slope: float) -> float:
        return math.exp(slope * (self.to_s - self.from_s))

    @property
    def ratio(self) -> float:
        return self._change(self.line.slope)

    @property
    def low(self) -> float:
        return self._change(self.line.low)

    @property
    def high(self) -> float:
        return self._change(self.line.high)


def _trend(signals: Signals, phase: PhaseSpan, metric: str, width_s: int) -> _Trend | None:
    length = len(phase.seconds)
    if length < _TREND_S:
        return None
    bin_s = max(width_s, math.ceil(length / _TREND_POINTS))
    points = _points(signals, phase, metric, bin_s, step_s=bin_s)
    if len(points) < 6:  # noqa: PLR2004 - two for each third
        return None
    logs = [math.log(point.p50) for point in points]
    line = theil_sen([point.start_s + bin_s / 2 for point in points], logs)
    trend = _Trend(line, points[0].start_s, points[-1].start_s + bin_s)
    rise_ms = math.exp(line.at(trend.to_s)) - math.exp(line.at(trend.from_s))
    if (
        trend.ratio < _TREND_RATIO
        or trend.low < _TREND_LOW_RATIO
        or rise_ms < _RISE_MS
        or not rises_throughout(logs, least_share=_THIRD)
    ):
        return None
    return trend


def trend_finding(
    signals: Signals, phase: PhaseSpan, metric: str, trend: _Trend
) -> tuple[float, Finding]:
    """Return a trend's finding, and its size to compare it with another metric's."""
    first, last = math.exp(trend.line.at(trend.from_s)), math.exp(trend.line.at(trend.to_s))
    stretch = Stretch(trend.from_s, trend.to_s)
    late = busy_worker(signals, Stretch((trend.from_s + trend.to_s) / 2, trend.to_s))
    memory = _memory_change(signals, phase)
    if late:
        why = Explanation("generator", f"{late[1]}: the generator, not the relay", late[2])
    elif memory is not None and memory > 1.1:  # noqa: PLR2004 - a tenth is more than its noise
        why = Explanation(
            "relay",
            f"relay memory rose by {percent_text(memory - 1)} with it, at constant connections, "
            f"and no worker was busy: the relay",
        )
    else:
        why = Explanation(
            "unknown",
            "connections and relay memory stayed as they were and no worker was busy: "
            "the relay, or its documents' growing history",
        )
    bound = signals.wanted(f"{metric}.p95", phase.label)
    severity: Severity = "warning" if trend.ratio >= 1.5 or last - first >= 100 else "note"  # noqa: PLR2004
    if bound is not None and last > bound:
        severity = "critical"
    sentence = (
        f"The median {_NAMES[metric]} grew throughout {phase.label}, from {ms_text(first)} to "
        f"{ms_text(last)} ({times_text(trend.ratio)}, 95 % interval {times_text(trend.low)} to "
        f"{times_text(trend.high)}); {why.clause}."
    )
    evidence: Evidence = {
        "metric": metric,
        "start_ms": first,
        "end_ms": last,
        "ratio": trend.ratio,
        "ratio_low": trend.low,
        "ratio_high": trend.high,
    }
    return trend.ratio, Finding(
        kind="latency_trend",
        severity=severity,
        phase=phase.label,
        started_us=signals.us(stretch.from_s),
        ended_us=signals.us(stretch.to_s),
        evidence=evidence | why.evidence,
        sentence=sentence,
        cause=why.cause,
    )


def _memory_change(signals: Signals, phase: PhaseSpan) -> float | None:
    values = [s.relay_memory_mb for s in signals.in_phase(phase) if s.relay_memory_mb is not None]
    fifth = len(values) // 5
    if not fifth:
        return None
    first = median(values[:fifth])
    return median(values[-fifth:]) / first if first else None


def _hot(points: list[_Point], width_s: int, line: Trend | None) -> list[Stretch]:
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
        if residual - middle > threshold and point.p50 - usual_ms > _RISE_MS
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
    for least in (_EDITS_A_WINDOW, 5 * _EDITS_A_WINDOW):
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


def _spike(
    signals: Signals, phase: PhaseSpan, stretch: Stretch, metrics: list[str]
) -> Finding | None:
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
    if rise_ms < _RISE_MS or ratio < _LEAST_RATIO:
        return None
    why = _cause_of_spike(signals, phase, stretch, metric, rise_ms)
    bound = signals.wanted(f"{metric}.p95", phase.label)
    severity: Severity = "note"
    if ratio >= 2 and rise_ms >= 30:  # noqa: PLR2004 - twice, and by what a user can feel
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
    return Finding(
        kind="latency_spike",
        severity=severity,
        phase=phase.label,
        started_us=signals.us(stretch.from_s),
        ended_us=signals.us(stretch.to_s),
        worker=str(why.evidence["worker_at_fault"]) if "worker_at_fault" in why.evidence else None,
        evidence=evidence | why.evidence,
        sentence=(
            f"{_NAMES[metric].capitalize()} {quantile} rose {times_text(ratio)} "
            f"({ms_text(before[quantile])} to {ms_text(within[quantile])}) "
            f"{window_text(signals, stretch)} {why.clause}."
        ),
        cause=why.cause,
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
    late_ms = max(min(LATE_MS, rise_ms / 2), 30.0)
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
