"""The attempt before this one, whose orchestrator may have been orphaned: it is ended first."""

from __future__ import annotations

import asyncio

from pydantic import ValidationError

from run_store.errors import StoreError, UsageError
from run_store.layout import RunLayout
from run_store.messages import Lease, Order, RunRecord
from run_store.store import Store
from scenarios.model import Scenario
from tasks.instants import now_us
from tasks.lease_keeper import EVERY_S
from tasks.run_context import RunContext

ORPHAN_WITHIN_S = 60.0
"""How long a retry waits for the lease of an earlier attempt to stand still."""
MAY_CHANGE = frozenset({"description", "fleet", "max_usd", "max_usd_per_hour", "allowed_hosts"})
"""Fields of a scenario that change where a run takes place and what it may cost."""


def check_same_scenario(store: Store, record: RunRecord, scenario: Scenario) -> None:
    """Raise UsageError if a run that is retried has measured something else than is asked now.

    Before anything was measured the scenario may be another; and hosts, machines and money may
    always be.
    """
    differing = _differing(record, scenario)
    if differing and store.keys(RunLayout(record.run_id).samples()):
        raise UsageError(
            f"The scenario is not what it was when {record.run_id} began: "
            f"{', '.join(differing)} changed, and it has measured by the earlier one.",
            hint="Change it back and retry, or start a new run.",
        )


def _differing(record: RunRecord, scenario: Scenario) -> list[str]:
    try:
        before = Scenario.model_validate(record.scenario).model_dump(mode="json")
    except ValidationError:
        return ["its form"]
    # As both are kept: there lengths are rounded to six digits.
    now = scenario.model_dump(mode="json")
    return [name for name in now if name not in MAY_CHANGE and before[name] != now[name]]


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
        number=number,
        attempt=earlier,
        action="stop",
        starts_at_us=now_us(),
        reason="retried",
        is_last_word=True,
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
