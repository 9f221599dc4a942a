from __future__ import annotations

import asyncio
import time

import pytest

from run_store.messages import Lease
from tasks.beats import CATCH_UP_S, PROMPT_S, Beats
from tasks.lease_keeper import LeaseKeeper
from tasks.run_context import RunContext
from tests.waiting import wait_for


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

    def stands_still() -> bool:
        # What was on its way to the store when the `with` ended may come there behind it.
        last = counter()
        time.sleep(0.5)
        return counter() == last

    assert await asyncio.to_thread(wait_for, stands_still)
