"""Latency that jumped for a while, or grew throughout a phase."""

from __future__ import annotations

from reports.findings.finding import Finding
from reports.findings.signals import PhaseSpan, Signals
from reports.findings.spikes import spike_finding, spikes
from reports.findings.stretches import Stretch, merged
from reports.findings.trends import LatencyTrend, latency_trend, trend_finding
from reports.findings.windows import EDITS_A_WINDOW, METRICS, width_s, windows

_LEAST_WINDOWS = 20
_ONE_SPIKE_S = 10


def latency_findings(signals: Signals) -> list[Finding]:
    """Return spikes and trends of each phase in which edits were made."""
    found: list[Finding] = []
    for phase in signals.phases:
        made = sum(second.made for second in signals.in_phase(phase))
        if made >= 3 * EDITS_A_WINDOW and phase.seconds:
            found += _of_phase(signals, phase, width_s(made / len(phase.seconds)))
    return found


def _of_phase(signals: Signals, phase: PhaseSpan, wide_s: int) -> list[Finding]:
    hot: list[tuple[Stretch, str]] = []
    trends: list[LatencyTrend] = []
    for metric in METRICS:
        points = windows(signals, phase, metric, wide_s, step_s=1)
        if len(points) < _LEAST_WINDOWS:
            continue
        trend = latency_trend(signals, phase, metric, wide_s)
        if trend and phase.holds_connections:
            trends.append(trend)
        line = trend.line if trend else None
        found_hot = spikes(signals, phase, metric, points, wide_s=wide_s, line=line)
        hot += [(stretch, metric) for stretch in found_hot]
    found = []
    if trends:
        steepest = max(trends, key=lambda trend: trend.ratio)
        found.append(trend_finding(signals, phase, steepest))
    for stretch in merged((s for s, _ in hot), gap_s=max(wide_s + 2, _ONE_SPIKE_S)):
        metrics = [metric for s, metric in hot if s.overlaps(stretch)]
        finding = spike_finding(signals, phase, stretch, metrics)
        if finding:
            found.append(finding)
    return found
