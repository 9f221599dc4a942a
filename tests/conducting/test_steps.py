from __future__ import annotations

from typing import Any

import pytest

from run_store.errors import StoreError
from run_store.steps import Step
from tasks.conductor import Conductor
from tasks.plan import remaining_phases
from tasks.run_context import RunContext
from tasks.step_verdict import judge_step
from tasks.steps import kept_steps
from tasks.stress import Halt, Level
from tests.conducting.loads import in_steps, lose_answer, orders_of, ready
from tests.fake_fleet import FakeFleet


async def test_a_load_that_ends_between_two_steps_has_not_done_its_phase(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No order is cut for it, but a retry must go on with that phase."""
    conductor = await ready(in_steps(context), fleet)

    def judged(*given: Any) -> Step:
        conductor.end("asked to stop")
        return judge_step(*given)

    monkeypatch.setattr("tasks.steps.judge_step", judged)
    record = await conductor.run_phase(0)
    assert record.stopped_early == "asked to stop"
    assert remaining_phases(conductor.context.scenario, [record]) == [0]


async def test_a_rest_that_was_ordered_unheard_is_no_step(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another try takes it for what it is, and the next step has an order of its own."""
    levels: list[Level | Halt] = [Level(4, 1.0), Level(2, 1.0), Halt("enough")]
    conductor = await ready(in_steps(context), fleet)
    conductor = Conductor(
        conductor.context,
        fleet,
        [conductor.roll.worker(name) for name in conductor.roll.names],
        chooses=lambda _scenario, _phase, steps: levels[len(steps)],
    )
    await conductor.wait_until_ready()

    def judged(*given: Any) -> Step:
        return judge_step(*given).model_copy(update={"outcome": "bad"})

    lose_answer(monkeypatch, conductor, 2)
    monkeypatch.setattr("tasks.steps.judge_step", judged)
    with pytest.raises(StoreError):
        await conductor.run_phase(0)
    await conductor.run_phase(0)
    edits = [order.edits_per_s.end for order in orders_of(context)]
    assert edits == [1.0, 0.0, 1.0]
    assert [step.order for step in kept_steps(conductor.context, "00-load")] == [1, 3]


async def test_a_phase_whose_last_step_was_taken_by_an_attempt_that_died_is_recorded(
    context: RunContext, fleet: FakeFleet
) -> None:
    """Nothing is left to try: the connections are held for a moment, and the phase is done."""
    context = in_steps(context)
    bad = Step(
        number=1,
        attempt=1,
        order=1,
        phase="00-load",
        connections=8,
        edits_per_second=1.0,
        started_us=0,
        judged_from_us=1,
        ended_us=2,
        outcome="bad",
        why="it was too slow",
    )
    context.store().put_message(context.layout.step("00-load", 1), bad)
    conductor = await ready(context, fleet)
    record = await conductor.run_phase(0)
    assert record.ended_because.endswith("it was too slow")
    assert (record.stopped_early, record.edits_planned) == ("", 0)
    assert remaining_phases(context.scenario, [record]) == []
