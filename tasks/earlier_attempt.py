"""The attempt before this one, whose orchestrator may have been orphaned: it is ended first."""

from __future__ import annotations

import asyncio

from run_store.errors import StoreError
from run_store.messages import Lease, Order
from run_store.store import Store
from tasks.instants import now_us
from tasks.lease_keeper import EVERY_S
from tasks.run_context import RunContext

ORPHAN_WITHIN_S = 60.0
"""How long a retry waits for the lease of an earlier attempt to stand still."""


async def end_earlier_attempt(context: RunContext, store: Store) -> None:
    """Order an earlier attempt's workers to stop, and wait until its orchestrator is gone.

    Raises StoreError if another process goes on conducting it.
    """
    earlier = context.attempt - 1
    if earlier < 1:
        return
    layout = context.layout
    orders = await asyncio.to_thread(store.keys, layout.orders(earlier))
    number = len(orders) + 1
    stop = Order(
        number=number, attempt=earlier, action="stop", starts_at_us=now_us(), reason="retried"
    )
    await asyncio.to_thread(store.put_message, layout.order(earlier, number), stop)
    deadline = asyncio.get_running_loop().time() + ORPHAN_WITHIN_S
    before = await asyncio.to_thread(store.get_message, layout.lease(earlier), Lease)
    while before is not None:
        await asyncio.sleep(EVERY_S * 2)
        lease = await asyncio.to_thread(store.get_message, layout.lease(earlier), Lease)
        if lease is None or lease.counter == before.counter:
            return
        before = lease
        if asyncio.get_running_loop().time() > deadline:
            raise StoreError(
                f"Attempt {earlier} of {context.run_id} is still conducted by another process.",
                hint=f"End it first: relay-load stop {context.run_id}",
            )
