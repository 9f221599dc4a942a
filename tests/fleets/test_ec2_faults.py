from __future__ import annotations

import asyncio
import dataclasses
import threading
from pathlib import Path

import pytest

from run_store.errors import FleetError
from run_store.store import StoreAddress
from tasks.deploy import start_agents
from tasks.fleets import ec2
from tasks.fleets.ec2 import Ec2Fleet
from tasks.fleets.ec2_ledger import Ledger
from tasks.fleets.ec2_resources import explained
from tasks.run_context import RunContext
from tests.fleets.emulated_ec2 import REGION, Account
from tests.fleets.ssh_hosts import make_key, needs_sshd, ssh_host
from tests.fleets.test_ec2 import context_of
from tests.waiting import wait_for

NO_CAPACITY = {
    "Instances": [],
    "Errors": [
        {"ErrorCode": "InsufficientInstanceCapacity", "ErrorMessage": "none in eu-north-1a"}
    ],
}


@pytest.fixture
def context(tmp_path: Path, account: Account, store_address: StoreAddress) -> RunContext:
    return context_of(tmp_path, account, store_address)


async def fails(context: RunContext, account: Account, match: str) -> FleetError:
    """Have a rental fail: it names its cause, ends with exit code 1, and leaves nothing."""
    with pytest.raises(FleetError, match=match) as failed:
        await Ec2Fleet().acquire(context)
    assert account.left() == []
    assert failed.value.exit_code == 1
    return failed.value


