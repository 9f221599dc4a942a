"""What the orchestrator says: orders and its lease, read from the bucket again and again."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TypeVar

from pydantic import BaseModel

from run_store.errors import StoreError
from run_store.layout import RunLayout
from run_store.messages import Lease, Order
from run_store.store import Store
from worker_agent.lease import LeaseWatch

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)


class OrderFeed:
    """The orders of one attempt by number, from 1; `caught_up` is set once all there are known."""

    def __init__(self, store: Store, layout: RunLayout, attempt: int, *, poll_s: float) -> None:
        self.orders: dict[int, Order] = {}
        self.lease = LeaseWatch()
        self.caught_up = asyncio.Event()
        self._store = store
        self._layout = layout
        self._attempt = attempt
        self._poll_s = poll_s
        self._news = asyncio.Event()
        self._answered_at = time.monotonic()
        self._silent = False

    @property
    def silent_s(self) -> float:
        """How long the store has not answered, in seconds."""
        return time.monotonic() - self._answered_at

    async def run(self) -> None:
        """Look for the next order and at the lease until cancelled."""
        while True:
            if not await self._look():
                await asyncio.sleep(self._poll_s)

    async def order(self, number: int) -> Order:
        """Return an order, as soon as it has come."""
        while number not in self.orders:
            self._news.clear()
            await self._news.wait()
        return self.orders[number]

    def is_over(self, order: Order, now_us: int) -> bool:
        """Say whether an order's time has passed, or the next one's has come."""
        following = self.orders.get(order.number + 1)
        if following is not None and following.starts_at_us <= now_us:
            return True
        return order.starts_at_us + order.duration_s * 1e6 <= now_us

    async def _look(self) -> bool:
        """Look once; return whether an order came."""
        came = False
        try:
            # The order first, and by itself: one that says stop waits for nothing else.
            number = len(self.orders) + 1
            order = await self._get(self._layout.order(self._attempt, number), Order)
            if order is None:
                self.caught_up.set()
            else:
                came = True
                self.orders[number] = order
                self._news.set()
            lease = await self._get(self._layout.lease(self._attempt), Lease)
        except StoreError as error:
            self.lease.store_silent()
            # Once, not each half second of an outage.
            if not self._silent:
                log.warning("no orders can be read: %s", error)
            self._silent = True
        else:
            if self._silent:
                log.warning("orders can be read again")
            self._silent = False
            self._answered_at = time.monotonic()
            self.lease.seen(lease)
        return came

    async def _get(self, key: str, kind: type[M]) -> M | None:
        return await asyncio.to_thread(self._store.get_message, key, kind)
