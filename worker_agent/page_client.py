"""One Chromium page as its agent sees it: told what to do, asked for what happened."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from run_store.errors import BrowserError
from worker_agent.agenda import Event
from worker_agent.clock import RunClock
from worker_agent.tabs import Tab, TabContext, TabGoneError

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

    tab: Tab
    home: TabContext
    capacity: int
    name: str
    connections: set[int] = field(default_factory=set)
    clock_error_us: float = 0.0
    lost: str = ""
    memory_mb: float = 0.0

    async def call(self, name: str, *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Call a function of the page's interface (`relayLoad`).

        Raises PageLostError if the page is gone or does not answer in time.
        """
        if self.lost:
            raise PageLostError(f"{self.name} {self.lost}.")
        # A long plan is parsed faster as JSON than as a script.
        given = json.dumps(json.dumps(arguments))
        try:
            async with asyncio.timeout(timeout_s):
                return await self.tab.evaluate(f"relayLoad.{name}(...JSON.parse({given}))")
        except TimeoutError:
            self.lost = f"did not answer for {timeout_s:g} s"
        except TabGoneError as error:
            self.lost = self.lost or str(error)
        except BrowserError as error:
            raise BrowserError(f"{self.name}: {error}") from error
        raise PageLostError(f"{self.name} {self.lost}.")

    async def start(self, settings: dict[str, Any], wasm_url: str, *, timeout_s: float) -> None:
        """Give the page its settings, and wait until Automerge is ready in it."""
        await self.call("start", settings, wasm_url, timeout_s=timeout_s)

    async def calibrate(self, clock: RunClock) -> None:
        """Set the page's clock to the agent's, by the quickest of several round trips.

        The error is at most half of that round trip.
        """
        best_s, offset_us = float("inf"), 0.0
        for _ in range(_CALIBRATIONS):
            before = time.monotonic()
            page_ms = await self.call("now")
            after = time.monotonic()
            if after - before < best_s:
                best_s = after - before
                offset_us = clock.from_monotonic((before + after) / 2) - page_ms * 1000
        self.clock_error_us = best_s / 2 * 1e6
        await self.call("setClock", offset_us)

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
        await self.call("plan", {"documents": documents, "events": columns})

    async def drain(self) -> tuple[Rows, PageState]:
        """Return all samples since the last call, and the page's state."""
        answer = json.loads(await self.call("drain"))
        return answer["rows"], PageState(**answer["state"])

    async def settle(self, *, give_up: bool) -> int:
        """End a phase's edits; return how many are not acknowledged yet."""
        return int(await self.call("settle", give_up))

    async def behind(self) -> int:
        """Return how many of the page's connections are not in sync with the relay."""
        return int(await self.call("behind"))

    async def check(self, expected: dict[str, list[int]], *, leave: bool) -> None:
        """Have every replica of the documents in `expected` recorded."""
        await self.call("check", expected, leave)

    async def close_all(self) -> None:
        """Close all of the page's connections in order."""
        await self.call("closeAll")
