"""Load: one task run for each phase, and the winding down behind the last."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from run_store.messages import PhaseRecord
from tasks.conductor import Conductor
from tasks.observation import current_observer


@task(name="load", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
async def load_phase(conductor: Conductor, index: int, name: str) -> PhaseRecord:  # noqa: ARG001
    """Carry out one phase; the task run bears its name."""
    record = await conductor.run_phase(index)
    get_run_logger().info(
        "%s: %d edits planned, %d workers lost%s",
        record.label,
        record.edits_planned,
        len(record.lost),
        f", cut short: {record.stopped_early}" if record.stopped_early else "",
    )
    return record


@task(name="wind-down", cache_policy=NO_CACHE, persist_result=False)
async def wind_down(conductor: Conductor) -> None:
    """Close all connections in order and have the last samples shipped."""
    current_observer().step("wind-down", "connections close, samples are shipped")
    await conductor.finish(conductor.ending or "every phase is complete")
