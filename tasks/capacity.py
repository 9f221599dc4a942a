"""A capacity search, carried out: its next step, its answer, its place in the history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from reports import history
from reports.capacity import explained, sentence_of
from reports.summary import Summary
from run_store.capacity import CapacityResult
from run_store.errors import RelayLoadError
from run_store.layout import phase_label
from run_store.messages import PhaseRecord, RunRecord
from run_store.steps import Step
from scenarios.model import Phase, Scenario
from tasks import preflight
from tasks.run_context import RunContext
from tasks.search import NextStep, cut_off, next_step
from tasks.search_answer import Found
from tasks.search_plan import PHASE, SearchPlan
from tasks.search_steps import result_of, tried_of
from tasks.steps import kept_steps
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
        died = bool(steps) and steps[-1].relay == "dead"  # and not started anew by itself
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

    `cut_off_by` says what ended the search before it had its answer; else its phase's record does.
    """
    store, layout = context.store(), context.layout
    steps, label = steps_of(context, plan), phase_label(plan.index, PHASE)
    if not steps:
        return
    record = store.get_message(layout.phase(label), PhaseRecord)
    ended = record.ended_because or record.stopped_early if record else ""
    # Whoever chose the steps has waited for a relay that died last. If that ended them, the
    # phase's record says so; else it came back.
    tried = tried_of(steps, over=plan.over, subject=plan.subject, relay_is_back=False)
    answer = next_step(tried, plan.quest)
    if isinstance(answer, Found) and answer.kind == "died" and answer.why != ended:
        tried = tried_of(steps, over=plan.over, subject=plan.subject)
        answer = next_step(tried, plan.quest)
    if isinstance(answer, NextStep):
        answer = cut_off(tried, plan.quest, cut_off_by or ended or "the search was cut off")
    result = result_of(
        answer,
        steps,
        over=plan.over,
        quest=plan.quest,
        connections=plan.connections,
        edits_per_s=plan.edits_per_s,
        subject=plan.subject,
        members=plan.scenario.connections_per_document,
    )
    by_number = {step.number: step for step in steps}
    good, bad = by_number.get(result.last_good or 0), by_number.get(result.first_bad or 0)
    explanation = explained(good, bad, subject=plan.subject)
    result = result.model_copy(update={"explanation": explanation})
    result = result.model_copy(update={"sentence": sentence_of(result)})
    store.put_message(layout.capacity, result)


def steps_of(context: RunContext, plan: SearchPlan) -> list[Step]:
    """Return the steps of a search that are in the bucket."""
    return kept_steps(context, phase_label(plan.index, PHASE))


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
