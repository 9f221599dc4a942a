"""What the relay itself shows: silence, restarts, memory that does not stop growing."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median

from reports.findings.causes import busy_worker, is_restart, window_text
from reports.findings.finding import Cause, Evidence, Finding, Severity
from reports.findings.robust import Trend, rises_throughout, theil_sen
from reports.findings.signals import PhaseSpan, Second, Signals, inside
from reports.findings.stretches import Stretch, merged, stretches_of
from reports.findings.wording import clock, count_text, percent_text, seconds_text

_SILENT_S = 3
_SILENT_LONG_S = 10
_STEADY_SHARE = 0.03
_LEAK_S = 40
_LEAK_POINTS = 30
_LEAK_SHARE = 0.04
_LEAK_MB = 4.0
_LEAK_LOW_SHARE = 0.4
_LEAK_STRONG_SHARE = 0.08
_THIRD = 0.2


def relay_findings(signals: Signals) -> list[Finding]:
    """Return what the relay's own `/metrics` shows, if it publishes any."""
    if not signals.database.facts.record.has_metrics:
        return []
    return [*_silences(signals), *_restarts(signals), *_leaks(signals)]


def _silences(signals: Signals) -> list[Finding]:
    polled = sorted(t for t, s in signals.seconds.items() if s.polls)
    silent = merged(
        stretches_of(polled, lambda t: signals.seconds[t].polls_failed == signals.seconds[t].polls),
        gap_s=1,
    )
    found = []
    for stretch in silent:
        within = inside(list(signals.seconds.values()), stretch)
        failed = sum(s.polls_failed for s in within)
        if failed < _SILENT_S:
            continue
        completed, made = sum(s.completed for s in within), sum(s.made for s in within)
        busy = busy_worker(signals, stretch)
        cause: Cause = "relay"
        if busy:
            why = f"while {busy[1]}: the generator may have been too busy to ask"
            cause = "generator"
        elif made and completed >= 0.5 * made:
            why = "though it went on to acknowledge edits: its /metrics only"
        elif made:
            why = "and it acknowledged few or no edits then: the relay, or the network before it"
        else:
            why = "and no edits were made then to tell whether it worked: the relay, or the network"
        severity: Severity = "critical" if stretch.length_s >= _SILENT_LONG_S else "warning"
        found.append(
            Finding(
                kind="relay_silent",
                severity=severity,
                phase=signals.phase_at(stretch.from_s),
                started_us=signals.us(stretch.from_s),
                ended_us=signals.us(stretch.to_s),
                evidence={
                    "polls_failed": float(failed),
                    "error": _poll_error(signals, stretch),
                    "edits_acknowledged": float(completed),
                    "edits_made": float(made),
                },
                sentence=(
                    f"The relay's /metrics failed {count_text(failed, 'time')} "
                    f"{window_text(signals, stretch)} ({_poll_error(signals, stretch)}), {why}."
                ),
                cause=cause,
            )
        )
    return found


def _poll_error(signals: Signals, stretch: Stretch) -> str:
    errors = [
        str(row["error"])
        for row in signals.rows("relay_polls")
        if row["error"] and stretch.from_s <= row["at_s"] < stretch.to_s
    ]
    return max(set(errors), key=errors.count)[:120] if errors else "no answer"


def _restarts(signals: Signals) -> list[Finding]:
    found = []
    for row in signals.rows("relay_polls"):
        if not is_restart(row):
            continue
        at_s = row["at_s"]
        # It ended after its last answer, and its successor began before its first.
        before_s = row["at_before_s"] if row["at_before_s"] is not None else at_s - 1
        stretch = Stretch(max(before_s, 0.0), at_s)
        near = [s for t, s in signals.seconds.items() if stretch.from_s - 5 <= t <= at_s + 5]
        drops = sum(s.drops for s in near)
        evidence: Evidence = {"connections_dropped": float(drops)}
        for name in ("pid", "pid_before", "uptime_s", "uptime_before_s"):
            if row[name] is not None:
                evidence[name] = float(row[name])
        how = (
            f"its pid went from {row['pid_before']} to {row['pid']}"
            if row["pid"] != row["pid_before"]
            else f"its uptime went back from {seconds_text(row['uptime_before_s'])} to "
            f"{row['uptime_s']:.0f} s"
        )
        memory = _memory_before(signals, stretch.from_s)
        last = f" its memory had been {memory:.0f} MB," if memory is not None else ""
        if memory is not None:
            evidence["memory_before_mb"] = memory
        found.append(
            Finding(
                kind="relay_restarted",
                severity="critical",
                phase=signals.phase_at(stretch.from_s),
                started_us=signals.us(stretch.from_s),
                ended_us=signals.us(stretch.to_s),
                evidence=evidence,
                sentence=(
                    f"The relay was restarted at {clock(signals.us(stretch.from_s))} ({how});"
                    f"{last} and {count_text(drops, 'connection')} dropped around then: the relay."
                ),
                cause="relay",
            )
        )
    return found


