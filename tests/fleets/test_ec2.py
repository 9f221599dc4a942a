from __future__ import annotations

import dataclasses
import stat
from pathlib import Path
from typing import Any

import pytest

from run_store.errors import FleetError, UsageError
from run_store.store import StoreAddress
from scenarios.loading import load_scenario
from scenarios.model import FleetSpec
from tasks.fleets.ec2 import Ec2Fleet
from tasks.fleets.ec2_ledger import Ledger
from tasks.fleets.ec2_machines import addresses
from tasks.fleets.ec2_network import relay_from_within, ssh_cidr
from tasks.fleets.remote import Host
from tasks.observation import showing
from tasks.run_context import RunContext
from tests.fleets.emulated_ec2 import Account
from tests.hearing import Hearing


def context_of(
    folder: Path,
    account: Account,
    address: StoreAddress,
    relay: str = "ws://127.0.0.1:9/",
    run_id: str = "ec2-run",
    **fleet: object,
) -> RunContext:
    scenario = load_scenario(
        "baseline",
        {
            "connections": 10,
            "phases.warmup.duration": "2s",
            "phases.warmup.connections": 4,
            "phases.ramp-up.duration": "2s",
            "phases.sustained.duration": "4s",
            "phases.cooldown.duration": "1s",
            **account.fleet(),
            "fleet": fleet,
        },
    )
    return RunContext(
        run_id=run_id,
        attempt=1,
        scenario=scenario,
        relay_url=relay,
        has_metrics=True,
        address=address,
        folder=folder / "results" / run_id,
        fleet="ec2",
    )


