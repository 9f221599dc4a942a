"""Memory of the relay that does not stop growing while its connections stay the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from reports.findings.finding import Evidence, Finding, Severity
from reports.findings.robust import Trend, rises_throughout, theil_sen
from reports.findings.signals import PhaseSpan, Second, Signals
from reports.findings.wording import listed, percent_text, seconds_text

_STEADY_SHARE = 0.03
_LEAST_S = 40
_POINTS, _LEAST_POINTS = 30, 9
_FALLEN_SHARE = 0.8
_GROWN_SHARE = 0.04
_GROWN_MB = 4.0
_LOW_SHARE = 0.4
_STRONG_SHARE, _HUGE_SHARE = 0.08, 0.5
_THIRD = 0.2
_IDLE_S = 15
_METRIC = "relay.memory_growth_mb"


@dataclass(frozen=True)
class _Rise:
    """A phase's longest window of constant connections, in which memory rose all along."""

    phase: PhaseSpan
    seconds: list[Second]
    line: Trend

    @property
    def from_s(self) -> float:
        return self.seconds[0].second

    @property
    def to_s(self) -> float:
        return self.seconds[-1].second + 1

    @property
    def length_s(self) -> float:
        return self.to_s - self.from_s

    @property
    def growth_mb(self) -> float:
        return self.line.slope * self.length_s


def memory_findings(signals: Signals) -> list[Finding]:
    """Return one finding for a relay whose memory grew, over all phases in which it did.

    Each phase is looked at by itself, because connections come and go between them; together
    they are one slope of one process.
    """
    if not signals.database.facts.record.has_metrics:
        return []
    rises = [rise for phase in signals.phases if (rise := _rise(signals, phase))]
    growth_mb = sum(rise.growth_mb for rise in rises)
    if not rises or growth_mb < max(_GROWN_MB, _GROWN_SHARE * _base_mb(rises)):
        return []
    return [_leak(signals, rises, growth_mb)]


