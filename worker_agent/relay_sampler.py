"""The relay's `/metrics`: polled each second by one worker, and read for every worker's clock."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from worker_agent.clock import RunClock

POLL_EVERY_S = 1.0
POLL_TIMEOUT_S = 5.0
LONGEST_ANSWER_BYTES = 2**20
_CLOCK_TRIPS = 7
_MEBI = 2**20
_FAILURES = (OSError, http.client.HTTPException, ValueError, TypeError, RecursionError)
"""What reading an answer can raise: no way to the relay, no HTTP, or no JSON."""


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
        # Threads of its own: a relay that hangs must not keep S3 waiting for one.
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="relay")
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
            answer = await self._get_json()
            columns, problem = _columns(answer)
            row |= columns
            row["response_ms"] = (time.monotonic() - began) * 1000
            if problem:
                row["error"] = problem
        except _FAILURES as error:
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
                columns, _problem = _columns(await self._get_json())
            except _FAILURES:
                return best
            after = time.monotonic()
            theirs_ms = columns.get("timestamp_ms")
            if theirs_ms is None:
                return best
            error_ms = (after - before) * 500 + 0.5
            ours_ms = self._clock.from_monotonic((before + after) / 2) / 1000
            if best is None or error_ms < best.error_ms:
                best = ClockOffset(ours_ms - theirs_ms - 0.5, error_ms)
        return best

    async def _get_json(self) -> Any:
        loop = asyncio.get_running_loop()
        # A thread may hang longer than its sockets' timeouts: in a name's look-up, or where the
        # answer trickles. The poll is over all the same.
        async with asyncio.timeout(POLL_TIMEOUT_S):
            return await loop.run_in_executor(self._threads, _get_json, self._url)


def _get_json(url: str) -> Any:
    deadline = time.monotonic() + POLL_TIMEOUT_S
    body = bytearray()
    with urllib.request.urlopen(url, timeout=POLL_TIMEOUT_S) as answer:  # noqa: S310 - http(s) only
        while chunk := answer.read1(2**16):
            body += chunk
            if len(body) > LONGEST_ANSWER_BYTES:
                raise ValueError(f"longer than {LONGEST_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
        if answer.length:
            raise http.client.IncompleteRead(bytes(body), answer.length)
    return json.loads(body)


def _columns(answer: Any) -> tuple[dict[str, Any], str]:
    """Return a row's columns from the relay's JSON, and what in it could not be read.

    A figure that is missing is null and no problem; one that is no number is both.
    """
    if not isinstance(answer, dict):
        raise ValueError("it is no object")
    memory = answer.get("memory")
    process = answer.get("process")
    memory = memory if isinstance(memory, dict) else {}
    process = process if isinstance(process, dict) else {}
    problems: list[str] = []

    def number(name: str, value: Any, scale: float = 1.0) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            problems.append(f"{name} is no number: {value!r}")
            return None
        try:
            scaled = value / scale
        except OverflowError:
            scaled = math.inf
        if not math.isfinite(scaled):
            problems.append(f"{name} is no number: {value!r:.40}")
            return None
        return scaled

    def whole(name: str, value: Any) -> int | None:
        found = number(name, value)
        if found is None:
            return None
        if not found.is_integer() or abs(found) >= 2**31:
            problems.append(f"{name} is no count: {value!r}")
            return None
        return int(found)

    version = answer.get("version")
    columns = {
        "timestamp_ms": number("timestamp", answer.get("timestamp")),
        "connections": whole("connections", answer.get("connections")),
        "memory_rss_mb": number("memory.rss", memory.get("rss"), _MEBI),
        "memory_total_mb": number("memory.total", memory.get("total"), _MEBI),
        "uptime_s": number("uptime", answer.get("uptime")),
        "pid": whole("process.pid", process.get("pid")),
        "cpu_seconds": number("cpu_seconds", answer.get("cpu_seconds")),
        "version": None if version is None else str(version)[:200],
    }
    return columns, f"not the expected JSON: {'; '.join(problems)}"[:200] if problems else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return f"no answer within {POLL_TIMEOUT_S:g} s"
    if isinstance(error, urllib.error.URLError):
        return f"unreachable: {error.reason}"
    if isinstance(error, (OSError, http.client.HTTPException)):
        return f"cut off: {type(error).__name__} {error}".strip()[:200]
    return f"not the expected JSON: {error}"[:200]
