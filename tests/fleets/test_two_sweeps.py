from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.sweep import find_leftovers, remove_leftovers, running_by_lease
from run_store.layout import RunLayout
from run_store.messages import Lease
from run_store.store import Store, StoreAddress
from tasks import owed
from tasks.fleets.ec2 import Ec2Fleet
from tasks.owed import make_owed_reports, quiet_s
from tests.fleets.emulated_ec2 import REGION, Account
from tests.fleets.test_ec2 import context_of
from tests.test_owed import has_report, put_run, record_of
from tests.waiting import wait_for

DEAD = ["dead-one", "dead-two", "dead-three"]
"""The first of them has machines."""
QUIET_S = 10.0
"""The store tells ages in whole seconds."""


@contextlib.contextmanager
def kept_alive(store: Store, run_id: str) -> Iterator[None]:
    """Raise a run's lease for as long as the `with`, as its orchestrator does."""
    ended = threading.Event()
    key = RunLayout(run_id).lease(1)

    def put(counter: int) -> None:
        store.put_message(key, Lease(counter=counter, every_s=2, expires_after_s=30))

    def raise_it() -> None:
        counter = 1
        while not ended.wait(0.02):
            put(counter := counter + 1)

    put(1)
    thread = threading.Thread(target=raise_it)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def test_two_sweeps_and_a_release_at_the_same_time(
    tmp_path: Path, account: Account, store_address: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them fails, a living run keeps all, and no report is made by two."""
    store = Store(store_address)
    monkeypatch.setattr(owed, "QUIET_FOR_S", QUIET_S)
    rents = [
        context_of(tmp_path, account, store_address, run_id=run_id)
        for run_id in (DEAD[0], "living")
    ]
    for context in rents:
        await Ec2Fleet().acquire(context)
    for run_id in DEAD:
        put_run(store, run_id)
        store.put_message(
            RunLayout(run_id).lease(1), Lease(counter=1, every_s=2, expires_after_s=30)
        )
    put_run(store, "living")
    all_at_once = threading.Barrier(3)

    def sweep(name: str) -> list[str]:
        all_at_once.wait(120)
        is_running = running_by_lease(store, watch_s=5.0)
        found = find_leftovers([REGION], is_running=is_running)
        assert {one.resource.run_id for one in found} <= {DEAD[0]}
        assert remove_leftovers(found, within_s=60) == []
        return make_owed_reports(store, tmp_path / name)

    def release() -> list[str]:
        all_at_once.wait(120)
        elsewhere = dataclasses.replace(rents[0], folder=tmp_path / "elsewhere")
        return asyncio.run(Ec2Fleet().release(elsewhere))

    with kept_alive(store, "living"):
        dead = [record_of(store, run_id) for run_id in DEAD]
        await asyncio.to_thread(
            wait_for, lambda: all(quiet_s(store, record) > QUIET_S for record in dead)
        )
        first, second, left = await asyncio.gather(
            asyncio.to_thread(sweep, "first"),
            asyncio.to_thread(sweep, "second"),
            asyncio.to_thread(release),
        )
        # Two that claim a report in the same instant both go away: the next sweep makes it.
        later: list[str] = []

        def all_are_made() -> bool:
            later.extend(make_owed_reports(store, tmp_path / "next"))
            return all(has_report(store, run_id) for run_id in DEAD)

        await asyncio.to_thread(wait_for, all_are_made, within_s=60)
    assert left == []
    assert sorted([*first, *second, *later]) == sorted(DEAD), "each report is made once"
    assert not has_report(store, "living")
    assert record_of(store, "living").state == "running"
    assert {record_of(store, run_id).state for run_id in DEAD} == {"failed"}
    kept = [one for one in account.left() if one.startswith("i-")]
    assert len(kept) == len(rents[1].workers)
    assert len(account.left()) == len(kept) + 3  # their template, key pair and group
    assert await Ec2Fleet().release(dataclasses.replace(rents[1], folder=tmp_path / "away")) == []
    assert account.left() == []
