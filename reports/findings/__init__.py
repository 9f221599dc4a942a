"""Findings: what went otherwise than the rest of its phase, and what likely caused it.

SQL gives the figures, one file a signal; the modules here only judge them.
"""

from __future__ import annotations

from reports.engine import RunDatabase
from reports.findings.finding import KINDS, SEVERITIES, Finding
from reports.findings.generator import generator_findings
from reports.findings.latency import latency_findings
from reports.findings.losses import loss_findings
from reports.findings.memory import memory_findings
from reports.findings.relay import relay_findings
from reports.findings.signals import read_signals
from reports.findings.sync import sync_findings
from reports.findings.throughput import throughput_findings
from reports.findings.unlike import unlike_findings

__all__ = ["KINDS", "SEVERITIES", "Finding", "find"]


def find(database: RunDatabase) -> list[Finding]:
    """Return a run's findings: the most severe first, then in the order of time."""
    signals = read_signals(database)
    if not signals.phases:
        return []
    found = [
        *latency_findings(signals),
        *throughput_findings(signals),
        *loss_findings(signals),
        *relay_findings(signals),
        *memory_findings(signals),
        *sync_findings(signals),
        *unlike_findings(signals),
        *generator_findings(signals),
    ]
    return sorted(
        found,
        key=lambda f: (-SEVERITIES.index(f.severity), f.started_us, KINDS.index(f.kind)),
    )
