"""Load: one task run for each phase, and the winding down behind the last."""

from __future__ import annotations

from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger

from run_store.errors import StoreError
from run_store.messages import PhaseRecord
from tasks.artifacts import phase_bar
from tasks.conductor import Conductor
from tasks.observation import current_observer


def store_was_away(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Say whether a task run that failed may be tried again: an order in force stays in force."""
    return isinstance(state.data, StoreError)


@task(
    name="load",
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    # With the store's own patience this bridges a quarter of an hour.
    retries=30,
    retry_delay_seconds=5,
    retry_condition_fn=store_was_away,
)
async def load_phase(conductor: Conductor, index: int, name: str) -> PhaseRecord:
    """Carry out one phase; the task run bears its name."""
    async with phase_bar(conductor.context.run_id, name, lambda: conductor.snapshots.share_done):
        record = await conductor.run_phase(index)
    get_run_logger().info(
        "%s: %d edits planned, %d workers lost%s%s",
        record.label,
        record.edits_planned,
        len(record.lost),
        f", cut short: {record.stopped_early}" if record.stopped_early else "",
        f", ended because {record.ended_because}" if record.ended_because else "",
    )
    return record


@task(name="wind-down", cache_policy=NO_CACHE, persist_result=False)
async def wind_down(conductor: Conductor) -> None:
    """Close all connections in order and have the last samples shipped."""
    current_observer().step("wind-down", "connections close, samples are shipped")
    await conductor.finish(conductor.why_ending or "every phase is complete")
