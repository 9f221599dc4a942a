"""Stretches in which far fewer edits were acknowledged than made."""

from __future__ import annotations

import math

from reports.findings.causes import explain, finding_of, window_text
from reports.findings.finding import Finding, Severity
from reports.findings.signals import PhaseSpan, Second, Signals, inside
from reports.findings.stretches import Stretch, merged, richest
from reports.findings.wording import percent_text

_EDITS_A_WINDOW = (12, 24)
_NARROWEST_S, _WIDEST_S = 3, 15
_COLLAPSED_SHARE = 0.6
_COLLAPSE_DEVIATIONS = 2.5
_ONE_COLLAPSE_S = 30


def throughput_findings(signals: Signals) -> list[Finding]:
    """Return the collapses of throughput of each phase in which edits were made."""
    return [
        finding
        for phase in signals.phases
        for finding in _collapses(signals, phase, signals.in_phase(phase))
    ]


def _collapses(signals: Signals, phase: PhaseSpan, seconds: list[Second]) -> list[Finding]:
    """Find where far fewer edits were acknowledged than made.

    Those that failed or were missed count for neither side: they are errors, or the generator's.
    """
    offered = {s.second: s.made for s in seconds}
    done = {s.second: s.completed for s in seconds}
    made = sum(offered.values())
    if made < 2 * min(_EDITS_A_WINDOW):
        return []
    widths_s = sorted(
        min(max(math.ceil(least * len(seconds) / made), _NARROWEST_S), _WIDEST_S)
        for least in _EDITS_A_WINDOW
    )
    low = [
        stretch for width_s in widths_s for stretch in _low(phase.seconds, width_s, offered, done)
    ]
    found = []
    for stretch in _whole_collapses(low, widths_s[0], phase.seconds, offered, done):
        within = inside(seconds, stretch)
        expected, got = sum(s.made for s in within), sum(s.completed for s in within)
        if not expected:
            continue
        share = got / expected
        why = explain(signals, phase, stretch)
        severity: Severity = "critical" if share < 0.5 and stretch.length_s >= 5 else "warning"  # noqa: PLR2004
        rate = expected / stretch.length_s
        sentence = (
            f"Acknowledged edits fell to {percent_text(share)} of those made "
            f"({got / stretch.length_s:.1f} of {rate:.1f} a second) "
            f"{window_text(signals, stretch)} {why.clause}."
        )
        found.append(
            finding_of(
                signals,
                phase,
                stretch,
                kind="throughput_collapse",
                severity=severity,
                sentence=sentence,
                why=why,
                evidence={
                    "made_per_s": rate,
                    "acknowledged_per_s": got / stretch.length_s,
                    "share": share,
                    "never_acknowledged": float(sum(s.unacknowledged for s in within)),
                },
            )
        )
    return found


def _low(grid: range, width_s: int, offered: dict[int, int], done: dict[int, int]) -> list[Stretch]:
    """Return the middles of the windows in which too few edits were acknowledged."""
    found = []
    for first in range(grid.start, grid.stop - width_s + 1):
        window = range(first, first + width_s)
        expected = sum(offered.get(t, 0) for t in window)
        got = sum(done.get(t, 0) for t in window)
        if (
            expected >= min(_EDITS_A_WINDOW) / 2
            and got < _COLLAPSED_SHARE * expected
            and expected - got >= _COLLAPSE_DEVIATIONS * math.sqrt(expected)
        ):
            # Less than the share is low as soon as about half of a window is.
            half = width_s // 2
            found.append(Stretch(first + half, first + width_s - half))
    return found


def _whole_collapses(
    low: list[Stretch], width_s: int, grid: range, offered: dict[int, int], done: dict[int, int]
) -> list[Stretch]:
    """Return from when to when collapses went on, from the narrow windows that show them.

    One spans the seconds in which, on the whole, more than half as much was lost as makes a
    collapse. A few lucky seconds do not make two of it.
    """
    least = (1 - _COLLAPSED_SHARE) / 2
    lost = {t: (1 - least) * count - done.get(t, 0) for t, count in offered.items()}
    found: list[Stretch] = []
    for rough in merged(low, gap_s=width_s):
        first, beyond = int(rough.from_s) - width_s, int(rough.to_s) + width_s
        around = range(max(first, grid.start), min(beyond, grid.stop))
        stretch = richest(lost, around) or rough
        if found and stretch.from_s - found[-1].to_s <= _ONE_COLLAPSE_S:
            both = found[-1].joined(stretch)
            if richest(lost, range(int(both.from_s), int(both.to_s))) == both:
                stretch = found.pop().joined(stretch)
        found.append(stretch)
    return found
