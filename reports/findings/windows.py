"""Latencies in windows of a phase, wide enough for their quantiles to mean something."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reports.findings.signals import PhaseSpan, Signals

METRICS = ("delivery_ms", "acknowledgement_ms")
"""What is looked at, in the order in which a reader cares."""
NAMES = {"delivery_ms": "delivery", "acknowledgement_ms": "acknowledgement"}
EDITS_A_WINDOW = 8
_WIDEST_S = 15
RISE_MS = 10.0
"""A rise of less is none that anybody could act on."""
LEAST_LATE_MS = 30.0
"""A worker that was late by less explains no rise of latency, however small."""


@dataclass(frozen=True)
class Window:
    """Quantiles of a latency, in milliseconds, in a window that begins at a second."""

    start_s: int
    p50: float
    p95: float


def width_s(edits_per_s: float) -> int:
    """Return the width of a window that holds enough edits."""
    return min(max(math.ceil(EDITS_A_WINDOW / edits_per_s), 1), _WIDEST_S)


def windows(
    signals: Signals, phase: PhaseSpan, metric: str, wide_s: int, *, step_s: int
) -> list[Window]:
    """Return a latency in every window of a phase that begins `step_s` after the one before."""
    rows = signals.rows(
        "latency_windows", metric=metric, phase=phase.label, width_s=wide_s, step_s=step_s
    )
    return [Window(row["start_s"], row["p50"], row["p95"]) for row in rows]
