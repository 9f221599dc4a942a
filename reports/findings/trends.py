"""Latency that grew throughout a phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from reports.findings.causes import Explanation, busy_worker
from reports.findings.finding import Evidence, Finding, Severity
from reports.findings.robust import Trend, rises_throughout, theil_sen
from reports.findings.signals import PhaseSpan, Signals
from reports.findings.stretches import Stretch
from reports.findings.windows import LEAST_LATE_MS, NAMES, RISE_MS, windows
from reports.findings.wording import ms_text, percent_text, times_text

_POINTS = 30
_RATIO = 1.45
_LOW_RATIO = 1.15
_LEAST_S = 40
_THIRD = 0.15


@dataclass(frozen=True)
class LatencyTrend:
    """A straight line through the logarithms of a phase's medians, and what it comes to."""

    metric: str
    line: Trend
    from_s: float
    to_s: float

    def _change(self, slope: float) -> float:
        return math.exp(slope * (self.to_s - self.from_s))

    @property
    def ratio(self) -> float:
        """How many times the first level the last is."""
        return self._change(self.line.slope)

    @property
    def low(self) -> float:
        """The least that it may be, by the 95 % interval."""
        return self._change(self.line.low)

    @property
    def high(self) -> float:
        """The most that it may be."""
        return self._change(self.line.high)


def latency_trend(
    signals: Signals, phase: PhaseSpan, metric: str, wide_s: int
) -> LatencyTrend | None:
    """Return how a latency grew throughout a phase; None if it did not."""
    length = len(phase.seconds)
    if length < _LEAST_S:
        return None
    bin_s = max(wide_s, math.ceil(length / _POINTS))
    points = windows(signals, phase, metric, bin_s, step_s=bin_s)
    if len(points) < 6:  # noqa: PLR2004 - two for each third
        return None
    logs = [math.log(point.p50) for point in points]
    line = theil_sen([point.start_s + bin_s / 2 for point in points], logs)
    trend = LatencyTrend(metric, line, points[0].start_s, points[-1].start_s + bin_s)
    rise_ms = math.exp(line.at(trend.to_s)) - math.exp(line.at(trend.from_s))
    if (
        trend.ratio < _RATIO
        or trend.low < _LOW_RATIO
        or rise_ms < RISE_MS
        or not rises_throughout(logs, least_share=_THIRD)
    ):
        return None
    return trend


def trend_finding(signals: Signals, phase: PhaseSpan, trend: LatencyTrend) -> Finding:
    """Return the finding of a trend."""
    metric = trend.metric
    first, last = math.exp(trend.line.at(trend.from_s)), math.exp(trend.line.at(trend.to_s))
    stretch = Stretch(trend.from_s, trend.to_s)
    late = busy_worker(
        signals,
        Stretch((trend.from_s + trend.to_s) / 2, trend.to_s),
        late_ms=max((last - first) / 2, LEAST_LATE_MS),
    )
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
        f"The median {NAMES[metric]} grew throughout {phase.label}, from {ms_text(first)} to "
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
    return Finding(
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