def _rise(signals: Signals, phase: PhaseSpan) -> _Rise | None:
    steady = _steady(signals.in_phase(phase))
    if len(steady) < _LEAST_S:
        return None
    from_s, to_s = steady[0].second, steady[-1].second + 1
    bin_s = max(1, math.ceil((to_s - from_s) / _POINTS))
    bins: dict[int, list[float]] = {}
    for second in steady:
        if second.relay_memory_mb is not None:
            bins.setdefault((second.second - from_s) // bin_s, []).append(second.relay_memory_mb)
    xs = [from_s + (index + 0.5) * bin_s for index in sorted(bins)]
    ys = [median(bins[index]) for index in sorted(bins)]
    # A relay that was restarted, or let go of it, has no one slope.
    if len(xs) < _LEAST_POINTS or any(b < _FALLEN_SHARE * a for a, b in pairwise(ys)):
        return None
    rise = _Rise(phase, steady, theil_sen(xs, ys))
    if rise.growth_mb <= 0 or rise.line.low * rise.length_s < _LOW_SHARE * rise.growth_mb:
        return None
    return rise if rises_throughout(ys, least_share=_THIRD) else None


def _steady(seconds: list[Second]) -> list[Second]:
    """Return the longest run of seconds whose connections stay within a few of each other."""
    known = [s for s in seconds if s.relay_memory_mb is not None]
    best: list[Second] = []
    first = 0
    for last in range(len(known)):
        # The run is grown one second at a time, so its ends stand for all of it.
        while not _is_steady(known[first], known[last]):
            first += 1
        if last - first + 1 > len(best):
            best = known[first : last + 1]
    return best


def _is_steady(first: Second, last: Second) -> bool:
    a, b = _connections(first), _connections(last)
    if a is None or b is None:
        return True
    return abs(a - b) <= max(2.0, _STEADY_SHARE * max(a, b))


def _connections(second: Second) -> float | None:
    own = second.relay_connections
    return own if own is not None else second.connections_open


def _base_mb(rises: list[_Rise]) -> float:
    return max(rises[0].line.at(rises[0].from_s), 1.0)


def _leak(signals: Signals, rises: list[_Rise], growth_mb: float) -> Finding:
    base_mb = _base_mb(rises)
    length_s = sum(rise.length_s for rise in rises)
    longest = max(rises, key=lambda rise: rise.length_s)
    low, high = (
        sum(bound * rise.length_s for rise, bound in zip(rises, bounds, strict=True)) / length_s
        for bounds in ([r.line.low for r in rises], [r.line.high for r in rises])
    )
    slope = growth_mb / length_s
    why, evidence = _grows_with(signals, rises, slope)
    figures: Evidence = {
        "growth_mb": growth_mb,
        "start_mb": base_mb,
        "slope_mb_per_hour": slope * 3600,
        "slope_low_mb_per_hour": low * 3600,
        "slope_high_mb_per_hour": high * 3600,
        "windows": float(len(rises)),
    }
    where = listed([rise.phase.label for rise in rises])
    return Finding(
        kind="memory_leak",
        severity=_severity(signals, rises, growth_mb),
        phase=longest.phase.label,
        started_us=signals.us(rises[0].from_s),
        ended_us=signals.us(rises[-1].to_s),
        evidence=figures | evidence,
        sentence=(
            f"Relay memory grew steadily by {growth_mb:.0f} MB in {seconds_text(length_s)} of "
            f"{where}, {percent_text(growth_mb / base_mb)} of what it was "
            f"({slope * 3600:,.0f} MB an hour, 95 % interval {low * 3600:,.0f} to "
            f"{high * 3600:,.0f}), while connections stayed the same{why}: the relay."
        ),
        cause="relay",
    )


def _severity(signals: Signals, rises: list[_Rise], growth_mb: float) -> Severity:
    """Say how bad it is; what breaks an objective, or doubles in a few such phases, is critical."""
    for_all = signals.wanted(_METRIC, "")
    too_much = any(
        bound is not None and rise.growth_mb > bound
        for rise in rises
        for bound in [signals.wanted(_METRIC, rise.phase.label)]
    )
    base_mb = _base_mb(rises)
    if too_much or (for_all is not None and growth_mb > for_all):
        return "critical"
    if growth_mb >= _HUGE_SHARE * base_mb:
        return "critical"
    return "warning" if growth_mb >= _STRONG_SHARE * base_mb else "note"


def _grows_with(signals: Signals, rises: list[_Rise], slope: float) -> tuple[str, Evidence]:
    """Say whether the growth is the edits': it stops where none are made, or it does not."""
    edits = sum(second.completed for rise in rises for second in rise.seconds)
    if not edits:
        return " and no edits were made", {}
    per_edit_kb = sum(rise.growth_mb for rise in rises) * 1024 / edits
    evidence: Evidence = {"growth_kb_per_edit": per_edit_kb}
    ended_s = rises[-1].phase.to_s
    idle = next((p for p in signals.phases if p.kind == "cooldown" and p.to_s >= ended_s), None)
    rest = (
        [s for s in _steady(signals.in_phase(idle)) if s.second >= idle.from_s + 2] if idle else []
    )
    if len(rest) >= _IDLE_S:
        memory = [s.relay_memory_mb or 0.0 for s in rest]
        idle_slope = theil_sen([s.second for s in rest], memory).slope
        evidence["idle_slope_mb_per_hour"] = idle_slope * 3600
        if idle_slope > 0.5 * slope:
            return ", and it went on growing when the edits stopped", evidence
        if idle_slope < 0.2 * slope:
            return (
                f", and it stopped when the edits stopped ({per_edit_kb:.0f} KB for each edit)",
                evidence,
            )
    return f" ({per_edit_kb:.0f} KB for each edit, if edits are what it keeps)", evidence
