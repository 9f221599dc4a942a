"""The flows that search: what a relay can hold, and what one worker can make."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.runtime import flow_run

from flows.regression import raise_if_regressed
from flows.relay_load import carried_out, give_back_run, judged, wanted_from
from reports.summary import Summary
from scenarios.loading import load_scenario
from tasks.calibration import keep_calibration, plan_in
from tasks.capacity import add_to_history
from tasks.local_services import local_store
from tasks.observation import current_observer
from tasks.preparation import Wanted
from tasks.prepared_run import PreparedRun
from tasks.search_plan import Search, SearchPlan, search_from

OF_A_RUN = (
    "scenario",
    "relay_url",
    "fleet",
    "store",
    "overrides",
    "hosts",
    "ssh_key",
    "known_hosts",
    "wheelhouse",
    "results",
    "i_may_load_this_host",
)
"""The parameters that a search has in common with any run."""


async def release_search(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:  # noqa: ARG001
    """Give back what a cancelled or crashed search holds; its process may be gone."""
    given = {name: value for name, value in flow_run.parameters.items() if name in OF_A_RUN}
    await give_back_run(wanted_from(identity=str(flow_run.id), **given))


@flow(
    name="relay-capacity",
    persist_result=False,
    on_cancellation=[release_search],
    on_crashed=[release_search],
)
async def relay_capacity(
    scenario: str = "local",
    *,
    relay_url: str | None = None,
    over: Literal["connections", "edits", "both"] = "connections",
    start: float | None = None,
    limit: float | None = None,
    precision: float = 0.05,
    connections: int | None = None,
    edits_per_s: float | None = None,
    hold: str = "20s",
    settle: str = "5s",
    objectives: list[str] | None = None,
    allowed_fall: float | None = None,
    max_usd: float | None = None,
    fleet: str | None = None,
    store: str | None = None,
    overrides: dict[str, Any] | None = None,
    hosts: list[str] | None = None,
    ssh_key: str | None = None,
    known_hosts: str | None = None,
    wheelhouse: str | None = None,
    results: str | None = None,
    i_may_load_this_host: bool = False,
) -> dict[str, Any]:
    """Search the capacity of a relay on a scenario; return the run's summary.

    `start` and `limit` are connections, or edits a second over `edits`. What is left out comes
    from the scenario. Ends Failed with CapacityRegressedError if the capacity is lower than those
    before it by more than `allowed_fall` (a share), with InvalidRunError if the figures cannot be
    believed. Pressing Retry goes on from the last step in the bucket.
    """
    more = {} if max_usd is None else {"max_usd": max_usd}
    wanted = wanted_from(
        scenario=scenario,
        relay_url=relay_url,
        fleet=fleet,
        store=store,
        overrides={**(overrides or {}), **more},
        hosts=hosts,
        ssh_key=ssh_key,
        known_hosts=known_hosts,
        wheelhouse=wheelhouse,
        results=results,
        i_may_load_this_host=i_may_load_this_host,
        identity=str(flow_run.id or ""),
    )
    search = search_from(
        over=over,
        start=start,
        limit=limit,
        precision=precision,
        connections=connections,
        edits_per_s=edits_per_s,
        hold=hold,
        settle=settle,
        objectives=objectives,
    )
    async with _carried_out(wanted, search) as (plan, run, summary):
        context = run.context
        known = await asyncio.to_thread(add_to_history, context, plan, summary)
        told = judged(summary, run)
        if known:
            name = context.scenario.name
            said = await raise_if_regressed(
                context.store(), name, context.run_id, allowed_fall=allowed_fall
            )
            current_observer().step("trend", said)
        return told


@flow(
    name="relay-calibrate",
    persist_result=False,
    on_cancellation=[release_search],
    on_crashed=[release_search],
)
async def relay_calibrate(
    scenario: str = "local",
    *,
    relay_url: str | None = None,
    start: float | None = None,
    limit: float | None = None,
    precision: float = 0.1,
    hold: str = "20s",
    settle: str = "5s",
    max_usd: float | None = None,
    fleet: str | None = None,
    store: str | None = None,
    overrides: dict[str, Any] | None = None,
    results: str | None = None,
    i_may_load_this_host: bool = False,
) -> dict[str, Any]:
    """Measure what one worker can hold on a scenario before it is late; keep it in the store.

    Connections and edits grow together. Raises CannotRunError if not even the first step could
    be held.
    """
    more = {} if max_usd is None else {"max_usd": max_usd}
    wanted = wanted_from(
        scenario=scenario,
        relay_url=relay_url,
        fleet=fleet,
        store=store,
        overrides={**(overrides or {}), **more},
        results=results,
        i_may_load_this_host=i_may_load_this_host,
        identity=str(flow_run.id or ""),
    )
    search = search_from(
        over="both",
        start=start,
        limit=limit,
        precision=precision,
        hold=hold,
        settle=settle,
        subject="generator",
    )
    async with _carried_out(wanted, search) as (plan, run, summary):
        known = await asyncio.to_thread(keep_calibration, run.context, plan)
        current_observer().step("calibrate", known.sentence)
        return {**summary.model_dump(mode="json"), "calibration": known.model_dump(mode="json")}


@asynccontextmanager
async def _carried_out(
    wanted: Wanted, search: Search
) -> AsyncIterator[tuple[SearchPlan, PreparedRun, Summary]]:
    """Carry a search out, and give everything back but the store: its answer is to be kept there.

    A local store's server ends with its last user, and the run is one only until its report.
    """
    scenario = load_scenario(wanted.scenario, wanted.overrides)
    fleet = scenario.fleet.model_copy(update={"kind": wanted.fleet or scenario.fleet.kind})
    scenario = scenario.model_copy(update={"fleet": fleet})
    plan = await asyncio.to_thread(plan_in, wanted.store, wanted.results, scenario, search)
    wanted = dataclasses.replace(
        wanted, derived=plan.scenario, is_calibration=search.subject == "generator"
    )
    if plan.note:
        current_observer().warn(plan.note)
    async with AsyncExitStack() as held:
        if not wanted.store:
            await held.enter_async_context(local_store(wanted.results))
        run, summary = await carried_out(wanted, plan)
        yield plan, run, summary
