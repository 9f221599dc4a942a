from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from run_store.errors import StoreError
from run_store.messages import Order
from tasks import cuts
from tasks.run_context import RunContext
from tests.conducting.loads import lasting, lose_answer, orders_of, ready, replacing
from tests.fake_fleet import FakeFleet


async def test_a_lost_workers_connections_can_be_spread(
    context: RunContext, fleet: FakeFleet
) -> None:
    """With `spread_lost_connections` the others take a lost worker's slots."""
    spread = context.scenario.fleet.model_copy(update={"spread_lost_connections": True})
    scenario = context.scenario.model_copy(update={"fleet": spread})
    conductor = await ready(replace(context, scenario=scenario), fleet)
    fleet.kill("worker-1")
    await conductor.run_phase(0)
    assert (await conductor.run_phase(1)).slots == ["worker-2", "worker-2"]


async def test_an_order_to_spread_that_was_written_unheard_is_the_one_that_counts(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order before it ends when it begins, not when it is tried again."""
    context = lasting(replacing(context, spread_lost_connections=True), sustained=8)
    conductor = await ready(context, fleet)
    unheard = lose_answer(monkeypatch, conductor, 2)
    monkeypatch.setattr(cuts, "SPREAD_FOR_AT_LEAST_S", 0.1)
    fleet.kill("worker-2")
    with pytest.raises(StoreError):
        await conductor.run_phase(2)
    await asyncio.sleep(0.5)  # so that another try would begin later
    record = await conductor.run_phase(2)
    first, second = orders_of(context)[:2]
    assert second == unheard[0]
    assert conductor.book.ends_us(first) == second.starts_at_us
    assert record.ended_us == second.starts_at_us + round(second.duration_s * 1e6)


@pytest.mark.parametrize("answer", ["is heard", "is not heard"])
async def test_an_end_that_is_wanted_while_connections_are_spread_ends_the_rest(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """The order that goes on is ended in its turn: it is neither lost nor counted twice."""
    context = lasting(replacing(context, spread_lost_connections=True), sustained=60)
    conductor = await ready(context, fleet)
    monkeypatch.setattr(cuts, "SPREAD_FOR_AT_LEAST_S", 0.1)
    fleet.kill("worker-2")
    if answer == "is not heard":
        lose_answer(monkeypatch, conductor, 2)
        with pytest.raises(StoreError):
            await conductor.run_phase(2)
        conductor.end("asked to stop")
    else:
        issue = conductor.book.issue

        async def issued(order: Order, **given: bool) -> Order:
            if order.number == 2:
                conductor.end("asked to stop")
            return await issue(order, **given)

        monkeypatch.setattr(conductor.book, "issue", issued)
    record = await conductor.run_phase(2)
    assert record.stopped_early == "asked to stop"
    assert [order.number for order in conductor.book.of_phase(2)] == [1, 2]
    sustained, rest, cool = orders_of(context)
    assert rest.phase == sustained.phase
    assert cool.phase is not None
    assert cool.phase.kind == "cooldown"
    assert record.ended_us == cool.starts_at_us < rest.starts_at_us + rest.duration_s * 1e6


async def test_a_cool_down_behind_a_missed_objective_can_be_cut(
    context: RunContext, fleet: FakeFleet
) -> None:
    """It has its whole length, unless somebody wants the end sooner."""
    conductor = await ready(lasting(context, sustained=60, cooldown=60), fleet)
    running = asyncio.create_task(conductor.run_phase(2))
    await fleet.agents["worker-1"].has_order.wait()
    conductor.missed = "an objective was missed"
    assert (await running).stopped_early == "an objective was missed"
    conductor.end("asked to stop")
    assert (await conductor.run_phase(3)).stopped_early == "asked to stop"
    assert orders_of(context)[-1].action == "stop"


async def test_a_cool_down_that_was_ordered_unheard_is_cut_for_a_user(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missed objective gave it its whole minute; who asks for the end since wants it soon."""
    conductor = await ready(lasting(context, sustained=60, cooldown=60), fleet)
    lose_answer(monkeypatch, conductor, 2)
    running = asyncio.create_task(conductor.run_phase(2))
    await fleet.agents["worker-1"].has_order.wait()
    conductor.missed = "an objective was missed"
    with pytest.raises(StoreError):
        await running
    conductor.end("asked to stop")
    await conductor.run_phase(2)
    cooled = await conductor.run_phase(3)
    assert orders_of(context)[1].duration_s == 60
    assert cooled.stopped_early == "asked to stop"
    assert cooled.ended_us - cooled.started_us < 60e6


@pytest.mark.parametrize("who", ["the conductor's caller", "a marker in the bucket"])
async def test_a_stop_ends_the_phase_in_order(
    context: RunContext, fleet: FakeFleet, who: str
) -> None:
    """A phase that is cut is followed by a short cool-down, and nothing else is due."""
    conductor = await ready(lasting(context, sustained=60), fleet)
    running = asyncio.create_task(conductor.run_phase(2))
    await fleet.agents["worker-1"].has_order.wait()
    if who == "the conductor's caller":
        conductor.end("asked to stop")
    else:
        await asyncio.to_thread(context.store().put, context.layout.stop, b"{}")
    cut = await running
    assert cut.stopped_early == "asked to stop"
    assert cut.ended_us - cut.started_us < 60e6
    assert [conductor.is_due(index) for index in (1, 3)] == [False, True]
    cooled = await conductor.run_phase(3)
    # The ramp of this phase was cut on its way, and nothing is opened for the cool-down.
    assert cooled.connections.start == cooled.connections.end <= 8
    assert cooled.started_us == cut.ended_us
    assert not cooled.stopped_early
    assert fleet.agents["worker-1"].orders[-1].check_replicas


async def test_a_stop_in_the_last_phase_just_ends(context: RunContext, fleet: FakeFleet) -> None:
    """With no cool-down left to come the stop itself ends the phase, and is written once."""
    conductor = await ready(lasting(context, cooldown=60), fleet)
    running = asyncio.create_task(conductor.run_phase(3))
    await fleet.agents["worker-1"].has_order.wait()
    conductor.end("asked to stop")
    assert (await running).stopped_early == "asked to stop"
    await conductor.finish("asked to stop")
    assert [order.action for order in orders_of(context)] == ["run", "stop"]
