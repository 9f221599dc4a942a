"""Errors that came in bursts, and connections that dropped."""

from __future__ import annotations

import functools
import math
from statistics import mean

from reports.findings.causes import (
    Explanation,
    busy_worker,
    explain,
    finding_of,
    movements,
    one_workers,
    window_text,
)
from reports.findings.finding import Evidence, Finding, Severity
from reports.findings.signals import PhaseSpan, Second, Signals, inside, typical
from reports.findings.stretches import Stretch, crowded, merged
from reports.findings.wording import count_text, listed, percent_text

_BURST_S = 5
_LONG_BURST_S = 20
_BURST_DEVIATIONS = 6.0
_LEAST_ERRORS = 5
_ERROR_SHARE = 0.05
_LEAST_DROPS, _LEAST_DROP_SHARE = 3, 0.02
_FEW_DROPS, _FEW_DROP_SHARE = 2, 0.1
_TRIM_SHARE = 0.1
_SAID_TYPES = 2


def loss_findings(signals: Signals) -> list[Finding]:
    """Return bursts of errors and drops of connections."""
    found: list[Finding] = []
    for phase in signals.phases:
        seconds = signals.in_phase(phase)
        if len(seconds) < _BURST_S:
            continue
        found += _bursts(signals, phase, seconds)
        found += _drops(signals, phase, seconds)
    return found


def _bursts(signals: Signals, phase: PhaseSpan, seconds: list[Second]) -> list[Finding]:
    wrong = {s.second: max(s.errors, float(s.failed)) for s in seconds}
    usual = _usual(list(wrong.values()))
    offered = {s.second: s.offered for s in seconds}
    opened = typical([s.connections_open for s in seconds]) or 0

    def is_burst(errors: float, first: int, width_s: int) -> bool:
        tried = sum(offered.get(t, 0) for t in range(first, first + width_s))
        expected = usual * width_s
        return (
            errors >= _LEAST_ERRORS
            and errors >= expected + _BURST_DEVIATIONS * math.sqrt(expected + 1)
            and errors >= _ERROR_SHARE * min(tried or math.inf, max(opened, 1))
        )

    found = []
    hot = [
        stretch
        for width_s in (_BURST_S, _LONG_BURST_S)
        for stretch in crowded(
            wrong, phase.seconds, width_s, functools.partial(is_burst, width_s=width_s)
        )
    ]
    for stretch in merged(hot, gap_s=_BURST_S):
        within = inside(seconds, stretch)
        errors = sum(wrong[s.second] for s in within)
        tried, failed = sum(s.offered for s in within), sum(s.failed for s in within)
        share = failed / tried if tried else 0.0
        rows = signals.rows("errors_inside", from_s=stretch.from_s, to_s=stretch.to_s)
        types, by_worker = _sums(rows, "type", "errors"), _sums(rows, "worker", "errors")
        why = _whose(signals, phase, stretch, by_worker)
        bound = signals.wanted("edits.error_rate", phase.label) or _ERROR_SHARE
        severity: Severity = "note"
        if share > bound / 2 or errors >= _LEAST_ERRORS + 0.1 * opened:
            severity = "warning"
        if share > max(4 * bound, 0.3):
            severity = "critical"
        names = sorted(types, key=lambda name: -types[name])[:_SAID_TYPES]
        said = (
            f" ({listed([f'{name} {types[name]:.0f} times' for name in names])})" if names else ""
        )
        edits = f", {percent_text(share)} of the edits offered then failed" if failed else ""
        sentence = (
            f"{count_text(errors, 'error')}{said} came {window_text(signals, stretch)}{edits}, "
            f"{why.clause}."
        )
        evidence: Evidence = {
            "errors": errors,
            "usual_errors_per_s": usual,
            "failed_edits": float(failed),
            "failed_share": share,
        }
        if names:
            evidence["type"] = names[0]
        found.append(
            finding_of(
                signals,
                phase,
                stretch,
                kind="error_burst",
                severity=severity,
                sentence=sentence,
                why=why,
                evidence=evidence,
            )
        )
    return found


def _drops(signals: Signals, phase: PhaseSpan, seconds: list[Second]) -> list[Finding]:
    dropped = {s.second: float(s.drops) for s in seconds}
    usual = _usual(list(dropped.values()))
    opened = max((s.connections_open or 0 for s in seconds), default=0)

    def is_many(drops: float, _first: int) -> bool:
        expected = usual * _BURST_S
        many = drops >= max(_LEAST_DROPS, _LEAST_DROP_SHARE * opened)
        many = many or drops >= max(_FEW_DROPS, _FEW_DROP_SHARE * opened)
        return many and drops >= expected + _BURST_DEVIATIONS * math.sqrt(expected + 0.1)

    found = []
    for stretch in crowded(dropped, phase.seconds, _BURST_S, is_many):
        drops = sum(dropped[s.second] for s in inside(seconds, stretch))
        share = drops / opened if opened else 0.0
        rows = signals.rows("drops_inside", from_s=stretch.from_s, to_s=stretch.to_s)
        by_worker = _sums(rows, "worker", "drops")
        why = _whose(signals, phase, stretch, by_worker)
        severity: Severity = "note"
        if share >= 0.04:  # noqa: PLR2004 - twice what makes a finding
            severity = "warning"
        if share >= 0.25:  # noqa: PLR2004 - a quarter of all users
            severity = "critical"
        sentence = (
            f"{count_text(drops, 'connection')} of {opened} dropped ({percent_text(share)}) "
            f"{window_text(signals, stretch)} {why.clause}."
        )
        found.append(
            finding_of(
                signals,
                phase,
                stretch,
                kind="connection_drops",
                severity=severity,
                sentence=sentence,
                why=why,
                evidence={"drops": drops, "connections_open": float(opened), "share": share},
            )
        )
    return found


def _whose(
    signals: Signals, phase: PhaseSpan, stretch: Stretch, by_worker: dict[str, float]
) -> Explanation:
    """Say whose doing errors or drops are: one worker's alone, or as anything else's."""
    alone = one_workers(by_worker, len(signals.workers))
    if alone and not movements(signals, phase, stretch).restarted:
        busy = busy_worker(signals, stretch, only=alone)
        if busy:
            return Explanation(
                "generator",
                f"all on {alone} while {busy[1]}: the generator, not the relay",
                busy[2] | {"worker_at_fault": alone},
            )
        return Explanation(
            "network",
            f"nearly all on {alone} while the other workers saw none: {alone}'s way to the relay",
            {"worker_at_fault": alone},
        )
    return explain(signals, phase, stretch)


def _usual(values: list[float]) -> float:
    """Return the mean of a second without the worst tenth: what happens when nothing happens."""
    kept = sorted(values)[: max(1, math.floor(len(values) * (1 - _TRIM_SHARE)))]
    return mean(kept) if kept else 0.0


def _sums(rows: list[Evidence], by: str, of: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for row in rows:
        sums[str(row[by])] = sums.get(str(row[by]), 0.0) + float(row[of])
    return sums
