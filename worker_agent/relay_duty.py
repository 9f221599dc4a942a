"""Which worker samples the relay: the first of those that the order names and that lives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from run_store.errors import StoreError
from run_store.messages import Order, Status
from worker_agent.relay_sampler import RelaySampler

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
FOLLOW_AFTER_S = 6.0
"""A follower samples the relay once the sampler before it has not been heard for so long."""


class RelayDuty:
    """Starts and ends this worker's sampling of the relay; `status_of` reads another's status."""

    def __init__(
        self,
        sampler: RelaySampler,
        worker: str,
        status_of: Callable[[str], Awaitable[Status | None]],
    ) -> None:
        self._sampler = sampler
        self._worker = worker
        self._status_of = status_of
        self._before: list[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard: dict[str, tuple[int, float]] = {}

    def follow(self, order: Order) -> None:
        """Take up the place that an order gives; sampling goes on where nothing has changed."""
        named = order.relay_samplers
        before = named[: named.index(self._worker)] if self._worker in named else None
        if before == self._before and self._task is not None and not self._task.done():
            return
        self.end()
        self._before = before
        if before is not None:
            self._task = asyncio.create_task(self._stand_by(before), name="relay duty")

    def end(self) -> None:
        """Stop sampling."""
        if self._task is not None:
            self._task.cancel()
        self._task = None

    async def _stand_by(self, before: list[str]) -> None:
        """Sample while none of those before us is heard; hand back when one is again."""
        sampling: asyncio.Task[None] | None = None
        try:
            while True:
                anyone = await self._anyone_lives(before)
                if anyone and sampling is not None:
                    sampling.cancel()
                    sampling = None
                elif anyone is False and (sampling is None or sampling.done()):
                    sampling = asyncio.create_task(self._sampler.run(), name="relay samples")
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            if sampling is not None:
                sampling.cancel()

    async def _anyone_lives(self, workers: list[str]) -> bool | None:
        """Say whether one of these workers beats; None while the store does not answer."""
        try:
            statuses = [await self._status_of(worker) for worker in workers]
        except StoreError as error:
            log.warning("other workers' statuses cannot be read: %s", error)
            self._heard.clear()
            return None
        return any(map(self._lives, workers, statuses))

    def _lives(self, worker: str, status: Status | None) -> bool:
        if status is not None and status.state in ("stopped", "failed"):
            return False
        beat = status.beat if status else -1
        last = self._heard.get(worker)
        if last is None or last[0] != beat:
            self._heard[worker] = (beat, time.monotonic())
            return True
        return time.monotonic() - last[1] < FOLLOW_AFTER_S
