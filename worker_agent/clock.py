"""The agent's clock: the monotonic one, anchored once to the wall clock."""

from __future__ import annotations

import asyncio
import time


class RunClock:
    """Microseconds since the epoch that no clock step moves.

    The wall clock is read once; from then on only the monotonic clock counts. Chromium's
    performance.now() counts on the same monotonic clock, so a page's offset stays what it was.
    """

    def __init__(self) -> None:
        self._anchor_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def now_us(self) -> int:
        """Return the time now."""
        return self.from_monotonic(time.monotonic())

    def from_monotonic(self, monotonic_s: float) -> int:
        """Return the time at an instant of time.monotonic()."""
        return self._anchor_us + round(monotonic_s * 1e6)

    async def sleep_until(self, at_us: int) -> None:
        """Wait for an instant; return at once if it has passed."""
        await asyncio.sleep(max(0.0, (at_us - self.now_us()) / 1e6))
