"""The alarm: a capacity that fell becomes a Prefect event, and ends its flow Failed."""

from __future__ import annotations

import asyncio

from prefect.events import emit_event

from run_store.errors import CapacityRegressedError
from run_store.store import Store
from tasks.regression import EVENT, judge_regression


async def raise_if_regressed(
    store: Store, scenario: str, run_id: str, *, allowed_fall: float | None = None
) -> str:
    """Return what a run's capacity is against those before it; sound the alarm if it fell.

    Call it in the flow, after the history was written and the fleet was given back. A fall emits
    the event `relay-load.capacity.regressed` and raises CapacityRegressedError with the sentence,
    which Prefect makes the Failed state's message. Without `allowed_fall`, the project's own is
    taken. Raises CannotRunError if the run has no line in the history, StoreError.
    """
    more = {} if allowed_fall is None else {"allowed_fall": allowed_fall}
    judged = await asyncio.to_thread(judge_regression, store, scenario, run_id, **more)
    if not judged.has_regressed:
        return judged.sentence
    emit_event(event=EVENT, resource=judged.resource, payload=judged.payload)
    raise CapacityRegressedError(
        judged.sentence, hint=f"See all runs: relay-load trend {scenario}."
    )
