"""The flow: provision, deploy, load phase by phase, teardown whatever happened, report."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.runtime import flow_run

from flows.early_interrupts import EARLY
from flows.interrupts import Interrupts
from flows.live import shown
from flows.own_server import guard_own_server
from reports.summary import Summary
from run_store.errors import InterruptedRunError, InvalidRunError, ObjectivesMissedError
from tasks.budget import BudgetKeeper
from tasks.capacity import CapacitySearch, conclude
from tasks.deploy import deploy
from tasks.hosts import with_hosts
from tasks.lease_keeper import LeaseKeeper
from tasks.load import load_phase, wind_down
from tasks.owed import make_report_of_dead
from tasks.preparation import Wanted, found, prepared
from tasks.prepared_run import PreparedRun
from tasks.provision import provision
from tasks.relay_lock import RelayLock, free_relay, turn_at_relay
from tasks.report import make_report, report
from tasks.search_plan import SearchPlan
from tasks.stress import next_level
from tasks.teardown import give_back, teardown

log = logging.getLogger(__name__)
guard_own_server()
EARLY.let_go()

PLACES = ("hosts", "ssh_key", "known_hosts", "wheelhouse")
"""The parameters that say on which hosts workers are to run."""


async def release_run(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:  # noqa: ARG001
    """Give back what a cancelled or crashed flow run holds; its process may be gone."""
    await give_back_run(wanted_from(identity=str(flow_run.id), **flow_run.parameters))


async def give_back_run(wanted: Wanted) -> None:
    """Give back what the run of another process holds, and report what was measured."""
    async with found(wanted) as context:
        if context is not None:
            # What costs money first. Then there is time to look until it is gone, and to ship
            # what was fetched.
            await give_back(replace(context, in_haste=True))
            await give_back(context)
            store = context.store()
            await asyncio.to_thread(free_relay, store, context.relay_url, context.run_id)
            # Where there is no time for it any more, the next sweep makes the report.
            await asyncio.to_thread(make_report_of_dead, store, context.run_id, context.folder)


@flow(
    name="relay-load",
    persist_result=False,
    on_cancellation=[release_run],
    on_crashed=[release_run],
)
async def relay_load(
    scenario: str = "local",
    *,
    relay_url: str | None = None,
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
    """Load a relay as a scenario says; return the run's summary.

    `overrides` maps dotted keys of the scenario to values. `hosts` (user@address:port), with
    `ssh_key`, `known_hosts` and `wheelhouse`, are where workers are to run. Ends
    Failed with ObjectivesMissedError or InvalidRunError once the report is made; pressing Retry
    goes on where the bucket says that the run stands.
    """
    wanted = wanted_from(
        scenario=scenario,
        relay_url=relay_url,
        fleet=fleet,
        store=store,
        overrides=overrides,
        hosts=hosts,
        ssh_key=ssh_key,
        known_hosts=known_hosts,
        wheelhouse=wheelhouse,
        results=results,
        i_may_load_this_host=i_may_load_this_host,
        identity=str(flow_run.id or ""),
    )
    run, summary = await carried_out(wanted)
    return judged(summary, run)


async def carried_out(
    wanted: Wanted, plan: SearchPlan | None = None
) -> tuple[PreparedRun, Summary]:
    """Carry a run out, and give everything back; return it with what its report says.

    With a plan its stress phase is a search. Raises what the run ended with, once there is a
    report, if it did not come to its own end.
    """
    with shown(), Interrupts() as interrupts:
        async with prepared(wanted) as run:
            problem: BaseException | None = None
            left: Exception | None = None
            async with AsyncExitStack() as held:
                try:
                    if run.remaining:
                        turn = turn_at_relay(run.context, is_own=run.has_own_relay)
                        relay = await held.enter_async_context(turn)
                        await _load(run, interrupts, relay, plan)
                except BaseException as error:  # noqa: BLE001 - teardown and report come first
                    problem = interrupts.as_error(error)
                finally:
                    interrupts.teardown_begins()
                    left = await _teardown(run, problem)
            await run.load_ended(problem, left)
            problem = problem or left
            if problem is not None and not run.is_to_be_reported(problem):
                raise problem
            interrupts.report_begins()
            if plan is not None:
                why = run.stopped or run.ended_early
                await asyncio.to_thread(conclude, run.context, plan, cut_off_by=why)
            summary = await _report(run)
            await run.reported(summary.verdict, summary.validity)
    if problem is not None:
        raise problem
    if run.stopped:
        raise InterruptedRunError(f"The run was ended: {run.stopped}.", hint=_where(run))
    return run, summary


async def _load(
    run: PreparedRun, interrupts: Interrupts, relay: RelayLock, plan: SearchPlan | None
) -> None:
    """Have workers and agents, and carry out the phases that are not complete yet."""
    spent_usd = await run.spent_usd()
    budget = BudgetKeeper(run.context.scenario, run.estimate, spent_usd=spent_usd)
    async with LeaseKeeper(run.context), budget:
        workers = await provision(run.context)
        run.record.attempts[-1].workers = [worker.name for worker in workers]
        chooses = next_level if plan is None else CapacitySearch(plan, run.context.relay_url)
        conductor = await deploy(run.context, workers, chooses)
        budget.ends(conductor.end)
        relay.on_lost(conductor.end)
        interrupts.load_begins(conductor)
        try:
            await conductor.reconnect(run.remaining[0])
            for index in run.remaining:
                if conductor.is_due(index):
                    await load_phase(conductor, index, run.context.scenario.phases[index].name)
            await wind_down(conductor)
        finally:
            run.stopped, run.ended_early = conductor.ending, conductor.missed
            run.record.attempts[-1].workers = conductor.roll.names
            await conductor.substitutes.end()


async def _teardown(run: PreparedRun, problem: BaseException | None) -> Exception | None:
    """Run the teardown task, or its plain function where no task can start any more.

    Returns what says that not everything could be given back: the run still has its report.
    """
    # What is no Exception is a cancellation or a signal.
    in_haste = problem is not None and not isinstance(problem, Exception)
    context = replace(run.context, in_haste=in_haste)
    try:
        await teardown(context)
    except Exception:
        log.exception("the teardown task failed; everything is given back without it")
        try:
            await give_back(context)
        except Exception as error:
            log.exception("not everything was given back")
            return error
    return None


async def _report(run: PreparedRun) -> Summary:
    """Run the report task, or its plain function where no task can start any more."""
    try:
        return await report(run.context)
    except Exception:
        log.exception("the report task failed; the report is made without it")
        return await make_report(run.context)


def judged(summary: Summary, run: PreparedRun) -> dict[str, Any]:
    """Return the summary of a run that passed; raise what ends the others."""
    if summary.validity == "invalid":
        reasons = "; ".join(summary.validity_reasons)
        raise InvalidRunError(f"The run's figures cannot be believed: {reasons}.", hint=_where(run))
    if summary.verdict == "failed":
        missed = "; ".join(row.sentence for row in summary.objectives if row.met is False)
        raise ObjectivesMissedError(f"The relay missed its objectives: {missed}.", hint=_where(run))
    return summary.model_dump(mode="json")


def _where(run: PreparedRun) -> str:
    return f"Its report: {run.context.folder / 'report.html'}"


def wanted_from(identity: str, **parameters: Any) -> Wanted:
    """Return what a flow run's parameters ask for."""
    given = {name: value for name, value in parameters.items() if value is not None}
    if store := os.environ.get("RELAY_LOAD_STORE"):
        given.setdefault("store", store)
    results = given.get("results") or os.environ.get("RELAY_LOAD_RESULTS") or "results"
    places = {name: given.pop(name, None) for name in PLACES}
    fleet, overrides = with_hosts(
        given.pop("overrides", {}),
        fleet=given.pop("fleet", None),
        hosts=places.pop("hosts") or (),
        **places,
    )
    asked = {**given, "fleet": fleet, "overrides": overrides, "results": Path(results)}
    return Wanted(identity=identity, **asked)
