"""Instants by the orchestrator's wall clock, in microseconds since the epoch."""

from __future__ import annotations

import time

BEGINS_AFTER_S = 2.0
"""How far ahead an order's instant lies, so that every worker has read it by then."""


def now_us() -> int:
    """Return the instant that it is."""
    return time.time_ns() // 1000


def soon_us() -> int:
    """Return an instant that every worker will have heard of before it comes."""
    return now_us() + round(BEGINS_AFTER_S * 1e6)
