"""Replicas that do not show the same, and edits that were acknowledged and are not there."""

from __future__ import annotations

from reports.findings.finding import Cause, Evidence, Finding
from reports.findings.signals import Signals
from reports.findings.wording import count_text, listed


def sync_findings(signals: Signals) -> list[Finding]:
    """Return one finding for each phase whose documents did not come together."""
    by_phase: dict[str, list[dict[str, object]]] = {}
    for row in signals.rows("replicas_diverged"):
        by_phase.setdefault(row["phase"], []).append(row)
    return [_finding(signals, phase, rows) for phase, rows in sorted(by_phase.items())]


def _finding(signals: Signals, phase: str, rows: list[dict[str, object]]) -> Finding:
    diverged, lost = _sum(rows, "diverged"), _sum(rows, "edits_lost")
    replicas = _sum(rows, "replicas")
    workers = sorted({w for row in rows for w in _names(row["workers"])})
    from_s = min(_number(row["from_s"]) for row in rows)
    to_s = max(_number(row["to_s"]) for row in rows)
    parts = []
    if lost:
        parts.append(f"{count_text(lost, 'acknowledged edit')} did not reach every replica")
    if diverged:
        parts.append(
            f"{count_text(diverged, 'replica')} of {replicas:.0f} were out of sync or showed "
            f"something else than most"
        )
    cause: Cause = "relay"
    why = "the relay said it had what others never saw: the relay"
    if len(workers) == 1 and len(signals.workers) > 1 and not lost:
        cause = "network"
        why = f"all of them on {workers[0]}: that worker, or its way to the relay"
    elif not lost:
        why = "while nothing was being written: the relay's sync, or connections that were down"
    evidence: Evidence = {
        "documents": float(len(rows)),
        "replicas": replicas,
        "replicas_diverged": diverged,
        "edits_lost": lost,
        "document": f"{rows[0]['document']}/{rows[0]['generation']}",
    }
    return Finding(
        kind="sync_divergence",
        severity="critical",
        phase=phase,
        started_us=signals.us(from_s),
        ended_us=signals.us(max(to_s, from_s + 1)),
        worker=workers[0] if cause == "network" else None,
        evidence=evidence,
        sentence=(f"In {count_text(len(rows), 'document')} {listed(parts)}; {why}."),
        cause=cause,
    )


def _sum(rows: list[dict[str, object]], name: str) -> float:
    return sum(_number(row[name]) for row in rows)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _names(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
