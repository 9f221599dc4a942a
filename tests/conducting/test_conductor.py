from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest

from run_store.errors import FleetError, StoreError
from tasks import conductor as conductor_module
from tasks import roll_call
from tasks.beats import Beats
from tasks.conductor import Conductor
from tasks.run_context import RunContext
from tests.conducting.loads import lasting, orders_of, ready, record_of
from tests.fake_fleet import FakeFleet
from tests.store_server import StoreServer


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


async def test_a_silent_worker_is_lost(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without a heartbeat is lost: its slot is empty from the next order on."""
    monkeypatch.setattr(roll_call, "SILENT_AFTER_S", 2.0)
    conductor = await ready(context, fleet)

    def beaten_in_the_ramp_s() -> float:
        """Time by the other worker's beats, which come late where the machine is slow."""
        other = fleet.agents["worker-1"]
        return 0.2 * other.beats_since_order if len(other.orders) > 1 else 0.0

    monkeypatch.setattr(conductor.roll, "_beats", Beats(beaten_in_the_ramp_s))
    await conductor.run_phase(0)
    fleet.agents["worker-2"].silent = True
    await conductor.run_phase(1)
    record = await conductor.run_phase(2)
    assert record.slots == ["worker-1", ""]
    [lost] = record.lost
    assert (lost.worker, lost.phase) == ("worker-2", "01-ramp-up")
    # What the plan had it hold by then: its last heartbeat, from before the ramp, said 2.
    assert lost.connections == 4
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


async def test_the_load_ends_when_all_workers_are_gone(
    context: RunContext, fleet: FakeFleet
) -> None:
    """With no worker left the phase ends at once, is recorded so far, and says why."""
    conductor = await ready(lasting(context, sustained=60), fleet)
    running = asyncio.create_task(conductor.run_phase(2))
    await asyncio.gather(*(agent.has_order.wait() for agent in fleet.agents.values()))
    for name in context.workers:
        fleet.kill(name)
    with pytest.raises(FleetError, match="Every worker was lost by the end of 02-sustained"):
        await running
    record = record_of(context, "02-sustained")
    assert record.stopped_early == "every worker was lost"
    assert record.ended_us - record.started_us < 60e6
    assert record.edits_planned < 120


async def test_too_few_ready_workers_are_no_fleet(context: RunContext) -> None:
    """A worker that fails at its start is told with its own words."""
    fleet = FakeFleet(refuses={"worker-2": "there is no Chromium here"})
    with pytest.raises(FleetError, match=r"Only 1 of 2 .* there is no Chromium here"):
        await ready(context, fleet)
    await fleet.release(context)


async def test_nobody_is_blamed_while_the_store_is_away(
    context: RunContext, fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer for longer than a worker may be silent loses no worker."""
    monkeypatch.setattr(roll_call, "SILENT_AFTER_S", 3.0)
    with StoreServer(tmp_path / "s3") as server:
        context = lasting(replace(context, address=server.address), sustained=15)
        conductor = await ready(context, fleet)
        running = asyncio.create_task(conductor.run_phase(2))
        await asyncio.gather(*(agent.has_order.wait() for agent in fleet.agents.values()))
        # Their beats of before are all that is read until a look has seen the store again.
        for agent in fleet.agents.values():
            agent.silent = True
        await asyncio.to_thread(server.stop)
        # Not a wait for something: the length of the outage is what this test is about.
        await asyncio.sleep(2 * roll_call.SILENT_AFTER_S)
        await asyncio.to_thread(server.start)
        look = conductor.roll.look

        async def looks() -> None:
            await look()
            if not conductor.roll.is_blind:
                for agent in fleet.agents.values():
                    agent.silent = False

        monkeypatch.setattr(conductor.roll, "look", looks)
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


async def test_a_store_that_hangs_is_borne_by_the_clock(
    context: RunContext, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a phase what counts is the time that passed, however few looks that were."""
    monkeypatch.setattr(conductor_module, "STORE_AWAY_AT_MOST_S", 2.0)
    conductor = await ready(context, fleet)
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(1.0)
        conductor.roll.is_blind = True

    monkeypatch.setattr(conductor.roll, "look", look)
    with pytest.raises(FleetError, match="Every worker was lost"):
        await conductor.run_phase(0)
    # The phase lasts 1 s, and each further look takes one.
    assert looks <= 6
    reasons = [lost.reason for lost in conductor.roll.lost.values()]
    assert all(re.fullmatch(r"did not finish within \d+ s of .*", why) for why in reasons), reasons


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
