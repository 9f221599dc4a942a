from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from run_store.store import StoreAddress
from tasks.fleets import ec2, ec2_ledger
from tasks.fleets.ec2 import Ec2Fleet
from tasks.fleets.ec2_ledger import SETTLES_WITHIN_S, Asked, may_appear
from tasks.run_context import RunContext
from tests.fleets.emulated_ec2 import Account
from tests.fleets.test_ec2 import context_of

LOOKS = 5
"""Many more than two empty ones, which are what a release wants to see of what it knows."""
UNKNOWN = "InvalidInstanceID.NotFound"
NOW_S = 1_000_000.0
OLD_S, NEW_S = NOW_S - SETTLES_WITHIN_S - 1, NOW_S - SETTLES_WITHIN_S + 1


@pytest.fixture
def context(tmp_path: Path, account: Account, store_address: StoreAddress) -> RunContext:
    return context_of(tmp_path, account, store_address)


def hide(account: Account, *, looks: int) -> None:
    """Have EC2 neither list nor know machines for so many looks."""
    account.answer("DescribeInstances", {"Reservations": []}, times=looks)
    account.refuse_first("TerminateInstances", UNKNOWN, times=2 * looks)


def forget_answer(context: RunContext) -> None:
    """Leave of CreateFleet what a process leaves that is killed before EC2's answer comes."""
    store = context.store()
    (key,) = (key for key in store.keys(context.layout.root) if key.endswith("-CreateFleet.json"))
    asked = store.get_message(key, Asked)
    assert asked is not None
    left = asked.model_copy(
        update={"answered": False, "resources": [], "asked_us": time.time_ns() // 1000}
    )
    store.put(key, left.model_dump_json().encode())


def asked(at_s: float, *ids: str, answered: bool = True, settled: bool = False) -> Asked:
    return Asked(
        number=1,
        attempt=1,
        call="CreateFleet",
        token="t",
        region="r",
        asked_us=round(at_s * 1e6),
        answered=answered,
        settled=settled,
        resources=[{"kind": "instance", "id": one} for one in ids],
    )


@pytest.mark.parametrize(
    ("entry", "seen", "expected"),
    [
        pytest.param(asked(NEW_S, "i-1"), {"i-1"}, [], id="new and seen"),
        pytest.param(asked(NEW_S, "i-1"), set(), ["instance i-1"], id="new and never seen"),
        pytest.param(asked(NEW_S, "i-1", "i-2"), {"i-1"}, ["instance i-2"], id="one of two"),
        pytest.param(asked(OLD_S, "i-1"), set(), [], id="it had its time to appear"),
        pytest.param(asked(NEW_S, "i-1", settled=True), set(), [], id="another has seen it"),
        pytest.param(asked(NEW_S), set(), [], id="EC2 said that it gives none"),
        pytest.param(
            asked(NEW_S, answered=False),
            set(),
            ["what CreateFleet may have made"],
            id="nobody knows what came of it",
        ),
        pytest.param(asked(OLD_S, answered=False), set(), [], id="nobody will ever know"),
        pytest.param(asked(NOW_S + 5, "i-1"), set(), ["instance i-1"], id="its clock is ahead"),
        pytest.param(asked(0, "i-1"), set(), [], id="a record without a time"),
    ],
)
def test_what_may_appear(entry: Asked, seen: set[str], expected: list[str]) -> None:
    """What was asked for lately may be there until it was seen or its time is over."""
    assert may_appear([entry], seen, now_s=NOW_S) == expected


async def test_machines_that_ec2_does_not_know_for_long_go_all_the_same(
    context: RunContext, account: Account
) -> None:
    """NotFound of what was just rented means not yet: the release stays until they are gone."""
    await Ec2Fleet().acquire(context)
    hide(account, looks=LOOKS)
    assert await Ec2Fleet().release(context) == []
    assert account.left() == []


async def test_machines_of_which_no_answer_came_are_looked_for(
    context: RunContext, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that died while EC2 was renting knows no ids: its machines are found by tag."""
    await Ec2Fleet().acquire(context)
    forget_answer(context)
    monkeypatch.setattr(ec2_ledger, "SETTLES_WITHIN_S", 20.0)
    hide(account, looks=4)
    assert await Ec2Fleet().release(context) == []
    assert account.left() == []


async def test_what_never_appears_is_waited_for_no_longer_than_its_time(
    context: RunContext, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that EC2 does not know when its time to appear is over is not there."""
    monkeypatch.setattr(ec2_ledger, "SETTLES_WITHIN_S", 2.0)
    await Ec2Fleet().acquire(context)
    hide(account, looks=1000)
    async with asyncio.timeout(60):
        assert await Ec2Fleet().release(context) == []


async def test_a_cancelled_run_asks_and_leaves_the_looking_to_its_hook(
    context: RunContext, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In haste nobody waits for a machine to appear; a second release, not in haste, does."""
    monkeypatch.setattr(ec2, "GONE_IN_HASTE_WITHIN_S", 0.3)
    workers = await Ec2Fleet().acquire(context)
    hide(account, looks=LOOKS)
    left = await Ec2Fleet().release(dataclasses.replace(context, in_haste=True))
    assert {f"instance {worker.details['instance']}" for worker in workers} <= set(left)
    assert await Ec2Fleet().release(context) == []
    assert account.left() == []


@pytest.mark.parametrize(
    ("status", "is_answered"), [(400, True), (503, False)], ids=["refused", "no answer"]
)
async def test_a_refusal_is_an_answer_and_an_error_of_ec2s_is_none(
    context: RunContext, account: Account, *, status: int, is_answered: bool
) -> None:
    """After a 4xx nothing was made; after a 5xx nobody knows, and it is looked for."""
    told: dict[str, Any] = {
        "Error": {"Code": "Some", "Message": "as the test wants"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    account.refuse("CreateFleet", "Some")
    kind = type(account.answers.pop()("CreateFleet")[0])  # type: ignore[index]  # it answers that
    account.answers.append(lambda name: (kind(status), told) if name == "CreateFleet" else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ec2_ledger, "SETTLES_WITHIN_S", 0.0)
        with pytest.raises(Exception, match="ec2:CreateFleet: Some"):
            await Ec2Fleet().acquire(context)
    store = context.store()
    keys = [key for key in store.keys(context.layout.root) if key.endswith("-CreateFleet.json")]
    bodies = [json.loads(store.get(key) or b"{}") for key in keys]
    assert [body["answered"] for body in bodies] == [is_answered]
    assert account.left() == []