async def test_what_is_rented_is_private_tagged_and_given_back(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """Everything bears the run's tags, is closed to others, and is gone after the release."""
    context = context_of(tmp_path, account, store_address)
    workers = await Ec2Fleet().acquire(context)
    try:
        assert [worker.name for worker in workers] == ["worker-1", "worker-2"]
        keys = context.folder / "attempt-1" / "ec2"
        assert {stat.S_IMODE(key.stat().st_mode) for key in keys.iterdir()} == {0o600}
        ec2 = account.client
        (group,) = (g for g in ec2.describe_security_groups()["SecurityGroups"] if g.get("Tags"))
        (rule,) = group["IpPermissions"]
        assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
        assert [r["CidrIp"] for r in rule["IpRanges"]] == ["203.0.113.7/32"]
        template = ec2.describe_launch_templates()["LaunchTemplates"][0]
        (version,) = ec2.describe_launch_template_versions(
            LaunchTemplateId=template["LaunchTemplateId"]
        )["LaunchTemplateVersions"]
        data = version["LaunchTemplateData"]
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
        assert next(iter(account.user_data())) == "bootcmd"
        tags = {tag["Key"] for tag in group["Tags"]}
        assert tags >= {f"relay-load:{n}" for n in ("run", "attempt", "expires-at", "owner")}
        # The keys' folder is away, as it is for another process on another machine.
        elsewhere = dataclasses.replace(context, folder=tmp_path / "elsewhere")
        assert await Ec2Fleet().release(elsewhere) == []
    finally:
        await Ec2Fleet().release(dataclasses.replace(context, folder=tmp_path / "elsewhere"))
    assert account.left() == []


async def test_machines_may_have_private_addresses_only(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """Such machines are given no public address, and are reached by their private one."""
    ec2 = account.client
    context = context_of(tmp_path, account, store_address, addresses="private")
    workers = await Ec2Fleet().acquire(context)
    try:
        template = ec2.describe_launch_templates()["LaunchTemplates"][0]["LaunchTemplateId"]
        versions = ec2.describe_launch_template_versions(LaunchTemplateId=template)
        data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        [interface] = data["NetworkInterfaces"]
        assert interface["AssociatePublicIpAddress"] is False
        assert len(interface["Groups"]) == 1
        assert "SecurityGroupIds" not in data
        known = {one["PrivateIpAddress"] for one in instances_of(ec2)}
        assert {Host.from_text(worker.where).address for worker in workers} == known
    finally:
        elsewhere = dataclasses.replace(context, folder=tmp_path / "elsewhere")
        assert await Ec2Fleet().release(elsewhere) == []
    assert account.left() == []


def instances_of(ec2: Any) -> list[dict[str, Any]]:
    groups = ec2.describe_instances()["Reservations"]
    return [one for group in groups for one in group["Instances"]]


def test_a_machine_is_reached_by_the_address_that_is_asked_for(account: Account) -> None:
    """Public if it has one, unless only one kind will do."""
    ec2 = account.client
    default = [{"Name": "default-for-az", "Values": ["true"]}]
    both = ec2.describe_subnets(Filters=default)["Subnets"][0]["SubnetId"]
    for subnet in (both, account.subnet):
        ec2.run_instances(ImageId=account.image, MinCount=1, MaxCount=1, SubnetId=subnet)
    public, private = instances_of(ec2)
    ids = [public["InstanceId"], private["InstanceId"]]

    def found(which: str) -> list[str]:
        return [*addresses(ec2, ids, within_s=0, which=which).values()]

    assert found("") == [public["PublicIpAddress"], private["PrivateIpAddress"]]
    assert found("private") == [public["PrivateIpAddress"], private["PrivateIpAddress"]]
    assert found("public") == [public["PublicIpAddress"]]


@pytest.mark.parametrize("spot", [True, False])
async def test_a_substitute_is_rented_recorded_and_given_back(
    tmp_path: Path, account: Account, store_address: StoreAddress, spot: bool
) -> None:
    """One machine more, like the others, for that of a lost worker, which goes first."""
    context = context_of(tmp_path, account, store_address)
    elsewhere = dataclasses.replace(context, folder=tmp_path / "elsewhere")
    # None of these machines answers, as that of a lost worker.
    lost_one, lost_other = await Ec2Fleet().acquire(context)
    try:
        if not spot:
            none = {"Errors": [{"ErrorCode": "UnfulfillableCapacity", "ErrorMessage": "none"}]}
            account.answer("CreateFleet", none)
        fleet = Ec2Fleet()
        new = await fleet.substitute(context, "worker-3", lost_one)
        assert new is not None
        newer = await fleet.substitute(context, "worker-4", lost_other)
        assert newer is not None
        machines = {one["InstanceId"]: one for one in instances_of(account.client)}
        given = [worker.details["instance"] for worker in (lost_one, lost_other, new, newer)]
        assert [machines[one]["State"]["Name"] for one in given] == [
            *["terminated"] * 2,
            *["running"] * 2,
        ]
        assert new.where == f"root@{machines[given[2]]['PrivateIpAddress']}:22"
        assert (machines[given[2]].get("InstanceLifecycle") == "spot") is spot

        def tags(instance: str) -> dict[str, str]:
            return {
                tag["Key"]: tag["Value"]
                for tag in machines[instance]["Tags"]
                if not tag["Key"].startswith("aws:")
            }

        assert tags(given[2]) == tags(given[0])
        entries = Ledger(context.store(), context.run_id, 1, "eu-north-1").entries()
        fleets = [one for one in entries if one.call == "CreateFleet"]
        assert all(one.answered for one in fleets)
        assert len({one.number for one in entries}) == len(entries)
        assert len({one.token for one in fleets}) == len(fleets) == (3 if spot else 4)
        assert [made.id for one in fleets for made in one.made] == given
    finally:
        assert await Ec2Fleet().release(elsewhere) == []
    assert account.left() == []
    # Behind the release there is nothing that another could be rented from.
    with pytest.raises(FleetError, match="launch template"):
        await Ec2Fleet().substitute(context, "worker-5", new)
    assert account.left() == []


async def test_a_disk_that_takes_no_spool_keeps_no_machine(
    tmp_path: Path, account: Account, store_address: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever hinders the agents' stopping, what costs money is given back."""
    context = context_of(tmp_path, account, store_address)
    fleet = Ec2Fleet()
    await fleet.acquire(context)

    async def full(*_given: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fleet, "_release", full)
    assert await fleet.release(context) == []
    assert account.left() == []


async def test_what_a_machine_keeps_that_goes_is_told(
    tmp_path: Path, account: Account, store_address: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that does not let its spool be fetched goes with it, and that is no secret."""
    context = context_of(tmp_path, account, store_address)
    fleet = Ec2Fleet()
    await fleet.acquire(context)

    async def keeps(_context: RunContext, name: str, _host: Host) -> str:
        asked.append(name)
        return f"{name} (its connection was lost)" if len(asked) == 1 else ""

    asked: list[str] = []
    monkeypatch.setattr(fleet, "_release", keeps)
    hearing = Hearing()
    with showing(hearing):
        assert await fleet.release(context) == []
    [told] = [text for text in hearing.warnings if "was not fetched" in text]
    assert told.startswith(f"what {asked[0]} (its connection was lost) could not ship")
    assert account.left() == []


async def test_failed_rental_leaves_nothing(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """A rental that fails half-way gives back what it had made, and says why."""
    context = context_of(tmp_path, account, store_address)
    # Somebody else's template of that name stands in the way, after key pair and group are made.
    others = account.client.create_launch_template(
        LaunchTemplateName="relay-load-ec2-run-1", LaunchTemplateData={"ImageId": account.image}
    )["LaunchTemplate"]["LaunchTemplateId"]
    with pytest.raises(FleetError, match="ec2:CreateLaunchTemplate"):
        await Ec2Fleet().acquire(context)
    assert account.left() == [others]


async def test_own_keys_are_never_given_to_workers(tmp_path: Path, account: Account) -> None:
    """Without a way of their own to the bucket nothing is rented for the workers."""
    context = context_of(tmp_path, account, StoreAddress(bucket="some-bucket"))
    account.answer("GetCallerIdentity", {"Arn": "arn:aws:sts::1:assumed-role/an-admin/me"})
    with pytest.raises(FleetError, match="only an IAM user may make credentials"):
        await Ec2Fleet().acquire(context)
    assert account.left() == []
    assert "ec2:CreateFleet" not in account.calls


async def test_budget_of_zero_rents_nothing(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """A run that would cost more than its scenario allows ends before anything is rented."""
    context = context_of(tmp_path, account, store_address)
    scenario = context.scenario.model_copy(update={"max_usd": 0.0})
    with pytest.raises(FleetError, match=r"allows \$0.00"):
        await Ec2Fleet().acquire(dataclasses.replace(context, scenario=scenario))
    assert account.left() == []
    assert "ec2:CreateFleet" not in account.calls


def test_everybody_is_not_let_in() -> None:
    """A security group for the whole world needs a switch of its own."""
    with pytest.raises(UsageError, match="lets everybody"):
        ssh_cidr(FleetSpec(ssh_cidr="0.0.0.0/0"))
    assert ssh_cidr(FleetSpec(ssh_cidr="0.0.0.0/0", ssh_from_anywhere=True)) == "0.0.0.0/0"


async def test_the_relays_group_lets_the_workers_in(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """The relay's group lets the run's group in on the relay's port, until the run is over."""
    ec2 = account.client
    relays = ec2.create_security_group(GroupName="relay", Description="x", VpcId=account.vpc)
    group = {"relay_security_group": relays["GroupId"]}
    context = context_of(tmp_path, account, store_address, "ws://127.0.0.1:8081/", **group)

    def rules() -> list[tuple[int, str]]:
        (found,) = ec2.describe_security_groups(GroupIds=[relays["GroupId"]])["SecurityGroups"]
        return [
            (rule["FromPort"], pair["GroupId"])
            for rule in found["IpPermissions"]
            for pair in rule["UserIdGroupPairs"]
        ]

    await Ec2Fleet().acquire(context)
    try:
        (own,) = (g for g in ec2.describe_security_groups()["SecurityGroups"] if g.get("Tags"))
        assert rules() == [(8081, own["GroupId"])]
    finally:
        elsewhere = dataclasses.replace(context, folder=tmp_path / "elsewhere")
        assert await Ec2Fleet().release(elsewhere) == []
    assert rules() == []
    assert account.left() == [relays["GroupId"]]


def test_a_relay_beside_the_workers_is_reached_within(account: Account) -> None:
    """A relay on a machine of the workers' network is loaded by its private address."""
    ec2 = account.client
    public_subnet = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])[
        "Subnets"
    ][0]["SubnetId"]
    made = ec2.run_instances(ImageId=account.image, MinCount=1, MaxCount=1, SubnetId=public_subnet)[
        "Instances"
    ][0]
    (relay,) = ec2.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0][
        "Instances"
    ]
    near = FleetSpec(subnets=(public_subnet,))
    public, private = relay["PublicIpAddress"], relay["PrivateIpAddress"]
    assert relay_from_within(ec2, f"ws://{public}:8081/", near) == f"ws://{private}:8081/"
    for elsewhere in (f"wss://{public}/", "ws://10.0.0.9:8081/", "ws://127.0.0.1:8081/"):
        assert relay_from_within(ec2, elsewhere, near) == elsewhere
    far = FleetSpec(subnets=(account.subnet,))
    assert relay_from_within(ec2, f"ws://{public}:8081/", far) == f"ws://{public}:8081/"
