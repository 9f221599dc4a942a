"""The machines of a launch template: one fleet of spot, one on demand for what is missing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from run_store.errors import FleetError
from tasks.fleets.ec2_ledger import Ledger
from tasks.fleets.ec2_order import Order
from tasks.fleets.ec2_resources import Resource, explained
from tasks.observation import current_observer

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_NONE_TO_BE_HAD = {
    "InsufficientInstanceCapacity",
    "InsufficientCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "VcpuLimitExceeded",
    "InstanceLimitExceeded",
}
"""Answers to a whole call that leave it open whether another market has machines."""
_UNKNOWN = "InvalidInstanceID.NotFound"


def rent_machines(
    client: EC2Client, order: Order, template: str, subnets: list[str], ledger: Ledger
) -> list[str]:
    """Rent what was ordered; return the instances' ids, which may be fewer.

    What spot cannot give is rented on demand, if the fleet allows. Raises FleetError with EC2's
    reasons if there are none.
    """
    fleet = order.fleet
    instances: list[str] = []
    problems: list[str] = []
    for market in ("spot", "on-demand") if fleet.spot else ("on-demand",):
        missing = order.workers - len(instances)
        second = market == "on-demand" and fleet.spot
        if not missing or (second and not fleet.on_demand_fallback):
            continue
        if second:
            reasons = "; ".join(problems) or "no reason given"
            current_observer().warn(f"{missing} machines are rented on demand: {reasons}")
        got, said = _one_fleet(client, order, template, subnets, market, missing, ledger)
        instances += got
        problems += said
    if not instances:
        raise FleetError(
            f"EC2 gave none of {order.workers} machines: "
            f"{'; '.join(problems) or 'no reason given'}.",
            hint=_remedy(problems, on_demand=fleet.on_demand_fallback or not fleet.spot),
        )
    if len(instances) < order.workers:
        for problem in problems:
            current_observer().warn(f"EC2 gave {len(instances)} of {order.workers}: {problem}")
    return instances


def addresses(
    client: EC2Client, instances: list[str], *, within_s: float, which: str = ""
) -> dict[str, str]:
    """Wait for machines to run; return the address of each that does, public if it has one.

    `which` asks for the "public" or the "private" one only. A machine that was just made may not
    be described yet: it is looked for again.
    """
    deadline = time.monotonic() + within_s
    found: dict[str, str] = {}
    while True:
        running: Any = [
            {"Name": "instance-id", "Values": instances},
            {"Name": "instance-state-name", "Values": ["running"]},
        ]
        try:
            with explained("describe the machines"):
                pages = list(client.get_paginator("describe_instances").paginate(Filters=running))
        except FleetError as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError) or cause.response["Error"]["Code"] != _UNKNOWN:
                raise
            pages = []
        for page in pages:
            for reservation in page["Reservations"]:
                for one in reservation["Instances"]:
                    address = _address(one, which)
                    if address:
                        found[one["InstanceId"]] = address
        if len(found) == len(instances) or time.monotonic() > deadline:
            return found
        time.sleep(1.0)


def _address(instance: Any, which: str) -> str:
    public, private = instance.get("PublicIpAddress", ""), instance.get("PrivateIpAddress", "")
    return str({"public": public, "private": private}.get(which, public or private))


def _one_fleet(  # noqa: PLR0917 - called once
    client: EC2Client,
    order: Order,
    template: str,
    subnets: list[str],
    market: str,
    count: int,
    ledger: Ledger,
) -> tuple[list[str], list[str]]:
    """Ask one market for machines; return their ids, and what it said of those it did not give."""
    token = f"{order.run_id[-40:]}-{order.attempt}-{market}{order.batch}"
    overrides: list[Any] = [
        {"InstanceType": kind, "SubnetId": subnet}
        for kind in order.fleet.instance_types
        for subnet in subnets
    ]
    try:
        with (
            ledger.asking("CreateFleet", token) as asked,
            explained(f"rent {count} {market} machines"),
        ):
            answer = client.create_fleet(
                Type="instant",
                ClientToken=token,
                SpotOptions={"AllocationStrategy": "price-capacity-optimized"},
                LaunchTemplateConfigs=[
                    {
                        "LaunchTemplateSpecification": {
                            "LaunchTemplateId": template,
                            "Version": "$Latest",
                        },
                        "Overrides": overrides,
                    }
                ],
                TargetCapacitySpecification={
                    "TotalTargetCapacity": count,
                    "DefaultTargetCapacityType": market,  # type: ignore[typeddict-item]  # one of two
                },
                TagSpecifications=order.tags("fleet", "instance"),
            )
    except FleetError as error:
        cause = error.__cause__
        code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""
        if code not in _NONE_TO_BE_HAD:
            raise
        return [], [f"{code}: {cause}"]
    ids = [i for group in answer.get("Instances", []) for i in group.get("InstanceIds", [])]
    ledger.got(asked, *(Resource("instance", one) for one in ids))
    errors = {
        f"{one.get('ErrorCode', '')}: {one.get('ErrorMessage', '')}"
        for one in answer.get("Errors", [])
    }
    return ids, sorted(errors)


def _remedy(problems: list[str], *, on_demand: bool) -> str:
    """Return what the user can do about machines that were not given."""
    said = " ".join(problems)
    if "LimitExceeded" in said or "CountExceeded" in said:
        return "Ask for a higher vCPU quota in Service Quotas, or take fewer workers."
    if "UnauthorizedOperation" in said:
        return (
            "Inside CreateFleet EC2 asks for ec2:RunInstances, ec2:CreateTags and, for an "
            "instance profile, iam:PassRole; docs/aws.md has the whole policy."
        )
    allow = "" if on_demand else " Or set fleet.on_demand_fallback."
    return f"Name more instance types or subnets, or another region.{allow}"
