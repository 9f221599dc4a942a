from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from run_store.errors import FleetError, StoreError
from run_store.messages import Lease, Order, PhaseRecord
from run_store.steps import Step
from scenarios.model import Phase
from tasks import conductor as conductor_module
from tasks import cuts, instants, roll_call
from tasks.beats import CATCH_UP_S, PROMPT_S, Beats
from tasks.conductor import Conductor
from tasks.lease_keeper import LeaseKeeper
from tasks.observation import Snapshot
from tasks.plan import remaining_phases
from tasks.run_context import RunContext
from tasks.snapshots import snapshot_of
from tasks.step_verdict import judge_step
from tasks.steps import kept_steps
from tasks.stress import Halt, Level
from tasks.substitution import holders_after, why_none
from tests.fake_fleet import FakeFleet
from tests.store_server import StoreServer
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instants, "BEGINS_AFTER_S", 0.4)
    monkeypatch.setattr(conductor_module, "LOOK_EVERY_S", 0.2)
    monkeypatch.setattr(roll_call, "SILENT_AFTER_S", 1.5)


@pytest.fixture
async def fleet(context: RunContext) -> AsyncIterator[FakeFleet]:
    fleet = FakeFleet()
    yield fleet
    await fleet.release(context)


async def ready(context: RunContext, fleet: FakeFleet) -> Conductor:
    workers = await fleet.acquire(context)
    await asyncio.gather(*(fleet.deploy(context, worker) for worker in workers))
    conductor = Conductor(context, fleet, workers)
    await conductor.wait_until_ready()
    return conductor


def orders_of(context: RunContext) -> list[Order]:
    store, attempt = context.store(), context.attempt
    found = [store.get_message(key, Order) for key in store.keys(context.layout.orders(attempt))]
    return [order for order in found if order is not None]


async def settled(conductor: Conductor) -> None:
    """Wait until nothing is being sought in the place of lost workers."""
    await asyncio.gather(*conductor.substitutes.seeking)


def record_of(context: RunContext, label: str) -> PhaseRecord:
    record = context.store().get_message(context.layout.phase(label), PhaseRecord)
    assert record is not None
    return record


async def test_all_phases_are_carried_out(context: RunContext, fleet: FakeFleet) -> None:
    """Every phase is ordered, done by all and recorded; then all agents stop."""
    conductor = await ready(context, fleet)
    for index in range(4):
        assert conductor.is_due(index)
        await conductor.run_phase(index)
    await conductor.finish("done")
    orders = orders_of(context)
    assert [order.number for order in orders] == [1, 2, 3, 4, 5]
    assert [order.action for order in orders] == ["run"] * 4 + ["stop"]
    assert [conductor.roll.state(name) for name in context.workers] == ["stopped", "stopped"]
    record = record_of(context, "02-sustained")
    assert record.parts == {name: {"edits": 1} for name in context.workers}
    assert record.edits_planned == 4
    assert record.ended_us - record.started_us == 2_000_000
    assert not record.lost
    assert not record.stopped_early


async def test_a_silent_worker_is_lost(context: RunContext, fleet: FakeFleet) -> None:
    """A worker without a heartbeat is lost: its slot is empty from the next order on."""
    conductor = await ready(context, fleet)
    await conductor.run_phase(0)
    fleet.agents["worker-2"].silent = True
    await conductor.run_phase(1)
    record = await conductor.run_phase(2)
    assert record.slots == ["worker-1", ""]
    [lost] = record.lost
    assert (lost.worker, lost.phase) == ("worker-2", "01-ramp-up")
    # What the plan had it hold by then: its last heartbeat, from before the ramp, said 2.
    assert lost.connections in {3, 4}
    assert "not been heard" in lost.reason
    assert 0 < lost.last_seen_us < lost.noticed_us


async def test_a_worker_that_is_gone_is_noticed_at_once(
    context: RunContext, fleet: FakeFleet
) -> None:
    """An agent that ends without a word is lost without waiting for its silence."""
    conductor = await ready(context, fleet)
    fleet.kill("worker-1")
    record = await conductor.run_phase(0)
    assert [lost.worker for lost in record.lost] == ["worker-1"]
    assert "is gone" in record.lost[0].reason
    assert record.lost[0].noticed_us < record.ended_us


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


def replacing(context: RunContext, **fleet: object) -> RunContext:
    given = context.scenario.fleet.model_copy(update={"replace_lost_workers": True, **fleet})
    return replace(context, scenario=context.scenario.model_copy(update={"fleet": given}))


