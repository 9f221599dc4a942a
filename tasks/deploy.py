"""Deploy: have an agent ready on every worker, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.conductor import Conductor
from tasks.fleets.base import Worker, fleet_of
from tasks.observation import current_observer
from tasks.run_context import RunContext


async def start_agents(context: RunContext, workers: Sequence[Worker]) -> Conductor:
    """Start every worker's agent and wait until the browsers stand ready.

    Raises FleetError if an agent does not start or too few become ready.
    """
    fleet = fleet_of(context.fleet)
    await asyncio.gather(*(fleet.deploy(context, worker) for worker in workers))
    conductor = Conductor(context, fleet, workers)
    await conductor.wait_until_ready()
    return conductor


@task(name="deploy", cache_policy=NO_CACHE, persist_result=False)
async def deploy(context: RunContext, workers: Sequence[Worker]) -> Conductor:
    """Bring the agents up; return who conducts them."""
    current_observer().step("deploy", f"{len(workers)} agents start their browsers")
    conductor = await start_agents(context, workers)
    get_run_logger().info("%d agents are ready", len(conductor.roll.alive))
    return conductor
