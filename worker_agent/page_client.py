"""One Chromium page as its agent sees it: told what to do, asked for what happened."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page

from run_store.errors import BrowserError
from worker_agent.agenda import Event
from worker_agent.clock import RunClock

CALL_TIMEOUT_S = 20.0
"""A page that does not answer for so long is taken for dead."""
_CALIBRATIONS = 8


class PageLostError(BrowserError):
    """The page crashed, was closed, or does not answer."""


@dataclass(frozen=True)
class PageState:
    """What a page says of itself at one instant."""

    atUs: int  # noqa: N815 - the page's own names
    lagMs: float  # noqa: N815
    wanted: int
    open: int
    synced: int
    healthy: int
    attempted: int
    pending: int
    heapBytes: int  # noqa: N815
    memoryBytes: int  # noqa: N815


Rows = dict[str, dict[str, list[Any]]]
"""Columns by kind of sample."""


@dataclass
class PageClient:
    """A page that is loaded and ready. `connections` are those that it houses."""

    page: Page
    capacity: int
    name: str
    connections: set[int] = field(default_factory=set)
    clock_error_us: float = 0.0
    lost: str = ""
    memory_mb: float = 0.0

    async def call(
        self, expression: str, argument: Any = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> Any:
        """Evaluate a function in the page.

        Raises PageLostError if the page is gone or does not answer in time.
        """
        if self.lost:
            raise PageLostError(f"{self.name} {self.lost}.")
        try:
            async with asyncio.timeout(timeout_s):
                return await self.page.evaluate(expression, argument)
        except TimeoutError:
            self.lost = f"did not answer for {timeout_s:g} s"
        except PlaywrightError as error:
            if (
                self.page.is_closed()
                or "crash" in error.message.lower()
                or "closed" in error.message
            ):
                self.lost = f"is gone: {error.message.splitlines()[0]}"
            else:
                raise BrowserError(f"{self.name}: {error.message.splitlines()[0]}") from error
        raise PageLostError(f"{self.name} {self.lost}.")

    async def calibrate(self, clock: RunClock) -> None:
        """Set the page's clock to the agent's, by the quickest of several round trips.

        The error is at most half of that round trip.
        """
        best_s, offset_us = float("inf"), 0.0
        for _ in range(_CALIBRATIONS):
            before = time.monotonic()
            page_ms = await self.call("relayLoad.now()")
            after = time.monotonic()
            if after - before < best_s:
                best_s = after - before
                offset_us = clock.from_monotonic((before + after) / 2) - page_ms * 1000
        self.clock_error_us = best_s / 2 * 1e6
        await self.call("us => relayLoad.setClock(us)", offset_us)

    async def plan(
        self, begins_us: int, events: Sequence[Event], documents: Sequence[tuple[str, str, int]]
    ) -> None:
        """Give the page its events; `documents` are (document:generation, id, first member)."""
        columns: dict[str, list[Any]] = {
            "atUs": [begins_us + round(event.at_s * 1e6) for event in events]
        }
        rows = [asdict(event) for event in events]
        for name in ("kind", "connection", "document", "generation", "edit"):
            columns[name] = [row[name] for row in rows]
        # One JSON text crosses to the page faster than a tree of values.
        text = json.dumps({"documents": documents, "events": columns})
        await self.call("text => relayLoad.plan(JSON.parse(text))", text)

    async def drain(self) -> tuple[Rows, PageState]:
        """Return all samples since the last call, and the page's state."""
        answer = json.loads(await self.call("relayLoad.drain()"))
        return answer["rows"], PageState(**answer["state"])

    async def settle(self, *, give_up: bool) -> int:
        """End a phase's edits; return how many are not acknowledged yet."""
        return int(await self.call("giveUp => relayLoad.settle(giveUp)", give_up))

    async def behind(self) -> int:
        """Return how many of the page's connections are not in sync with the relay."""
        return int(await self.call("relayLoad.behind()"))

    async def check(self, expected: dict[str, list[int]], *, leave: bool) -> None:
        """Have every replica of the documents in `expected` recorded."""
        await self.call(
            "([expected, leave]) => relayLoad.check(JSON.parse(expected), leave)",
            [json.dumps(expected), leave],
        )

    async def close_all(self) -> None:
        """Close all of the page's connections in order."""
        await self.call("relayLoad.closeAll()")
