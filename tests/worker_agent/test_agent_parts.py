import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from run_store.layout import RunLayout
from run_store.messages import Lease, Line, Order, PhaseDone, PhaseRef, Status
from tests.store_server import StoreServer
from worker_agent.clock import RunClock
from worker_agent.heartbeat import Heartbeat
from worker_agent.orders import OrderFeed
from worker_agent.power import power_off
from worker_agent.progress import Progress

PHASE = PhaseRef(index=0, name="a", kind="sustained")


def order(number: int, starts_at_us: int = 0, duration_s: float = 10.0) -> Order:
    return Order(
        number=number,
        attempt=1,
        action="run",
        starts_at_us=starts_at_us,
        duration_s=duration_s,
        phase=PHASE,
        connections=Line(start=0, end=1),
    )


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """Give the keys of a run of the test's own."""
    return RunLayout(tmp_path.name)


async def test_orders_come_by_number_and_are_caught_up(
    server: StoreServer, layout: RunLayout
) -> None:
    """All orders that are there are read from the first on; the next is given when it comes."""
    store = server.store()
    for number in (1, 2):
        store.put_message(layout.order(1, number), order(number))
    feed = OrderFeed(store, layout, 1, poll_s=0.02)
    polling = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(60):
            await feed.caught_up.wait()
            assert sorted(feed.orders) == [1, 2]
            third = asyncio.create_task(feed.order(3))
            store.put_message(layout.order(1, 4), order(4))
            store.put_message(layout.order(1, 3), order(3))
            assert (await third).number == 3
            assert (await feed.order(4)).number == 4
            # A retried task writes an order again: nothing happens twice.
            store.put_message(layout.order(1, 3), order(3, starts_at_us=99))
            store.put_message(layout.order(1, 5), order(5))
            await feed.order(5)
            assert feed.orders[3].starts_at_us == 0
    finally:
        polling.cancel()


async def test_another_attempts_orders_are_not_ours(server: StoreServer, layout: RunLayout) -> None:
    """An agent obeys one attempt only."""
    server.store().put_message(layout.order(2, 1), order(1))
    feed = OrderFeed(server.store(), layout, 1, poll_s=0.02)
    polling = asyncio.create_task(feed.run())
    async with asyncio.timeout(60):
        await feed.caught_up.wait()
    polling.cancel()
    assert feed.orders == {}


async def test_a_store_that_is_away_is_silence_and_no_more(tmp_path: Path) -> None:
    """While S3 is away nothing ends, and time goes on; orders come when it is back."""
    with StoreServer(tmp_path / "s3") as own:
        layout = RunLayout("r-1")
        feed = OrderFeed(own.store(timeout_s=20, tries=1), layout, 1, poll_s=0.02)
        own.store().put_message(layout.lease(1), Lease(counter=1, every_s=1, expires_after_s=0.2))
        own.stop()
        polling = asyncio.create_task(feed.run())
        try:
            async with asyncio.timeout(60):
                while feed.silent_s < 0.5:  # noqa: ASYNC110 - time has to pass
                    await asyncio.sleep(0.02)
                assert not feed.lease.is_over
                assert not feed.caught_up.is_set()
                await asyncio.to_thread(own.start)
                own.store().put_message(layout.order(1, 1), order(1))
                await feed.order(1)
                while feed.silent_s > 0.3:  # noqa: ASYNC110 - a property announces nothing
                    await asyncio.sleep(0.02)
                # Now it answers, and the counter stands still.
                while not feed.lease.is_over:  # noqa: ASYNC110 - a property announces nothing
                    await asyncio.sleep(0.02)
        finally:
            polling.cancel()


async def test_nonsense_in_place_of_an_order_ends_nothing(
    server: StoreServer, layout: RunLayout
) -> None:
    """An object that is no order is looked at again until it is one."""
    server.store().put(layout.order(1, 1), b"{half")
    feed = OrderFeed(server.store(), layout, 1, poll_s=0.02)
    polling = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(60):
            waiting = asyncio.create_task(feed.order(1))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            server.store().put_message(layout.order(1, 1), order(1))
            assert (await waiting).number == 1
    finally:
        polling.cancel()


