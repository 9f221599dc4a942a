from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from run_store.steps import Step
from scenarios.model import Phase, Scenario
from tasks.conductor import Conductor
from tasks.run_context import RunContext
from tasks.stress import Halt, Level, next_level
from tasks.substitution import holders_after, why_none
from tests.conducting.loads import in_steps, orders_of, ready, replacing, settled
from tests.fake_fleet import FakeFleet
from tests.waiting import wait_for


@pytest.mark.parametrize("spread", [False, True])
async def test_a_lost_worker_is_replaced_from_the_next_phase_on(
    context: RunContext, fleet: FakeFleet, spread: bool
) -> None:
    """A substitute with a name of its own has the lost worker's slot, and is told of."""
    context = replacing(context, spread_lost_connections=spread)
    conductor = await ready(context, fleet)
    fleet.kill("worker-1")
    first = await conductor.run_phase(0)
    assert first.lost[0].replaced_by == ""
    await settled(conductor)
    record = await conductor.run_phase(1)
    assert record.slots == ["worker-3", "worker-2"]
    [lost] = record.lost
    assert (lost.worker, lost.phase) == ("worker-1", "00-warmup")
    assert (lost.replaced_by, lost.replaced_from) == ("worker-3", "01-ramp-up")
    assert record.parts["worker-3"] == {"edits": 1}
    assert [order.number for order in fleet.agents["worker-3"].orders][-1] == 2
    await conductor.finish("done")
    assert conductor.roll.state("worker-3") == "stopped"


async def test_a_substitute_that_is_not_ready_joins_later(
    context: RunContext, fleet: FakeFleet
) -> None:
    """No phase waits for it: the slot stays empty until a phase begins behind its readiness."""
    conductor = await ready(replacing(context), fleet)
    fleet.may_give.clear()
    fleet.kill("worker-1")
    await conductor.run_phase(0)
    assert (await conductor.run_phase(1)).slots == ["", "worker-2"]
    fleet.may_give.set()
    await settled(conductor)
    assert (await conductor.run_phase(2)).slots == ["worker-3", "worker-2"]
    assert fleet.asked == ["worker-3"]


async def test_a_substitute_that_is_lost_is_replaced_too(
    context: RunContext, fleet: FakeFleet
) -> None:
    """The slot goes from one to the next, each with a new name; then the limit is reached."""
    conductor = await ready(replacing(context), fleet)
    fleet.kill("worker-1")
    await conductor.run_phase(0)
    await settled(conductor)
    fleet.kill("worker-3")
    # It is looked at as it joins, so its own successor can be sought in this phase.
    record = await conductor.run_phase(1)
    assert record.slots == ["", "worker-2"]
    assert [lost.replaced_by for lost in record.lost] == ["worker-3", ""]
    await settled(conductor)
    assert (await conductor.run_phase(2)).slots == ["worker-4", "worker-2"]
    assert fleet.asked == ["worker-3", "worker-4"]


async def test_a_substitute_joins_with_the_next_step_of_load(
    context: RunContext, fleet: FakeFleet
) -> None:
    """The step in which a worker is lost is doubtful, and tried again with all slots held."""
    looking: list[Conductor] = []

    def chooses(scenario: Scenario, phase: Phase, steps: Sequence[Step]) -> Level | Halt:
        # Who seeks a substitute does not hold up the load: here the next step waits for it.
        [conductor] = looking
        wait_for(lambda: all(task.done() for task in conductor.substitutes.seeking))
        return next_level(scenario, phase, steps)

    conductor = await ready(replacing(in_steps(context)), fleet, chooses=chooses)
    looking.append(conductor)
    running = asyncio.create_task(conductor.run_phase(0))
    await fleet.agents["worker-1"].has_order.wait()
    fleet.kill("worker-1")
    record = await running
    assert record.slots == ["worker-3", "worker-2"]
    assert record.lost[0].replaced_from == "00-load"
    assert orders_of(context)[0].slots == ["worker-1", "worker-2"]


async def test_nothing_is_sought_behind_the_end(context: RunContext, fleet: FakeFleet) -> None:
    """What is being asked for is given up at the end, and nothing is asked for any more."""
    conductor = await ready(replacing(context), fleet)
    fleet.may_give.clear()
    fleet.kill("worker-1")
    await conductor.run_phase(0)
    await conductor.finish("done")
    fleet.may_give.set()
    conductor.substitutes.want(conductor.roll.worker("worker-2"), 0)
    assert fleet.asked == ["worker-3"]
    assert "worker-3" not in fleet.agents


@pytest.mark.parametrize("kind", ["none left", "fails"])
async def test_a_worker_for_which_there_is_no_other_stays_lost(
    context: RunContext, kind: str
) -> None:
    """A fleet that has none, or whose substitute fails, ends nothing; none is asked for twice."""
    fleet = FakeFleet({"worker-3": "there is no Chromium here"} if kind == "fails" else {})
    fleet.has_spares = kind == "fails"
    conductor = await ready(replacing(context), fleet)
    fleet.kill("worker-1")
    await conductor.run_phase(0)
    await settled(conductor)
    assert (await conductor.run_phase(1)).slots == ["", "worker-2"]
    assert fleet.asked == ["worker-3"]
    await fleet.release(context)


@pytest.mark.parametrize(
    ("index", "asked", "why"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (2, 0, "no phase is left"),  # but the cool-down
        (3, 0, "no phase is left"),
        (0, 2, "2 were asked for already"),
    ],
)
def test_when_a_lost_worker_is_replaced(
    context: RunContext, index: int, asked: int, why: str
) -> None:
    """As long as load lies ahead, and as often as the scenario has workers."""
    said = why_none(context.scenario, index, asked)
    assert said.startswith(why)
    assert bool(said) == bool(why)


@pytest.mark.parametrize(
    ("substitutes", "holders"),
    [
        ({}, ["worker-1", "worker-2"]),
        ({"worker-2": "worker-3"}, ["worker-1", "worker-3"]),
        ({"worker-1": "worker-4", "worker-2": "worker-3"}, ["worker-4", "worker-3"]),
    ],
)
def test_a_substitute_has_the_very_slot(substitutes: dict[str, str], holders: list[str]) -> None:
    """Each slot keeps its place, since connections are counted by it."""
    assert holders_after(["worker-1", "worker-2"], substitutes) == holders
