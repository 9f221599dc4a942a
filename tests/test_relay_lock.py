from __future__ import annotations

import asyncio
import contextlib
import platform
from types import SimpleNamespace

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from run_store.errors import DeadlineError, InterruptedRunError, StoreError
from run_store.layout import RunLayout, relay_claims
from run_store.messages import RelayClaim
from run_store.store import Store, StoreAddress
from tasks import prefect_slot as slots
from tasks import relay_lock
from tasks.beats import Beats
from tasks.local_services import free_port
from tasks.observation import showing
from tasks.relay_lock import RelayLock, ahead_of, free_relay, holder_of, relay_name
from tests.hearing import Hearing
from tests.waiting import wait_for

RELAY = "ws://127.0.0.1:8081/"
HERE = platform.node().lower()


def lock(
    store: Store,
    run_id: str,
    relay: str = RELAY,
    *,
    within_s: float = 60,
    expires_after_s: float = 60,
    every_s: float = 0.2,
) -> RelayLock:
    return RelayLock(
        store, relay, run_id, within_s=within_s, expires_after_s=expires_after_s, every_s=every_s
    )


def claim(token: str, number: int) -> RelayClaim:
    return RelayClaim(token=token, run_id=f"run-{token}", since_us=0, number=number)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("ws://localhost:8081/", f"{HERE}.loopback-8081"),
        ("ws://127.0.0.1:8081", f"{HERE}.loopback-8081"),
        ("ws://[::1]:8081", f"{HERE}.loopback-8081"),
        ("wss://Relay.Example/", "relay.example-443"),
        ("ws://relay.example/", "relay.example-80"),
        ("ws://[2001:db8::1]:9/", "2001.db8..1-9"),
    ],
)
def test_a_relay_has_one_name(url: str, name: str) -> None:
    """Host and port name a relay, however they are written."""
    assert relay_name(url) == name


@pytest.mark.parametrize(
    ("others", "ahead"),
    [
        ([], []),
        ([claim("a", 1)], ["a"]),  # a lower number
        ([claim("z", 3)], []),  # a higher one
        ([claim("a", 2)], ["a"]),  # the same, and its token is lower
        ([claim("z", 2)], []),  # the same, and ours is
        ([claim("z", 0)], ["z"]),  # still choosing: it may choose a lower one
        ([claim("z", 0), claim("b", 1)], ["b", "z"]),  # who holds it is named first
    ],
)
def test_who_comes_first(others: list[RelayClaim], ahead: list[str]) -> None:
    """The lowest number has the relay, and nobody goes ahead of one that is still choosing."""
    assert [one.token for one in ahead_of(claim("m", 2), others)] == ahead


async def test_runs_on_one_relay_take_turns(store_address: StoreAddress) -> None:
    """Of many runs only one at a time holds a relay, and those that wait are told which."""
    store, inside, most = Store(store_address), 0, 0
    turns = []
    told = Hearing()

    async def run(name: str) -> None:
        nonlocal inside, most
        async with lock(store, name):
            inside += 1
            most = max(most, inside)
            turns.append(name)
            # The first stays until somebody has been told of it.
            async with asyncio.timeout(60):
                while not any(f"run {turns[0]} is loading it" in text for text in told.steps):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.02)
            inside -= 1

    with showing(told):
        await asyncio.gather(*(run(f"run-{number}") for number in range(4)))
    assert most == 1
    assert sorted(turns) == [f"run-{number}" for number in range(4)]
    assert any(f"run {turns[0]} is loading it" in text for text in told.steps)
    assert store.keys(relay_claims(relay_name(RELAY))) == []


async def test_different_relays_side_by_side(store_address: StoreAddress) -> None:
    """Two relays are held at once."""
    store = Store(store_address)
    other = "ws://127.0.0.1:8082/"
    async with lock(store, "one"), lock(store, "two", other, within_s=0.1):
        held = [store.keys(relay_claims(relay_name(relay))) for relay in (RELAY, other)]
    assert [len(keys) for keys in held] == [1, 1]


async def test_a_dead_holder_loses_the_relay(store_address: StoreAddress) -> None:
    """A claim that nobody raises is put aside; one that is raised is not, however long."""
    store = Store(store_address)
    dead = claim("dead", 1)
    store.put_message(f"{relay_claims(relay_name(RELAY))}run-dead.dead.json", dead)
    alive = lock(store, "alive", expires_after_s=2)
    async with alive:
        alive._expires_after_s = 60  # noqa: SLF001 - it waits for the dead one no more
        late = lock(store, "late", within_s=3, expires_after_s=2)
        # Time by the holder's beats, which come late where the machine is slow.
        late._beats = Beats(lambda: 0.2 * alive._claim.counter)  # noqa: SLF001 - so does it
        with pytest.raises(DeadlineError, match="run alive holds it"):
            async with late:
                pass