@pytest.mark.parametrize(
    ("following", "now_us", "over", "why"),
    [
        (None, 5_000_000, False, "in its time"),
        (None, -1, False, "before its time"),
        (None, 10_000_000, True, "after its time"),
        (order(2, 20_000_000), 5_000_000, False, "the next one's time has not come"),
        (order(2, 4_000_000), 5_000_000, True, "the next one has taken its place"),
        (order(2, 4_000_000), 3_000_000, False, "the next one will, and has not yet"),
        (Order(number=2, attempt=1, action="stop", starts_at_us=0), 1, True, "stopped"),
    ],
)
def test_when_an_order_is_over(
    server: StoreServer, following: Order | None, now_us: int, over: bool, why: str
) -> None:
    """An order is over at its end, or as soon as the next one's instant has come."""
    feed = OrderFeed(server.store(), RunLayout("r-1"), 1, poll_s=1)
    feed.orders = {1: order(1)} | ({2: following} if following else {})
    assert feed.is_over(feed.orders[1], now_us) is over, why


async def test_heartbeats_never_overtake_each_other(server: StoreServer, layout: RunLayout) -> None:
    """However many beats are asked for at once, the newest is what stands in the bucket."""
    status = Status(worker="w", attempt=1, beat=0, at_us=0, state="starting")
    key = layout.status(1, "w")

    def fill(status: Status) -> None:
        status.at_us += 1

    heartbeat = Heartbeat(store=server.store(), key=key, status=status, fill=fill, every_s=0.01)
    beating = asyncio.create_task(heartbeat.run())
    for _ in range(5):
        await asyncio.gather(*(heartbeat.beat() for _ in range(8)))
        seen = server.store().get_message(key, Status)
        assert seen is not None
        assert seen.beat >= status.beat - 1
        assert seen.at_us == seen.beat
    heartbeat.end()
    async with asyncio.timeout(60):
        await beating
    status.state = "stopped"
    await heartbeat.beat()
    last = server.store().get_message(key, Status)
    assert last is not None
    assert (last.state, last.beat) == ("stopped", status.beat)


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    """What an agent had begun and done is known to the next; a file that is none means nothing."""
    path = tmp_path / "progress.json"
    assert Progress.from_file(path) == Progress()
    done = PhaseDone(phase="00-a", order=1, parts={"edits": 3})
    progress = Progress(begun=[1, 2], done=[done])
    progress.to_file(path)
    assert Progress.from_file(path) == progress
    assert progress.is_done(1)
    assert not progress.is_done(2)
    path.write_text("{half", encoding="utf-8")
    assert Progress.from_file(path) == Progress()


def test_a_clock_step_moves_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once anchored the run's clock counts on the monotonic one, whatever the wall clock does."""
    clock = RunClock()
    before = clock.now_us()
    assert before == pytest.approx(time.time() * 1e6, abs=10_000_000)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 5_000_000_000)
    monkeypatch.setattr(time, "time", lambda: real() / 1e9 + 5)
    assert 0 <= clock.now_us() - before < 4_000_000


async def test_sleeping_until_the_past_is_no_sleep() -> None:
    """An instant that has passed is waited for no longer, one ahead no shorter than it takes."""
    clock = RunClock()
    await asyncio.wait_for(clock.sleep_until(clock.now_us() - 10**9), 60)
    ahead = clock.now_us() + 50_000
    await clock.sleep_until(ahead)
    assert clock.now_us() >= ahead - 1000


@pytest.mark.parametrize(
    ("commands", "called", "worked"),
    [
        ({"systemctl": 0, "shutdown": 0}, ["systemctl poweroff"], True),
        ({"systemctl": 1, "shutdown": 0}, ["systemctl poweroff", "shutdown -h now"], True),
        ({"poweroff": 0}, ["poweroff"], True),
        ({"shutdown": 1}, ["shutdown -h now"], False),
        ({}, [], False),
    ],
)
def test_powering_off_asks_the_system(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: dict[str, int],
    called: list[str],
    worked: bool,
) -> None:
    """The commands that a system has are tried one after another until one takes the request."""
    log = tmp_path / "log"
    for name, code in commands.items():
        stand_in = tmp_path / name
        stand_in.write_text(
            f'#!/bin/sh\necho "{name} $@" >> {log}\nexit {code}\n', encoding="utf-8"
        )
        stand_in.chmod(0o755)
    # Nothing but the stand-ins can be found: the real commands would do it.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert power_off() is worked
    said: list[str] = []
    with suppress(FileNotFoundError):
        said = [line.strip() for line in log.read_text(encoding="utf-8").splitlines()]
    assert said == called
