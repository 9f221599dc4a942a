"""A worker whose figures differ from the others' throughout a phase."""

from __future__ import annotations

from statistics import median

from reports.findings.causes import busy_worker
from reports.findings.finding import Cause, Evidence, Finding, Severity
from reports.findings.signals import PhaseSpan, Signals
from reports.findings.stretches import Stretch
from reports.findings.wording import ms_text, times_text

_BLOCKS = 8
_LEAST_EDITS = 5
_RATIO = 1.4
_BLOCK_RATIO = 1.2
_BLOCK_SHARE = 0.8
_RISE_MS = 8.0
_LEAST_BLOCKS = 6
_LEAST_LATE_MS = 30.0
_NAMES = {"delivery_ms": "delivery", "acknowledgement_ms": "acknowledgement"}
Blocks = dict[int, float]


def unlike_findings(signals: Signals) -> list[Finding]:
    """Return the workers that were slower than the others in most parts of a phase."""
    by_worker: dict[str, list[Finding]] = {}
    for phase in signals.phases:
        by_metric: dict[str, dict[str, Blocks]] = {}
        for row in signals.rows("latency_by_worker", phase=phase.label, blocks=_BLOCKS):
            if row["count"] >= _LEAST_EDITS:
                workers = by_metric.setdefault(row["metric"], {})
                workers.setdefault(row["worker"], {})[row["block"]] = row["p50"]
        best: dict[str, tuple[float, Finding]] = {}
        for metric, workers in by_metric.items():
            for worker in workers:
                compared = _compare(signals, phase, metric, worker, workers)
                if compared and compared[0] > best.get(worker, (0.0,))[0]:
                    best[worker] = compared
        for worker, (_, finding) in best.items():
            by_worker.setdefault(worker, []).append(finding)
    return [_joined(findings) for findings in by_worker.values()]


def _joined(findings: list[Finding]) -> Finding:
    """Return one finding for a worker: its longest phase's, over all phases in which it was so."""
    longest = max(findings, key=lambda one: one.ended_us - one.started_us)
    return longest.model_copy(
        update={
            "started_us": min(one.started_us for one in findings),
            "ended_us": max(one.ended_us for one in findings),
            "evidence": longest.evidence | {"phases": float(len(findings))},
        }
    )


def _compare(
    signals: Signals, phase: PhaseSpan, metric: str, worker: str, workers: dict[str, Blocks]
) -> tuple[float, Finding] | None:
    pairs: list[tuple[float, float]] = []
    for block, p50 in workers[worker].items():
        others = [
            blocks[block] for name, blocks in workers.items() if name != worker and block in blocks
        ]
        if others:
            pairs.append((p50, median(others)))
    if len(pairs) < _LEAST_BLOCKS:
        return None
    own, others_ms = median(p[0] for p in pairs), median(p[1] for p in pairs)
    ratio = median(a / b for a, b in pairs)
    slower = sum(a > _BLOCK_RATIO * b for a, b in pairs)
    if ratio < _RATIO or own - others_ms < _RISE_MS or slower < _BLOCK_SHARE * len(pairs):
        return None
    stretch = Stretch(phase.from_s, phase.to_s)
    busy = busy_worker(
        signals, stretch, late_ms=max((own - others_ms) / 2, _LEAST_LATE_MS), only=worker
    )
    cause: Cause = "generator" if busy else "network"
    why = (
        f"while {busy[1]}: the generator, not the relay"
        if busy
        else f"though it was neither busy nor late: {worker}'s machine or its way to the relay"
    )
    bound = signals.wanted(f"{metric}.p95", phase.label)
    severity: Severity = "warning" if ratio >= 1.5 else "note"  # noqa: PLR2004
    if bound is not None and own > bound:
        severity = "critical"
    evidence: Evidence = {
        "metric": metric,
        "median_ms": own,
        "others_median_ms": others_ms,
        "ratio": ratio,
        "parts_slower": float(slower),
        "parts": float(len(pairs)),
    }
    return ratio, Finding(
        kind="worker_unlike_others",
        severity=severity,
        phase=phase.label,
        started_us=signals.us(stretch.from_s),
        ended_us=signals.us(stretch.to_s),
        worker=worker,
        evidence=evidence | (busy[2] if busy else {}),
        sentence=(
            f"{worker}'s median {_NAMES[metric]} was {times_text(ratio)} the other workers' "
            f"({ms_text(own)} to {ms_text(others_ms)}) throughout {phase.label}, {why}."
        ),
        cause=cause,
    )
