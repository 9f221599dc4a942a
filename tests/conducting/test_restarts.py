from __future__ import annotations

from run_store.histogram import Histogram
from run_store.messages import Counts, Status
from tasks.readings import reading_of
from tasks.roll_call import RollCall
from tasks.run_context import RunContext
from tests.fake_fleet import FakeFleet


def status(context: RunContext, began_us: int, beat: int, completed: int, slow: int) -> Status:
    latencies = Histogram()
    latencies.add(20.0, completed - slow)
    latencies.add(2000.0, slow)
    return Status(
        worker="worker-1",
        attempt=context.attempt,
        beat=beat,
        at_us=began_us + beat,
        began_us=began_us,
        state="running",
        counts=Counts(edits_offered=completed, edits_completed=completed, deliveries=1.5),
        delivery=latencies,
    )


async def test_an_agent_that_is_restarted_counts_on_from_the_one_before(
    context: RunContext, fleet: FakeFleet
) -> None:
    """The worker's sums do not fall by it: what lies between two looks is what happened."""
    workers = await fleet.acquire(context)
    for worker in workers:
        await fleet.deploy(context, worker)
        fleet.agents[worker.name].silent = True
    roll = RollCall(context, fleet, workers)
    store, key = context.store(), context.layout.status(context.attempt, "worker-1")
    completed, deliveries, beyond_1s = [], [], []
    told = (
        status(context, 1, 50, completed=100, slow=2),
        status(context, 1, 51, completed=110, slow=2),
        status(context, 2, 1, completed=0, slow=0),
        status(context, 2, 9, completed=7, slow=1),
        # And once more.
        status(context, 3, 2, completed=3, slow=0),
    )
    for one in told:
        store.put_message(key, one)
        await roll.look()
        reading = reading_of(roll.statuses, alive=roll.alive, at_us=0, target=0)
        completed.append(reading.completed)
        deliveries.append(roll.statuses["worker-1"].counts.deliveries)
        beyond_1s.append(reading.delivery.above(1000))
    assert completed == [100, 110, 110, 117, 120]
    assert deliveries == [1.5, 1.5, 3.0, 3.0, 4.5]
    assert beyond_1s == [2, 2, 2, 3, 3]
    assert roll.restarted == {"worker-1": 2}
    assert not roll.lost