async def test_no_credentials(
    context: RunContext, account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without credentials the error says so, and what to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    error = await fails(context, account, "no AWS credentials")
    assert "AWS_PROFILE" in error.hint


@pytest.mark.parametrize(
    "call",
    [
        "DescribeSubnets",
        "ImportKeyPair",
        "CreateSecurityGroup",
        "AuthorizeSecurityGroupIngress",
        "CreateLaunchTemplate",
        "CreateFleet",
    ],
)
async def test_a_denied_call_names_its_permission(
    context: RunContext, account: Account, call: str
) -> None:
    """A call that the account does not allow is named, and what was made before it goes."""
    account.refuse(call, "UnauthorizedOperation")
    error = await fails(context, account, f"ec2:{call}: UnauthorizedOperation")
    assert f"Allow ec2:{call}" in error.hint


async def test_no_spot_capacity_falls_to_on_demand(context: RunContext, account: Account) -> None:
    """What no spot pool gives is rented on demand."""
    account.answer("CreateFleet", NO_CAPACITY)
    try:
        assert len(await Ec2Fleet().acquire(context)) == 2
    finally:
        assert await Ec2Fleet().release(context) == []
    assert account.left() == []


async def test_no_spot_capacity_is_said(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """Where on-demand machines are not allowed, the error has EC2's reason and says what would."""
    context = context_of(tmp_path, account, store_address, on_demand_fallback=False)
    account.answer("CreateFleet", NO_CAPACITY)
    error = await fails(context, account, "InsufficientInstanceCapacity: none in eu-north-1a")
    assert "on_demand_fallback" in error.hint


async def test_machines_that_are_not_described_yet(context: RunContext, account: Account) -> None:
    """Machines that EC2 has made and does not know yet are looked for again."""
    account.refuse_first("DescribeInstances", "InvalidInstanceID.NotFound", times=2)
    try:
        assert len(await Ec2Fleet().acquire(context)) == 2
    finally:
        assert await Ec2Fleet().release(context) == []
    assert account.left() == []


async def test_what_cannot_be_described_is_removed_by_its_record(
    context: RunContext, account: Account
) -> None:
    """Without leave to look, the release ends the machines that it knows of, and says why."""
    assert len(await Ec2Fleet().acquire(context)) == 2
    account.refuse("DescribeInstances", "UnauthorizedOperation")
    with pytest.raises(FleetError, match="ec2:DescribeInstances"):
        await Ec2Fleet().release(context)
    account.answers.clear()
    assert not [one for one in account.left() if one.startswith("i-")]
    assert await Ec2Fleet().release(context) == []
    assert account.left() == []


async def test_quota_is_said(context: RunContext, account: Account) -> None:
    """A quota of vCPUs that is used up, in both markets, is named with its remedy."""
    account.refuse("CreateFleet", "VcpuLimitExceeded", "your vCPU limit of 8")
    error = await fails(context, account, "your vCPU limit of 8")
    assert "Service Quotas" in error.hint


async def test_half_of_the_machines_is_too_few(context: RunContext, account: Account) -> None:
    """A rental that gives fewer than `min_healthy` goes back at once."""
    account.fewer(1)
    error = await fails(context, account, "Only 1 of 2 machines came up")
    assert "fleet.min_healthy" in error.hint


async def test_a_region_without_the_image(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """An image that the region has not is named, whether it was looked up or given."""
    nowhere = context_of(tmp_path, account, store_address, image="")
    error = await fails(nowhere, account, r"look up the image .*ubuntu.* in eu-north-1 \(ssm:")
    assert "fleet.image" in error.hint
    other = context_of(tmp_path, account, store_address, image="ami-0123456789abcdef0")
    error = await fails(other, account, "image ami-0123456789abcdef0 in eu-north-1")
    assert "fleet.image" in error.hint


async def test_two_runs_in_one_account(
    tmp_path: Path, context: RunContext, account: Account, store_address: StoreAddress
) -> None:
    """What one of two runs gives back is its own, and only that."""
    other = context_of(tmp_path, account, store_address, run_id="another-run")
    mine, theirs = await Ec2Fleet().acquire(context), await Ec2Fleet().acquire(other)
    away = tmp_path / "elsewhere"
    assert await Ec2Fleet().release(dataclasses.replace(context, folder=away)) == []
    left = account.left()
    assert not {worker.details["instance"] for worker in mine} & set(left)
    assert {worker.details["instance"] for worker in theirs} <= set(left)
    assert len(left) == len(theirs) + 3  # their template, key pair and group
    assert await Ec2Fleet().release(dataclasses.replace(other, folder=away)) == []
    assert account.left() == []


async def test_a_machine_that_never_opens_port_22(
    context: RunContext, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that cannot be reached are given up in time, each with its reason."""
    monkeypatch.setattr(ec2, "SSH_WITHIN_S", 0.3)
    workers = await Ec2Fleet().acquire(context)
    try:
        with pytest.raises(FleetError, match=r"Only 0 of 2 .* cannot be reached by SSH"):
            await start_agents(context, workers)
    finally:
        assert await Ec2Fleet().release(context) == []
    assert account.left() == []


@needs_sshd
@pytest.mark.parametrize("in_haste", [False, True])
async def test_a_cancelled_run_does_not_wait_for_agents(
    context: RunContext, account: Account, monkeypatch: pytest.MonkeyPatch, *, in_haste: bool
) -> None:
    """A machine whose agent lets nobody in is ended within the time that haste allows."""
    waited = []

    async def hangs(*_: object) -> str:
        """Stand for a host that answers and never ends."""
        try:
            await asyncio.sleep(60)
        finally:
            waited.append(True)
        return ""

    monkeypatch.setattr(ec2, "STOP_IN_HASTE_WITHIN_S", 0.2)
    monkeypatch.setattr(ec2, "GONE_IN_HASTE_WITHIN_S", 60.0)
    monkeypatch.setattr(ec2, "STOP_WITHIN_S", 0.3 if not in_haste else 600.0)
    monkeypatch.setattr(Ec2Fleet, "_release", hangs)
    await Ec2Fleet().acquire(context)
    async with asyncio.timeout(50):
        assert await Ec2Fleet().release(dataclasses.replace(context, in_haste=in_haste)) == []
    assert waited
    assert account.left() == []


async def test_nothing_is_rented_behind_a_cancellation(
    context: RunContext, account: Account
) -> None:
    """A call that hangs as the run is cancelled is waited for, and no further one is made."""
    asked, goes_on = threading.Event(), threading.Event()

    def hangs(name: str) -> None:
        if name == "DescribeSubnets":
            asked.set()
            goes_on.wait(120)

    account.answers.append(hangs)
    renting = asyncio.create_task(Ec2Fleet().acquire(context))
    await asyncio.to_thread(wait_for, asked.is_set)
    renting.cancel()
    await asyncio.wait([renting], timeout=0.5)
    assert not renting.done(), "what still runs may create something"
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await renting
    assert not account.calls & {"ec2:ImportKeyPair", "ec2:CreateSecurityGroup", "ec2:CreateFleet"}
    assert account.left() == []


async def test_a_duplicate_may_be_our_own(
    tmp_path: Path, context: RunContext, account: Account
) -> None:
    """A call that made something, and whose answer was lost, is refused when it is tried again."""
    ledger = Ledger(context.store(), context.run_id, 1, REGION)
    given = {"KeyName": "ours", "PublicKeyMaterial": make_key(tmp_path / "key").encode()}
    account.client.import_key_pair(**given)
    with (
        pytest.raises(FleetError, match="already exists"),
        ledger.asking("ImportKeyPair", "ours"),
        explained("import the run's key pair"),
    ):
        account.client.import_key_pair(**given)
    [asked] = ledger.entries()
    assert (asked.call, asked.answered) == ("ImportKeyPair", False)


@needs_sshd
async def test_a_wrong_host_key_is_refused(
    tmp_path: Path, context: RunContext, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that shows another key than it was given is never logged in to."""
    monkeypatch.setattr(ec2, "SSH_WITHIN_S", 0.3)
    workers = await Ec2Fleet().acquire(context)
    key = tmp_path / "impostor"
    public = make_key(key)
    address = workers[0].where.partition("@")[2].rpartition(":")[0]
    try:
        with (
            ssh_host(tmp_path / "host", address, user_key=public, port=22),
            pytest.raises(FleetError, match=r"host key of .* is not trusted"),
        ):
            await start_agents(context, workers)
    finally:
        assert await Ec2Fleet().release(context) == []
    assert account.left() == []
