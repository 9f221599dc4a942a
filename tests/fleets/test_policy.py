from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from flows.sweep import find_leftovers, regions_of
from run_store.errors import FleetError
from run_store.store import StoreAddress
from tasks.fleets.ec2 import Ec2Fleet
from tasks.fleets.ec2_checks import account_checks
from tasks.fleets.ec2_prices import spot_usd_per_hour
from tasks.fleets.ec2_resources import ec2_client
from tasks.fleets.worker_access import access_of
from tasks.local_services import local_store
from tests.fleets.emulated_ec2 import REGION, Account
from tests.fleets.test_ec2 import context_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "aws.md"
NAMED_OTHERWISE = {"s3:ListObjectsV2": "s3:ListBucket"}
"""Calls whose permission has a name of its own."""
ASKED_BY_EC2 = {
    "ec2:RunInstances",  # inside CreateFleet
    "ec2:CreateTags",  # for tags that are given at creation
    "iam:PassRole",  # for an instance profile in the launch template
}


def documented_actions() -> set[str]:
    match = re.search(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    actions: set[str] = set()
    for statement in json.loads(match[1])["Statement"]:
        named = statement["Action"]
        actions |= {named} if isinstance(named, str) else set(named)
    return actions


async def test_policy_is_what_the_code_calls(tmp_path: Path, account: Account) -> None:
    """The documented policy allows every call that is made, and none that never is."""
    with local_store(tmp_path / "results") as address:
        context = context_of(tmp_path, account, address)
        fleet = context.scenario.fleet.model_copy(update={"image": ""})
        scenario = context.scenario.model_copy(update={"fleet": fleet})
        # The emulator has no public image of that name; it was asked for.
        with pytest.raises(FleetError, match="look up the image"):
            await Ec2Fleet().acquire(dataclasses.replace(context, scenario=scenario))
        relays = account.client.create_security_group(GroupName="relay", Description="x")["GroupId"]
        opening = fleet.model_copy(
            update={"image": context.scenario.fleet.image, "relay_security_group": relays}
        )
        scenario = context.scenario.model_copy(update={"fleet": opening})
        context = dataclasses.replace(context, scenario=scenario)
        await Ec2Fleet().acquire(context)
        store = StoreAddress(bucket="a-bucket")
        for role in ("arn:aws:iam::123456789012:role/workers", ""):
            asking = fleet.model_copy(update={"worker_role": role})
            scenario = context.scenario.model_copy(update={"fleet": asking})
            workers = dataclasses.replace(context, scenario=scenario, address=store)
            assert await access_of(workers).next_for("worker-1") is not None
        assert find_leftovers([REGION]) == []
        assert REGION in regions_of("all")
        spot_usd_per_hour(ec2_client(REGION), fleet.instance_types)
        assert list(account_checks(context.scenario.fleet))
        elsewhere = dataclasses.replace(context, folder=tmp_path / "elsewhere")
        assert await Ec2Fleet().release(elsewhere) == []
    store_calls = {call for call in account.calls if call.startswith("s3:")}
    documented = documented_actions()
    of_store = {action for action in documented if action.startswith("s3:")}
    assert documented - of_store == (account.calls - store_calls) | ASKED_BY_EC2
    assert of_store >= {NAMED_OTHERWISE.get(call, call) for call in store_calls}
