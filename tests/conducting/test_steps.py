from __future__ import annotations

from typing import Any

import pytest

from run_store.errors import StoreError
from run_store.steps import Step
from tasks.plan import remaining_phases
from tasks.run_context import RunContext
from tasks.step_verdict import judge_step
from tasks.steps import kept_steps
from tasks.stress import Halt, Level
from tests.conducting.loads import in_steps, lose_answer, orders_of, ready, ready_for
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


@pytest.mark.parametrize("why", ["the load ends", "no time is left"])
async def test_a_step_that_was_ordered_unheard_comes_to_its_end(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Workers carry it out: it is cut where the load ends, and goes on where time has passed."""
    conductor = await ready_for(context, fleet, [Level(2, 1.0), Level(4, 1.0), Halt("enough")])
    lose_answer(monkeypatch, conductor, 2)
    with pytest.raises(StoreError):
        await conductor.run_phase(0)
    if why == "the load ends":
        conductor.end("asked to stop")
    else:
        steps = conductor._steps[0]  # noqa: SLF001 - time that passes, without waiting for it
        steps._phase = steps._phase.model_copy(update={"duration_s": 5.0})  # noqa: SLF001 - likewise
    record = await conductor.run_phase(0)
    await conductor.finish("done")
    orders = orders_of(context)
    assert [order.number for order in orders] == [1, 2, 3]
    assert [order.action for order in orders] == ["run", "run", "stop"]
    judged = [step.order for step in kept_steps(conductor.context, "00-load")]
    if why == "the load ends":
        assert record.stopped_early == "asked to stop"
        assert judged == [1]
    else:
        assert judged == [1, 2]
    assert not conductor.roll.lost


async def test_the_stop_stands_behind_what_was_ordered_unheard(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that have read the order before it wait for the next number."""
    conductor = await ready(context, fleet)
    lose_answer(monkeypatch, conductor, 1)
    with pytest.raises(StoreError):
        await conductor.run_phase(0)
    await conductor.finish("done")
    assert [order.action for order in orders_of(context)] == ["run", "stop"]
    assert [conductor.roll.state(name) for name in context.workers] == ["stopped", "stopped"]


async def test_a_rest_that_was_ordered_unheard_is_no_step(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another try takes it for what it is, and the next step has an order of its own."""
    levels: list[Level | Halt] = [Level(4, 1.0), Level(2, 1.0), Halt("enough")]
    conductor = await ready_for(context, fleet, levels)

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
