"""Where the generator's own doing begins: limits of validity, findings, and steps of load."""

from __future__ import annotations

LATE_MS = 50.0
"""What began or was seen later than this by the generator's fault distorts what it measures."""
BUSY_CPU_PERCENT = 90.0
"""CPU of all of a worker's cores above which lateness is likely its own."""
BUSY_AND_LATE_SHARE = 0.05
BUSY_AND_LATE_SECONDS = 3
"""Strained seconds of a worker's phase that degrade a run: this share, and this many at least."""
PAGE_LATE_SHARE = 0.5
HELD_SHARE = 0.9
HELD_FOR_S = 10
LOST_SHARE = 0.1
MISSED_INVALID = 0.01
MISSED_DEGRADED = 0.001
UNREPORTED_INVALID = 0.01
CLOCK_ERROR_SHARE = 0.25
"""Error of the clocks, as a share of the median that they were used for, above which it is said."""


def is_strained(*, cpu_percent: float, late_ms: float) -> bool:
    """Say whether a worker was strained in a second: busy, and late by it.

    A full CPU alone distorts nothing as long as timers and edits are on time. `late_ms` is the
    worst of that second's edits and timers. `queries/generator_load.sql` counts by the same rule.
    """
    return cpu_percent > BUSY_CPU_PERCENT and late_ms > LATE_MS