def _memory_before(signals: Signals, at_s: float) -> float | None:
    known = [
        s.relay_memory_mb
        for t, s in sorted(signals.seconds.items())
        if s.relay_memory_mb is not None and at_s - 30 <= t < at_s
    ]
    return known[-1] if known else None


def _leaks(signals: Signals) -> list[Finding]:
    found = []
    for phase in signals.phases:
        steady = _steady(signals.in_phase(phase))
        if len(steady) < _LEAK_S:
            continue
        finding = _leak(signals, phase, steady)
        if finding:
            found.append(finding)
    return found


def _steady(seconds: list[Second]) -> list[Second]:
    """Return the longest run of seconds whose connections stay within a few of each other."""
    known = [s for s in seconds if s.relay_memory_mb is not None]
    best: list[Second] = []
    first = 0
    for last in range(len(known)):
        while not _is_steady(known[first], known[last], known):
            first += 1
        # The run is grown one second at a time, so its ends stand for all of it.
        if last - first + 1 > len(best):
            best = known[first : last + 1]
    return best


def _connections(second: Second) -> float | None:
    own = second.relay_connections
    return own if own is not None else second.connections_open


def _is_steady(first: Second, last: Second, _known: list[Second]) -> bool:
    a, b = _connections(first), _connections(last)
    if a is None or b is None:
        return True
    return abs(a - b) <= max(2.0, _STEADY_SHARE * max(a, b))


def _leak(signals: Signals, phase: PhaseSpan, steady: list[Second]) -> Finding | None:
    from_s, to_s = steady[0].second, steady[-1].second + 1
    bin_s = max(1, math.ceil((to_s - from_s) / _LEAK_POINTS))
    bins: dict[int, list[float]] = {}
    for second in steady:
        if second.relay_memory_mb is not None:
            bins.setdefault((second.second - from_s) // bin_s, []).append(second.relay_memory_mb)
    xs = [from_s + (index + 0.5) * bin_s for index in sorted(bins)]
    ys = [median(bins[index]) for index in sorted(bins)]
    if len(xs) < 9 or any(b < 0.8 * a for a, b in pairwise(ys)):  # noqa: PLR2004
        return None
    line = theil_sen(xs, ys)
    length_s = to_s - from_s
    growth = line.slope * length_s
    base = max(line.at(from_s), 1.0)
    if (
        growth < max(_LEAK_MB, _LEAK_SHARE * base)
        or line.low * length_s < _LEAK_LOW_SHARE * growth
        or not rises_throughout(ys, least_share=_THIRD)
    ):
        return None
    bound = signals.wanted("relay.memory_growth_mb", phase.label)
    severity: Severity = "warning" if growth >= _LEAK_STRONG_SHARE * base else "note"
    if (bound is not None and growth > bound) or growth >= 0.5 * base:
        severity = "critical"
    stretch = Stretch(from_s, to_s)
    why, evidence = _grows_with(signals, phase, steady, line, growth)
    hourly = line.slope * 3600
    figures: Evidence = {
        "growth_mb": growth,
        "start_mb": base,
        "slope_mb_per_hour": hourly,
        "slope_low_mb_per_hour": line.low * 3600,
        "slope_high_mb_per_hour": line.high * 3600,
    }
    return Finding(
        kind="memory_leak",
        severity=severity,
        phase=phase.label,
        started_us=signals.us(stretch.from_s),
        ended_us=signals.us(stretch.to_s),
        evidence=figures | evidence,
        sentence=(
            f"Relay memory grew steadily by {growth:.0f} MB in {seconds_text(length_s)} of "
            f"{phase.label}, {percent_text(growth / base)} of what it was "
            f"({hourly:,.0f} MB an hour, 95 % interval {line.low * 3600:,.0f} to "
            f"{line.high * 3600:,.0f}), while connections stayed the same{why}: the relay."
        ),
        cause="relay",
    )


def _grows_with(
    signals: Signals, phase: PhaseSpan, steady: list[Second], line: Trend, growth: float
) -> tuple[str, Evidence]:
    """Say whether the growth is the edits': it stops where none are made, or it does not."""
    edits = sum(s.completed for s in steady)
    if not edits:
        return " and no edits were made", {}
    per_edit_kb = growth * 1024 / edits
    evidence: Evidence = {"growth_kb_per_edit": per_edit_kb}
    idle = next(
        (p for p in signals.phases if p.kind == "cooldown" and p.from_s >= phase.to_s - 1), None
    )
    rest = (
        [s for s in _steady(signals.in_phase(idle)) if s.second >= idle.from_s + 2] if idle else []
    )
    if len(rest) >= 15:  # noqa: PLR2004 - enough points for a line
        slope = theil_sen([s.second for s in rest], [s.relay_memory_mb or 0.0 for s in rest]).slope
        evidence["idle_slope_mb_per_hour"] = slope * 3600
        if slope > 0.5 * line.slope:
            return ", and it went on growing when the edits stopped", evidence
        if slope < 0.2 * line.slope:
            return (
                f", and it stopped when the edits stopped ({per_edit_kb:.0f} KB for each edit)",
                evidence,
            )
    return f" ({per_edit_kb:.0f} KB for each edit, if edits are what it keeps)", evidence
