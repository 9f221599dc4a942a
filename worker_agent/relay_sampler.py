"""The relay's `/metrics`: polled each second by one worker, and read for every worker's clock."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker_agent.clock import RunClock

POLL_EVERY_S = 1.0
POLL_TIMEOUT_S = 5.0
_CLOCK_TRIPS = 7
_MEBI = 2**20


@dataclass(frozen=True)
class ClockOffset:
    """This worker's clock minus the relay's, and the most by which that can be wrong."""

    offset_ms: float
    error_ms: float


def metrics_url(relay_url: str) -> str:
    """Return the address of `/metrics` beside a relay's WebSocket address."""
    scheme, _, rest = relay_url.partition("://")
    return f"{'https' if scheme == 'wss' else 'http'}://{rest.rstrip('/')}/metrics"


class RelaySampler:
    """Polls the relay; each poll, answered or not, is one row of kind `relay`."""

    def __init__(
        self, relay_url: str, clock: RunClock, record: Callable[[dict[str, Any]], None]
    ) -> None:
        self._url = metrics_url(relay_url)
        self._clock = clock
        self._record = record
        self.last: dict[str, Any] = {}

    async def run(self) -> None:
        """Poll each second until cancelled; a slow answer holds up no later poll."""
        async with asyncio.TaskGroup() as polls:
            next_at = time.monotonic()
            while True:
                polls.create_task(self._poll())
                next_at += POLL_EVERY_S
                await asyncio.sleep(max(0.0, next_at - time.monotonic()))

    async def _poll(self) -> None:
        row: dict[str, Any] = {"at_us": self._clock.now_us()}
        began = time.monotonic()
        try:
            answer = await asyncio.to_thread(_get_json, self._url)
            row |= _columns(answer)
            row["response_ms"] = (time.monotonic() - began) * 1000
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            row["error"] = _reason(error)
        self.last = row
        self._record(row)

    async def clock_offset(self) -> ClockOffset | None:
        """Return the offset to the relay's clock by the quickest of several round trips.

        None if the relay publishes no usable timestamp. The relay's clock is read in whole
        milliseconds somewhere between question and answer, so the error is bounded by half
        the round trip and half a millisecond more.
        """
        best: ClockOffset | None = None
        for _ in range(_CLOCK_TRIPS):
            before = time.monotonic()
            try:
                theirs_ms = float((await asyncio.to_thread(_get_json, self._url))["timestamp"])
            except (OSError, ValueError, TypeError, KeyError):
                return best
            after = time.monotonic()
            error_ms = (after - before) * 500 + 0.5
            ours_ms = self._clock.from_monotonic((before + after) / 2) / 1000
            if best is None or error_ms < best.error_ms:
                best = ClockOffset(ours_ms - theirs_ms - 0.5, error_ms)
        return best


def _get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=POLL_TIMEOUT_S) as answer:  # noqa: S310 - http(s) only
        return json.loads(answer.read())


def _columns(answer: Any) -> dict[str, Any]:
    """Return a row's columns from the relay's JSON; a missing figure is null."""
    memory = answer.get("memory") or {}
    columns = {
        "timestamp_ms": answer.get("timestamp"),
        "connections": answer.get("connections"),
        "memory_rss_mb": memory["rss"] / _MEBI if "rss" in memory else None,
        "memory_total_mb": memory["total"] / _MEBI if "total" in memory else None,
        "uptime_s": answer.get("uptime"),
        "pid": (answer.get("process") or {}).get("pid"),
        "cpu_seconds": answer.get("cpu_seconds"),
        "version": answer.get("version"),
    }
    for name, value in columns.items():
        if name != "version" and value is not None and not isinstance(value, int | float):
            raise ValueError(f"{name} is no number: {value!r}")
    return columns


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return f"no answer within {POLL_TIMEOUT_S:g} s"
    if isinstance(error, urllib.error.URLError):
        return f"unreachable: {error.reason}"
    return f"not the expected JSON: {error}"[:200]