async def test_a_claim_is_not_put_aside_for_a_slow_store(
    store_address: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a look had to wait for its answer is no silence of the holder's."""
    store, folder = Store(store_address), relay_claims(relay_name(RELAY))
    key = f"{folder}run-slow.slow.json"
    store.put_message(key, claim("slow", 1))
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(relay_lock, "time", clock)
    monkeypatch.setattr(relay_lock, "LOOK_EVERY_S", 0.05)
    late = lock(store, "late", expires_after_s=2, every_s=60)
    late._beats = Beats(clock.monotonic)  # noqa: SLF001 - by the same clock
    waiting = asyncio.create_task(late.__aenter__())
    look, looks = late._others, 0  # noqa: SLF001 - what the store answers, only later

    def answers_late() -> list[RelayClaim]:
        nonlocal looks
        looks += 1
        now[0] += 3.5 if looks == 3 else 1.0  # the first is to choose a number by
        return look()

    monkeypatch.setattr(late, "_others", answers_late)
    await asyncio.to_thread(wait_for, lambda: looks == 4)
    assert key in store.keys(folder)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_hook_frees_a_relay_at_once(store_address: StoreAddress) -> None:
    """What a dead run held is free as soon as somebody settles it; others' claims stay."""
    store, folder = Store(store_address), relay_claims(relay_name(RELAY))
    for one in (claim("a", 1), claim("b", 2)):
        store.put_message(f"{folder}{one.run_id}.{one.token}.json", one)
    free_relay(store, RELAY, "run-a")
    assert store.keys(folder) == [f"{folder}run-b.b.json"]


async def test_a_holder_learns_that_it_lost(store_address: StoreAddress) -> None:
    """A run whose claim was put aside while it stood still is told, and claims no more."""
    store, folder = Store(store_address), relay_claims(relay_name(RELAY))
    lost = asyncio.Event()
    async with lock(store, "paused") as held:
        held.on_lost(lambda _reason: lost.set())
        async with asyncio.timeout(60):
            while not lost.is_set():
                # One that is just being raised is written anew.
                store.delete(*store.keys(folder))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), 0.5)
        told: list[str] = []
        held.on_lost(told.append)
        assert told, "whoever asks too late is told at once"
        async with lock(store, "next", within_s=0.5):
            [key] = store.keys(folder)
            assert "next" in key


async def test_a_waiting_run_can_be_stopped(store_address: StoreAddress) -> None:
    """`relay-load stop` ends a run that waits for its turn, and its claim is gone."""
    store, folder = Store(store_address), relay_claims(relay_name(RELAY))
    store.put(RunLayout("waiting").stop, b"{}")
    async with lock(store, "first"):
        with pytest.raises(InterruptedRunError, match="asked to stop"):
            async with lock(store, "waiting"):
                pass
        assert len(store.keys(folder)) == 1
    # Nor does it take a turn that has come meanwhile.
    with pytest.raises(InterruptedRunError, match="asked to stop"):
        async with lock(store, "waiting"):
            pass
    assert store.keys(folder) == []


async def test_one_bad_answer_ends_no_waiting(
    store_address: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away for a moment is asked again, whatever it was asked for."""
    store, get, refusals = Store(store_address), Store.get, [1, 1]

    def sometimes(self: Store, key: str) -> bytes | None:
        if key == RunLayout("patient").stop and refusals:
            refusals.pop()
            raise StoreError("503")
        return get(self, key)

    monkeypatch.setattr(Store, "get", sometimes)
    async with lock(store, "patient"):
        assert not refusals


def test_the_holder_is_the_first_that_has_chosen(store_address: StoreAddress) -> None:
    """One that still chooses holds nothing yet; of a relay without claims nobody is named."""
    store, folder = Store(store_address), relay_claims(relay_name(RELAY))
    assert holder_of(store, RELAY) == ""
    for one in (claim("a", 0), claim("b", 2), claim("c", 1)):
        store.put_message(f"{folder}{one.run_id}.{one.token}.json", one)
    assert holder_of(store, RELAY) == "run-c"


async def test_a_prefect_that_is_away_holds_up_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bucket's lock is held all the same, and that Prefect's is not is logged."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    nowhere = {
        PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api",
        PREFECT_CLIENT_MAX_RETRIES: 0,
    }
    with temporary_settings(nowhere):
        async with slots.prefect_slot("relay-somewhere", within_s=1):
            pass
    assert "relay-somewhere is not held" in caplog.text


async def test_a_prefect_that_goes_away_meanwhile_takes_no_runs_end(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That the slot was not given back is logged, and what the run came to stands."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    nowhere = {
        PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api",
        PREFECT_CLIENT_MAX_RETRIES: 0,
    }
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        slot = slots.prefect_slot("relay-that-goes-away", within_s=60)
        await slot.__aenter__()
        with temporary_settings(nowhere):
            await slot.__aexit__(None, None, None)
    assert "relay-that-goes-away is not held" not in caplog.text
    assert "relay-that-goes-away is not given back" in caplog.text


async def test_deployed_runs_share_a_limit_of_prefect(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is made where it is missing, lets one in at a time, and is free afterwards."""
    monkeypatch.setattr(slots, "ASK_EVERY_S", 60.0)
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    name = f"relay-{relay_name(RELAY)}"
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        async with slots.prefect_slot(name, within_s=60):
            monkeypatch.setattr(slots, "ASK_EVERY_S", 1.0)
            with pytest.raises(DeadlineError, match=f"prefect gcl inspect {name}"):
                async with slots.prefect_slot(name, within_s=0.5):
                    pass

            async def nobody_wants_it() -> str:
                raise InterruptedRunError("asked to stop")

            with pytest.raises(InterruptedRunError):
                async with slots.prefect_slot(name, within_s=60, still_waits=nobody_wants_it):
                    pass

            asked = []

            async def who_has_it() -> str:
                asked.append(name)
                if len(asked) == 2:
                    raise InterruptedRunError("asked to stop")
                return "run-7"

            told = Hearing()
            with showing(told), pytest.raises(InterruptedRunError):
                async with slots.prefect_slot(name, within_s=60, still_waits=who_has_it):
                    pass
            assert told.steps == [f"waiting for a slot of Prefect's limit {name}: run run-7 has it"]
        monkeypatch.setattr(slots, "ASK_EVERY_S", 60.0)
        async with slots.prefect_slot(name, within_s=60), get_client() as client:
            limit = await client.read_global_concurrency_limit_by_name(name)
    assert (limit.limit, limit.active_slots) == (1, 1)
