"""A capacity search, carried out: its next step, its answer, its place in the history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from reports import history
from reports.capacity import explained, sentence_of
from reports.summary import Summary
from run_store.capacity import Calibration, CapacityResult, calibration_key
from run_store.errors import CannotRunError, RelayLoadError
from run_store.layout import phase_label
from run_store.messages import RunRecord
from run_store.steps import Step
from scenarios.model import FleetSpec, Phase, Scenario
from tasks import preflight
from tasks.roll_call import now_us
from tasks.run_context import RunContext
from tasks.search import NextStep, cut_off, next_step
from tasks.search_plan import PHASE, Search, SearchPlan, planned_search
from tasks.search_steps import result_of, tried_of
from tasks.stores import opened_store
from tasks.stress import Halt, Level

RELAY_BACK_WITHIN_S = 60.0
"""A relay that died is waited for so long before the search ends with that."""
LOOK_EVERY_S = 1.0


class CapacitySearch:
    """Chooses the steps of the searching phase, as its plan says, from those that were judged."""

    def __init__(self, plan: SearchPlan, relay_url: str) -> None:
        self._plan = plan
        self._relay_url = relay_url

    def __call__(
        self,
        scenario: Scenario,  # noqa: ARG002 - the plan has its own copy of it
        phase: Phase,  # noqa: ARG002 - likewise
        steps: Sequence[Step],
    ) -> Level | Halt:
        """Return the next step's level, or why there is none; may block while a relay is away."""
        plan = self._plan
        died = bool(steps) and steps[-1].relay == "dead"
        tried = tried_of(
            steps,
            over=plan.over,
            subject=plan.subject,
            relay_is_back=not died or self._is_back(),
        )
        answer = next_step(tried, plan.quest)
        return plan.level(answer.load) if isinstance(answer, NextStep) else Halt(answer.why)

    def _is_back(self) -> bool:
        deadline = time.monotonic() + RELAY_BACK_WITHIN_S
        while True:
            try:
                asyncio.run(preflight.check_relay(self._relay_url))
            except RelayLoadError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(LOOK_EVERY_S)
            else:
                return True


def conclude(context: RunContext, plan: SearchPlan, *, cut_off_by: str = "") -> None:
    """Write `capacity.json`: what the run's steps say; nothing where there are none.

    `cut_off_by` says what ended the search before it had its answer.
    """
    store, layout = context.store(), context.layout
    steps = steps_of(context, plan)
    if not steps:
        return
    tried = tried_of(steps, over=plan.over, subject=plan.subject, relay_is_back=False)
    answer = next_step(tried, plan.quest)
    if isinstance(answer, NextStep):
        answer = cut_off(tried, plan.quest, cut_off_by or "the search was cut off")
    result = result_of(
        answer,
        steps,
        over=plan.over,
        quest=plan.quest,
        connections=plan.connections,
        edits_per_s=plan.edits_per_s,
    )
    by_number = {step.number: step for step in steps}
    good, bad = by_number.get(result.last_good or 0), by_number.get(result.first_bad or 0)
    result = result.model_copy(update={"explanation": explained(good, bad)})
    result = result.model_copy(update={"sentence": sentence_of(result)})
    store.put_message(layout.capacity, result)


def steps_of(context: RunContext, plan: SearchPlan) -> list[Step]:
    """Return the steps of a search that are in the bucket, in their order."""
    store = context.store()
    keys = store.keys(context.layout.steps(phase_label(plan.index, PHASE)))
    found = (store.get_message(key, Step) for key in keys)
    return sorted((step for step in found if step is not None), key=lambda step: step.number)


def add_to_history(context: RunContext, plan: SearchPlan, summary: Summary) -> bool:
    """Add the line of a search that has an answer to the store's history; False if it has none."""
    store = context.store()
    result = store.get_message(context.layout.capacity, CapacityResult)
    record = store.get_message(context.layout.run, RunRecord)
    if result is None or record is None:
        return False
    steps = steps_of(context, plan)
    history.add(store, history.Line.of_search(summary, result, steps, record.scenario))
    return True


def worker_kind(fleet: FleetSpec, kind: str) -> str:
    """Return what a calibration calls a worker of this fleet."""
    return fleet.instance_types[0] if kind == "ec2" else kind


def calibration_of(
    store_url: str | None, results: Path, scenario: Scenario, kind: str
) -> Calibration | None:
    """Return what is known in the store of such a worker on this scenario; None if nothing is."""
    with opened_store(store_url, results) as store:
        if store is None:
            return None
        key = calibration_key(scenario.name, worker_kind(scenario.fleet, kind))
        return store.get_message(key, Calibration)


def plan_in(store_url: str | None, results: Path, scenario: Scenario, search: Search) -> SearchPlan:
    """Return the plan of a search, its rented fleet as large as a calibration there asks for."""
    kind = scenario.fleet.kind
    known = calibration_of(store_url, results, scenario, kind) if kind == "ec2" else None
    return planned_search(scenario, search, held_by_worker=known.connections if known else None)


def keep_calibration(context: RunContext, plan: SearchPlan) -> Calibration:
    """Write what a search with the generator as its subject found of one worker; return it.

    Raises CannotRunError if not even the first step was held.
    """
    store = context.store()
    result = store.get_message(context.layout.capacity, CapacityResult)
    held = result.low if result else None
    if result is None or held is None:
        why = result.why if result else "no step was judged"
        raise CannotRunError(
            f"One worker was not seen to hold {plan.connections:,} connections: {why}.",
            hint="Begin lower (--start), or hold each step for longer (--hold).",
        )
    kind = worker_kind(context.scenario.fleet, context.fleet)
    bound = "" if result.kind == "between" else "at least "
    edits_per_s = plan.level(held).edits_per_second
    known = Calibration(
        scenario=context.scenario.name,
        worker_kind=kind,
        connections=int(held),
        edits_per_s=edits_per_s,
        is_at_least=result.kind != "between",
        why=result.why,
        measured_us=now_us(),
        run_id=context.run_id,
        isolation=context.scenario.isolation,
        sentence=(
            f"one {kind} worker holds {bound}{held:,.0f} connections at {edits_per_s:.3g} edits/s"
            f" on {context.scenario.name}: {result.why}"
        ),
        connections_per_document=context.scenario.connections_per_document,
    )
    store.put_message(calibration_key(context.scenario.name, kind), known)
    return known
