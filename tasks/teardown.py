"""Teardown: give everything back. Safe to run twice, by anyone, with nothing but the context."""

from __future__ import annotations

import asyncio
import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from run_store.errors import FleetError, RelayLoadError
from run_store.messages import Order
from tasks.fleets.base import fleet_of
from tasks.instants import now_us
from tasks.observation import current_observer
from tasks.run_context import RunContext

log = logging.getLogger(__name__)


async def give_back(context: RunContext) -> bool:
    """Order the workers to stop, and release the fleet; say whether all of it is gone.

    Raises FleetError that names what could not be given back; in haste its end has been asked
    for, and whoever has the time must look again.
    """
    try:
        await asyncio.to_thread(_order_stop, context)
    except RelayLoadError as error:
        log.warning("no stop could be ordered, the fleet is released all the same: %s", error)
    left = await fleet_of(context.fleet).release(context)
    if left and context.in_haste:
        log.warning("asked for the end of %s; nobody has waited for it", ", ".join(left))
    elif left:
        raise FleetError(
            f"Not everything of {context.run_id} could be given back: {', '.join(left)}.",
            hint=_what_to_do(context),
        )
    return not left


def _what_to_do(context: RunContext) -> str:
    """Say how what is left can be had back: rented machines go by a command, a host does not."""
    samples = "Samples that are named are kept here; a retry of the run ships them."
    if context.fleet == "ec2":
        by_hand = f"Run `relay-load cleanup --run-id {context.run_id}` and look at what remains."
        return f"{by_hand} {samples}"
    return (
        "An agent that reaches the bucket finds its order to stop there, and ends by itself. "
        f"Once the host can be reached, retry the run, or remove .relay-load/runs/{context.run_id} "
        f"on it. {samples}"
    )


def _order_stop(context: RunContext) -> None:
    """Write the attempt's stop order unless it is there; a repeated one changes nothing."""
    store = context.store()
    keys = store.keys(context.layout.orders(context.attempt))
    if keys:
        last = store.get_message(keys[-1], Order)
        if last is not None and last.action == "stop":
            return
    number = len(keys) + 1
    order = Order(
        number=number,
        attempt=context.attempt,
        action="stop",
        starts_at_us=now_us(),
        reason="teardown",
    )
    store.put_message(context.layout.order(context.attempt, number), order)


@task(
    name="teardown", cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=2
)
async def teardown(context: RunContext) -> None:
    """Give everything back."""
    current_observer().step("teardown", "everything is given back")
    await give_back(context)