async def test_an_order_to_spread_that_was_written_unheard_is_the_one_that_counts(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order before it ends when it begins, not when it is tried again."""
    conductor = await ready(replacing(context, spread_lost_connections=True), fleet)
    issue = conductor.book.issue
    unheard: list[Order] = []

    async def issued(order: Order, **given: bool) -> Order:
        if order.number == 2 and not unheard:
            unheard.append(order)
            conductor.context.store().put_message(context.layout.order(1, 2), order)
            await asyncio.sleep(0.5)  # so that another try would begin later
            raise StoreError("no answer")
        return await issue(order, **given)

    monkeypatch.setattr(conductor.book, "issue", issued)
    monkeypatch.setattr(cuts, "SPREAD_FOR_AT_LEAST_S", 0.1)
    fleet.kill("worker-2")
    with pytest.raises(StoreError):
        await conductor.run_phase(2)
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
    conductor = await ready(replacing(context, spread_lost_connections=True), fleet)
    issue = conductor.book.issue

    async def issued(order: Order, **given: bool) -> Order:
        if order.number == 2 and not conductor.ending:
            conductor.end("asked to stop")
            if answer == "is not heard":
                conductor.context.store().put_message(context.layout.order(1, 2), order)
                raise StoreError("no answer")
        return await issue(order, **given)

    monkeypatch.setattr(conductor.book, "issue", issued)
    monkeypatch.setattr(cuts, "SPREAD_FOR_AT_LEAST_S", 0.1)
    fleet.kill("worker-2")
    if answer == "is not heard":
        with pytest.raises(StoreError):
            await conductor.run_phase(2)
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
    conductor = await ready(context, fleet)
    running = asyncio.create_task(conductor.run_phase(2))
    await fleet.agents["worker-1"].has_order.wait()
    conductor.missed = "an objective was missed"
    assert (await running).stopped_early == "an objective was missed"
    conductor.end("asked to stop")
    assert (await conductor.run_phase(3)).stopped_early == "asked to stop"
    assert orders_of(context)[-1].action == "stop"


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


def in_steps(context: RunContext) -> RunContext:
    """Return a context whose scenario is one phase of load that goes up in steps of 4.5 s."""
    steps = Phase.model_validate(
        {
            "name": "load",
            "kind": "stress",
            "duration": "60s",
            "edits_per_minute": 60,
            "step_connections": 2,
            "max_connections": 8,
            "step_ramp": "0.5s",
            "step_settle": "0s",
            "step_hold": "4s",
        }
    )
    scenario = context.scenario.model_copy(update={"phases": (steps,), "objectives": ()})
    return replace(context, scenario=scenario)


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
    issue = conductor.book.issue
    unheard: list[Order] = []

    async def issued(order: Order, **given: bool) -> Order:
        if order.number == 2 and not unheard:
            unheard.append(order)
            conductor.context.store().put_message(context.layout.order(1, 2), order)
            raise StoreError("no answer")
        return await issue(order, **given)

    def judged(*given: Any) -> Step:
        return judge_step(*given).model_copy(update={"outcome": "bad"})

    monkeypatch.setattr(conductor.book, "issue", issued)
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


async def test_a_substitute_joins_with_the_next_step_of_load(
    context: RunContext, fleet: FakeFleet
) -> None:
    """The step in which a worker is lost is doubtful, and tried again with all slots held."""
    conductor = await ready(replacing(in_steps(context)), fleet)
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


async def test_the_load_ends_when_all_workers_are_gone(
    context: RunContext, fleet: FakeFleet
) -> None:
    """With no worker left the phase ends at once, is recorded so far, and says why."""
    conductor = await ready(context, fleet)
    running = asyncio.create_task(conductor.run_phase(2))
    await asyncio.gather(*(agent.has_order.wait() for agent in fleet.agents.values()))
    for name in context.workers:
        fleet.kill(name)
    with pytest.raises(FleetError, match="Every worker was lost by the end of 02-sustained"):
        await running
    record = record_of(context, "02-sustained")
    assert record.stopped_early == "every worker was lost"
    assert record.ended_us - record.started_us < 2_000_000
    assert record.edits_planned < 4


async def test_too_few_ready_workers_are_no_fleet(context: RunContext) -> None:
    """A worker that fails at its start is told with its own words."""
    fleet = FakeFleet(refuses={"worker-2": "there is no Chromium here"})
    with pytest.raises(FleetError, match=r"Only 1 of 2 .* there is no Chromium here"):
        await ready(context, fleet)
    await fleet.release(context)


@pytest.mark.parametrize("who", ["the conductor's caller", "a marker in the bucket"])
async def test_a_stop_ends_the_phase_in_order(
    context: RunContext, fleet: FakeFleet, who: str
) -> None:
    """A phase that is cut is followed by a short cool-down, and nothing else is due."""
    conductor = await ready(context, fleet)
    running = asyncio.create_task(conductor.run_phase(2))
    await fleet.agents["worker-1"].has_order.wait()
    if who == "the conductor's caller":
        conductor.end("asked to stop")
    else:
        await asyncio.to_thread(context.store().put, context.layout.stop, b"{}")
    cut = await running
    assert cut.stopped_early == "asked to stop"
    assert cut.ended_us - cut.started_us < 2_000_000
    assert [conductor.is_due(index) for index in (1, 3)] == [False, True]
    cooled = await conductor.run_phase(3)
    # The ramp of this phase was cut on its way, and nothing is opened for the cool-down.
    assert cooled.connections.start == cooled.connections.end <= 8
    assert cooled.started_us == cut.ended_us
    assert not cooled.stopped_early
    assert fleet.agents["worker-1"].orders[-1].check_replicas


async def test_a_stop_in_the_last_phase_just_ends(context: RunContext, fleet: FakeFleet) -> None:
    """With no cool-down left to come the stop itself ends the phase, and is written once."""
    conductor = await ready(context, fleet)
    running = asyncio.create_task(conductor.run_phase(3))
    await fleet.agents["worker-1"].has_order.wait()
    conductor.end("asked to stop")
    assert (await running).stopped_early == "asked to stop"
    await conductor.finish("asked to stop")
    assert [order.action for order in orders_of(context)] == ["run", "stop"]


async def test_nobody_is_blamed_while_the_store_is_away(
    context: RunContext, fleet: FakeFleet, tmp_path: Path
) -> None:
    """A store that does not answer for longer than a worker may be silent loses no worker."""
    with StoreServer(tmp_path / "s3") as server:
        context = replace(context, address=server.address)
        conductor = await ready(context, fleet)
        running = asyncio.create_task(conductor.run_phase(2))
        await asyncio.gather(*(agent.has_order.wait() for agent in fleet.agents.values()))
        await asyncio.to_thread(server.stop)
        # Not a wait for something: the length of the outage is what this test is about.
        await asyncio.sleep(2 * roll_call.SILENT_AFTER_S)
        await asyncio.to_thread(server.start)
        for _ in range(30):
            try:
                record = await running
                break
            except StoreError:
                # What the task's retries do.
                running = asyncio.create_task(conductor.run_phase(2))
        assert not record.lost
        assert [order.number for order in orders_of(context)] == [1]
        await fleet.release(context)


async def test_an_order_that_reached_the_bucket_stays_in_force(
    context: RunContext, fleet: FakeFleet
) -> None:
    """A new conductor's order is not put in the place of one that workers may have read."""
    first = await ready(context, fleet)
    await first.run_phase(0)
    again = Conductor(context, fleet, await fleet.acquire(context))
    record = await again.run_phase(0)
    assert record.started_us == orders_of(context)[0].starts_at_us
    assert len(orders_of(context)) == 1


async def test_the_lease_rises_while_it_is_kept(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter rises inside the `with` and stands still behind it."""
    monkeypatch.setattr("tasks.lease_keeper.EVERY_S", 0.1)
    store, key = context.store(), context.layout.lease(1)

    def counter() -> int:
        lease = store.get_message(key, Lease)
        return lease.counter if lease else 0

    async with LeaseKeeper(context):
        first = await asyncio.to_thread(counter)
        assert first >= 1
        assert await asyncio.to_thread(wait_for, lambda: counter() >= first + 3)
    last = await asyncio.to_thread(counter)
    await asyncio.sleep(0.5)
    assert await asyncio.to_thread(counter) == last


def test_silence_counts_only_while_the_store_answers() -> None:
    """Time in which nothing could be read does not count, nor as much again to catch up in."""
    now = [0.0]
    beats = Beats(lambda: now[0])
    assert beats.heard("w", 1) == 0
    now[0] = 4.0
    assert beats.heard("w", 1) == 4
    now[0] = 30.0
    beats.store_silent("w")
    now[0] = 31.0
    assert beats.heard("w", 1) == 0
    now[0] = 62.0
    assert beats.heard("w", 1) == 10
    now[0] = 63.0
    assert beats.heard("w", 2) == 0
    now[0] = 163.0
    beats.store_silent("w")
    now[0] = 163.0 + CATCH_UP_S
    assert beats.heard("w", 2) == 0
    now[0] += 1
    assert beats.heard("w", 2) == 1
    beats.store_silent("never seen")


def test_an_answer_that_came_late_found_the_store_away() -> None:
    """What the store took beyond a second is no silence, but it excuses no worker for ever."""
    now = [0.0]
    beats = Beats(lambda: now[0])
    assert beats.heard("w", 1) == 0
    now[0] = 21.0
    assert beats.heard("w", 1, took_s=20 + PROMPT_S) == 0
    now[0] = 41.0
    # 20 s of it were no answer, and as many are to catch up in.
    assert beats.heard("w", 1) == 41 - 20 - 20
    for _ in range(100):
        now[0] += 5.0
        silent_s = beats.heard("w", 1, took_s=3 + PROMPT_S)
    assert silent_s == 100 * (5 - 3) + 21 - CATCH_UP_S


def test_a_snapshot_counts_rates_from_the_one_before() -> None:
    """Edits a second are what was offered since the last look in the same phase."""

    def snapshot(label: str, elapsed_s: float, before: Snapshot | None) -> Snapshot:
        return snapshot_of(
            {},
            label=label,
            elapsed_s=elapsed_s,
            duration_s=10,
            alive=0,
            workers=2,
            connections_target=3,
            before=before,
        )

    first = snapshot("00-a", 1, None)
    assert (first.edits_per_s, first.workers_alive, first.connections_open) == (0, 0, 0)
    later = replace(snapshot("00-a", 2, None), edits_offered=-6)
    assert snapshot("00-a", 4, later).edits_per_s == 3
    assert snapshot("01-b", 4, later).edits_per_s == 0
