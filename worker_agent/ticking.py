"""The agent's seconds: samples fetched from the load, and samples of this worker itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from worker_agent.base_load import BaseLoad
from worker_agent.page_client import PageState
from worker_agent.self_watch import SelfWatch

TICK_S = 1.0
STALE_AFTER_S = 2.0


class Ticking:
    """Both once a second, and neither waits for the other.

    A page that hangs keeps its samples back for seconds; that this worker is in trouble must
    not be kept back with them.
    """

    def __init__(self, load: BaseLoad, watch: SelfWatch, now_us: Callable[[], int]) -> None:
        self._load = load
        self._watch = watch
        self._now_us = now_us
        self._fetching = asyncio.Lock()
        self._states: list[PageState] = []
        self._fetched_at = self._answered_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """How long no page of this worker has answered, in seconds."""
        return time.monotonic() - self._answered_at

    async def fetch(self) -> None:
        """Fetch the load's samples until cancelled."""
        while True:
            began = time.monotonic()
            async with self._fetching:
                states = await self._load.tick()
            self._states, self._fetched_at = states, time.monotonic()
            if states:
                self._answered_at = self._fetched_at
            await asyncio.sleep(max(0.0, began + TICK_S - time.monotonic()))

    async def sample(self) -> None:
        """Sample this worker until cancelled."""
        next_at = time.monotonic()
        while True:
            next_at = max(next_at + TICK_S, time.monotonic())
            await asyncio.sleep(next_at - time.monotonic())
            await self._watch.sample(self._seen(), self._load.target(self._now_us()))

    async def rest(self) -> None:
        """Wait until no samples are on their way: what a page has given is kept nowhere else."""
        async with self._fetching:
            return

    def _seen(self) -> list[PageState]:
        """Return the pages' last states; pages that keep us waiting are at least so late."""
        waiting_s = time.monotonic() - self._fetched_at
        if waiting_s < STALE_AFTER_S:
            return self._states
        return [replace(one, lagMs=max(one.lagMs, waiting_s * 1000)) for one in self._states]
