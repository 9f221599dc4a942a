"""What a finding is."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

Kind = Literal[
    "latency_spike",
    "latency_trend",
    "throughput_collapse",
    "error_burst",
    "connection_drops",
    "memory_leak",
    "relay_silent",
    "relay_restarted",
    "sync_divergence",
    "worker_unlike_others",
    "generator_saturated",
    "worker_lost",
    "clock_skew",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Every kind of finding, in the order in which a reader wants them."""
Severity = Literal["note", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Evidence = dict[str, float | str]
"""Figures by name, with units in the names."""
Cause = Literal["relay", "generator", "network", "load", "unknown"]
"""Where the likely cause lies: `load` is what the scenario itself asked for in that window."""


class Finding(BaseModel):
    """Something that went otherwise than the rest of its phase, and what likely caused it.

    The window is on the orchestrator's clock, in microseconds since the epoch. `evidence`
    holds the figures that the sentence rests on, with units in their names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Kind
    severity: Severity
    phase: str
    started_us: int
    ended_us: int
    worker: str | None = None
    evidence: Evidence = {}
    sentence: str
    cause: Cause
