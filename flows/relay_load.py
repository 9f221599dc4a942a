"""The flow: provision, deploy, load phase by phase, teardown whatever happened, report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from reports.summary import Summary

from flows.interrupts import Interrupts
from run_store.errors import InterruptedRunError, InvalidRunError, ObjectivesMissedError
from tasks.deploy import deploy
from tasks.lease_keeper import LeaseKeeper
from tasks.load import load_phase, wind_down
from tasks.preparation import PreparedRun, Wanted, prepared
from tasks.provision import provision
from tasks.report import report
from tasks.teardown import give_back, teardown

log = logging.getLogger(__name__)


@flow(name="relay-load", persist_result=False, validate_parameters=True)
async def relay_load(  # noqa: PLR0917 - a deployment's parameters, named in every call
    scenario: str = "local",
    relay_url: str | None = None,
    fleet: str | None = None,
    store: str | None = None,
    overrides: dict[str, Any] | None = None,
    results: str = "results",
    i_may_load_this_host: bool = False,
) -> dict[str, Any]:
    """Load a relay as a scenario says; return the run's summary.

    `overrides` maps dotted keys of the scenario to values. Ends Failed with ObjectivesMissedError
    or InvalidRunError once the report is made; pressing Retry goes on where the bucket says that
    the run stands.
    """
    wanted = Wanted(
        scenario=scenario,
        relay_url=relay_url,
        fleet=fleet,
        store=store,
        overrides=overrides or {},
        results=Path(results),
        i_may_load_this_host=i_may_load_this_host,
        identity=str(flow_run.id or ""),
    )
    with Interrupts() as interrupts:
        async with prepared(wanted) as run:
            problem: BaseException | None = None
            try:
                if run.remaining:
                    await _load(run, interrupts)
            except BaseException as error:  # noqa: BLE001 - teardown and report come first
                problem = interrupts.as_error(error)
                await run.note_problem(problem)
            finally:
                interrupts.protect()
                await _teardown(run)
            if problem is not None and not isinstance(problem, Exception):
                raise problem  # cancelled from outside: there is no time for a report
            summary = await report(run.context)
            await run.ended(summary.verdict, summary.validity)
            if problem is not None:
                raise problem
    if interrupts.count:
        raise InterruptedRunError("The run was interrupted.", hint="What it measured is reported.")
    return _judged(summary)


async def _load(run: PreparedRun, interrupts: Interrupts) -> None:
    """Rent, deploy, and carry out the phases that are not complete yet."""
    context = run.context
    workers = await provision(context)
    run.record.attempts[-1].workers = [worker.name for worker in workers]
    conductor = await deploy(context, workers)
    interrupts.conduct(conductor)
    async with LeaseKeeper(context):
        await conductor.reconnect(run.remaining[0])
        for index in run.remaining:
            phase = context.scenario.phases[index]
            if conductor.ending and phase.kind != "cooldown":
                continue
            await load_phase(conductor, index, phase.name)
        await wind_down(conductor)


async def _teardown(run: PreparedRun) -> None:
    """Run the teardown task, or its plain function where no task can start any more."""
    try:
        await teardown(run.context)
    except Exception:
        log.exception("the teardown task failed; everything is given back without it")
        await give_back(run.context)


def _judged(summary: Summary) -> dict[str, Any]:
    """Return the summary of a run that passed; raise what ends the others."""
    if summary.validity == "invalid":
        raise InvalidRunError(
            "The run's figures cannot be believed: " + "; ".join(summary.validity_reasons)
        )
    if summary.verdict == "failed":
        missed = [row.sentence for row in summary.objectives if row.met is False]
        raise ObjectivesMissedError("; ".join(missed) + ".")
    result: dict[str, Any] = summary.model_dump(mode="json")
    return result
