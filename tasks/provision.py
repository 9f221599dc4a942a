"""Provision: have workers, from whichever fleet the run uses."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.deadlines import PROVISION_WITHIN_S, within
from tasks.fleets.base import Worker, fleet_of
from tasks.observation import current_observer
from tasks.run_context import RunContext


@task(name="provision", cache_policy=NO_CACHE, persist_result=False)
async def provision(context: RunContext) -> list[Worker]:
    """Acquire the scenario's workers; FleetError or DeadlineError if they cannot be had."""
    current_observer().step(
        "provision", f"{context.scenario.fleet.workers} workers, {context.fleet}"
    )
    async with within(PROVISION_WITHIN_S, "provision"):
        workers = await fleet_of(context.fleet).acquire(context)
    get_run_logger().info("%d workers from the %s fleet", len(workers), context.fleet)
    return workers
