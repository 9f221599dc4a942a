"""Deploy: have an agent ready on every worker, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from run_store.errors import RelayLoadError
from tasks.conductor import Conductor
from tasks.deadlines import DEPLOY_WITHIN_S, within
from tasks.fleets.base import Worker, fleet_of
from tasks.observation import current_observer
from tasks.run_context import RunContext
from tasks.steps import Chooser
from tasks.stress import next_level


async def start_agents(
    context: RunContext, workers: Sequence[Worker], chooses: Chooser = next_level
) -> Conductor:
    """Start every worker's agent and wait until the browsers stand ready.

    A worker that cannot be deployed is dropped, and the report says why. Raises FleetError if
    fewer than the scenario's `min_healthy` are left.
    """
    fleet = fleet_of(context.fleet)
    conductor = Conductor(context, fleet, workers, chooses=chooses)
    results = await asyncio.gather(
        *(fleet.deploy(context, worker) for worker in workers), return_exceptions=True
    )
    for worker, result in zip(workers, results, strict=True):
        if isinstance(result, RelayLoadError):
            conductor.drop(worker.name, f"could not be deployed: {result.message}")
        elif isinstance(result, BaseException):
            raise result
    conductor.require_enough()
    await conductor.wait_until_ready()
    return conductor


@task(name="deploy", cache_policy=NO_CACHE, persist_result=False)
async def deploy(
    context: RunContext, workers: Sequence[Worker], chooses: Chooser = next_level
) -> Conductor:
    """Bring the agents up; return who conducts them. Raises FleetError or DeadlineError."""
    current_observer().step("deploy", f"{len(workers)} agents start their browsers")
    async with within(DEPLOY_WITHIN_S, "deploy"):
        conductor = await start_agents(context, workers, chooses)
    get_run_logger().info("%d agents are ready", len(conductor.roll.alive))
    return conductor
