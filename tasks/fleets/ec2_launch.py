"""Renting machines: a key pair, a security group and a launch template, then two fleets at most."""

from __future__ import annotations

import base64
import getpass
import json
import re
import time
import urllib.request
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import boto3

from run_store.errors import FleetError, UsageError
from run_store.store import write_private
from scenarios.model import FleetSpec
from tasks.fleets.ec2_ledger import Ledger
from tasks.fleets.ec2_resources import (
    ATTEMPT,
    EXPIRES_AT,
    OPTIONS,
    OWNER,
    RUN,
    Resource,
    explained,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

IMAGE = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
VOLUME_GIB = 20
OWN_ADDRESS = "https://checkip.amazonaws.com"


@dataclass(frozen=True)
class Order:
    """What is rented, for whom, and until when (seconds since the epoch)."""

    run_id: str
    attempt: int
    workers: int
    expires_at: float
    fleet: FleetSpec

    @property
    def name(self) -> str:
        """The name of everything that this attempt makes."""
        return f"relay-load-{self.run_id}-{self.attempt}"

    def tags(self, *kinds: str) -> list[Any]:
        """Return the tags as they are given when a resource of these kinds is made."""
        values = {
            RUN: self.run_id,
            ATTEMPT: str(self.attempt),
            EXPIRES_AT: str(int(self.expires_at)),
            OWNER: getpass.getuser(),
            "Name": self.name,
        }
        tags = [{"Key": key, "Value": value} for key, value in values.items()]
        return [{"ResourceType": kind, "Tags": tags} for kind in kinds]


@dataclass(frozen=True)
class Keys:
    """The run's own keys: whom its machines let in, and who they are."""

    user_key: Path
    user_public: str
    host_private: str
    host_public: str
    fingerprint: str


def make_keys(folder: Path) -> Keys:
    """Return the attempt's keys, made if they are not there.

    They never leave `folder` but for the host key, which the attempt's machines are given.
    """
    keys = []
    for name in ("user_key", "host_key"):
        path = folder / name
        if not path.exists():
            made = asyncssh.generate_private_key("ssh-ed25519")
            write_private(path, made.export_private_key().decode())
        keys.append(asyncssh.read_private_key(str(path)))
    user, host = keys
    return Keys(
        user_key=folder / "user_key",
        user_public=user.export_public_key().decode().strip(),
        host_private=host.export_private_key().decode(),
        host_public=host.export_public_key().decode().strip(),
        fingerprint=host.get_fingerprint("sha256"),
    )


def user_data(keys: Keys, expires_at: float) -> str:
    """Return the cloud-config: first the time limit, then host key and login.

    The limit is an instant and is set at each boot, so that a reboot gains no time. JSON is YAML.
    """
    left = f"$(({int(expires_at)} - $(date +%s)))"
    limit = (
        f'left={left}; [ "$left" -gt 1 ] || left=1; '
        'systemd-run --on-active="$left" systemctl poweroff || '
        '(setsid sh -c "sleep $left; poweroff -f" >/dev/null 2>&1 &)'
    )
    return "#cloud-config\n" + json.dumps(
        {
            "bootcmd": [["sh", "-c", limit]],
            "ssh_deletekeys": True,
            "ssh_keys": {"ed25519_private": keys.host_private, "ed25519_public": keys.host_public},
            "disable_root": False,
            "ssh_pwauth": False,
            "ssh_authorized_keys": [keys.user_public],
        },
        indent=1,
    )


def rent(client: EC2Client, order: Order, keys: Keys, ledger: Ledger) -> list[str]:
    """Rent the machines; return their instance ids, which may be fewer than were ordered.

    Raises FleetError; what was made until then is in the ledger and carries our tags.
    """
    image, device = _image(client, order.fleet)
    subnets, vpc = _subnets(client, order.fleet)
    _key_pair(client, order, keys, ledger)
    group = order.fleet.security_group or _security_group(client, order, vpc, ledger)
    data: dict[str, Any] = {
        "ImageId": image,
        "KeyName": order.name,
        "SecurityGroupIds": [group],
        "UserData": base64.b64encode(user_data(keys, order.expires_at).encode()).decode(),
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "BlockDeviceMappings": [
            {
                "DeviceName": device,
                "Ebs": {
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                    "VolumeSize": VOLUME_GIB,
                    "VolumeType": "gp3",
                },
            }
        ],
        "TagSpecifications": order.tags("instance", "volume", "network-interface"),
    }
    if order.fleet.instance_profile:
        data["IamInstanceProfile"] = {"Name": order.fleet.instance_profile}
    asked = ledger.intend("CreateLaunchTemplate", order.name)
    with explained("make a launch template"):
        made = client.create_launch_template(
            LaunchTemplateName=order.name,
            LaunchTemplateData=data,  # type: ignore[arg-type]  # built from parts above
            ClientToken=order.name[-64:],
            TagSpecifications=order.tags("launch-template"),
        )
    template = made["LaunchTemplate"]["LaunchTemplateId"]
    ledger.got(asked, Resource("launch template", template))
    instances: list[str] = []
    problems: list[str] = []
    for market in ("spot", "on-demand") if order.fleet.spot else ("on-demand",):
        missing = order.workers - len(instances)
        second = market == "on-demand" and order.fleet.spot
        if missing and (order.fleet.on_demand_fallback or not second):
            got, said = _fleet(client, order, template, subnets, market, missing, ledger)
            instances += got
            problems += said
    if not instances:
        reasons = "; ".join(problems) or "no reason given"
        raise FleetError(
            f"EC2 gave none of {order.workers} machines: {reasons}.",
            hint="Name more instance types or subnets, or another region.",
        )
    return instances


def _fleet(  # noqa: PLR0917 - called once
    client: EC2Client,
    order: Order,
    template: str,
    subnets: list[str],
    market: str,
    count: int,
    ledger: Ledger,
) -> tuple[list[str], list[str]]:
    token = f"{order.run_id[-40:]}-{order.attempt}-{market}"
    asked = ledger.intend("CreateFleet", token)
    overrides: list[Any] = [
        {"InstanceType": kind, "SubnetId": subnet}
        for kind in order.fleet.instance_types
        for subnet in subnets
    ]
    with explained(f"rent {count} {market} machines"):
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
    ids = [i for group in answer.get("Instances", []) for i in group.get("InstanceIds", [])]
    ledger.got(asked, *(Resource("instance", one) for one in ids))
    errors = {
        f"{one.get('ErrorCode', '')}: {one.get('ErrorMessage', '')}"
        for one in answer.get("Errors", [])
    }
    return ids, sorted(errors)


def _key_pair(client: EC2Client, order: Order, keys: Keys, ledger: Ledger) -> None:
    asked = ledger.intend("ImportKeyPair", order.name)
    with explained("import the run's key pair"):
        client.import_key_pair(
            KeyName=order.name,
            PublicKeyMaterial=keys.user_public.encode(),
            TagSpecifications=order.tags("key-pair"),
        )
    ledger.got(asked, Resource("key pair", order.name))


def _security_group(client: EC2Client, order: Order, vpc: str, ledger: Ledger) -> str:
    cidr = ssh_cidr(order.fleet)
    asked = ledger.intend("CreateSecurityGroup", order.name)
    with explained("make a security group"):
        group = client.create_security_group(
            GroupName=order.name,
            Description="SSH to load workers, from their orchestrator",
            VpcId=vpc,
            TagSpecifications=order.tags("security-group"),
        )["GroupId"]
        ledger.got(asked, Resource("security group", group))
        wide = "Ipv6Ranges" if ":" in cidr else "IpRanges"
        source = {"CidrIpv6" if ":" in cidr else "CidrIp": cidr}
        client.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, wide: [source]}],  # type: ignore[list-item]  # a computed key
        )
    return group


def ssh_cidr(fleet: FleetSpec) -> str:
    """Return who may reach port 22: what the scenario says, else this machine's address.

    Raises UsageError for a network that is none, or is everybody.
    """
    text = fleet.ssh_cidr
    if not text:
        try:
            with urllib.request.urlopen(OWN_ADDRESS, timeout=10) as answer:
                text = answer.read().decode().strip() + "/32"
        except OSError as error:
            raise FleetError(
                f"This machine's public address could not be found: {error}.",
                hint="Name it: fleet.ssh_cidr (--ssh-cidr), such as 203.0.113.7/32.",
            ) from error
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(f"fleet.ssh_cidr {text!r} is no network: {error}.") from None
    if network.prefixlen == 0 and not fleet.ssh_from_anywhere:
        raise UsageError(
            f"fleet.ssh_cidr {text} lets everybody reach the workers' SSH.",
            hint="Name your own network, or set fleet.ssh_from_anywhere if that is meant.",
        )
    return str(network)


def _image(client: EC2Client, fleet: FleetSpec) -> tuple[str, str]:
    arm = {bool(re.match(r"[a-z]+\d+g", kind)) for kind in fleet.instance_types}
    if len(arm) > 1:
        raise UsageError("fleet.instance_types mixes x86 and Arm; one image serves one of them.")
    image = fleet.image
    if not image:
        name = IMAGE.format("arm64" if arm.pop() else "amd64")
        with explained(f"look up the image {name} in {fleet.region}"):
            ssm = boto3.session.Session().client("ssm", region_name=fleet.region, config=OPTIONS)
            image = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    with explained(f"describe the image {image}"):
        found = client.describe_images(ImageIds=[image])["Images"]
    if not found:
        raise FleetError(f"There is no image {image} in {fleet.region}.", hint="Set fleet.image.")
    return image, found[0].get("RootDeviceName", "/dev/sda1")


def _subnets(client: EC2Client, fleet: FleetSpec) -> tuple[list[str], str]:
    with explained("list subnets"):
        if fleet.subnets:
            found = client.describe_subnets(SubnetIds=list(fleet.subnets))["Subnets"]
        else:
            default: Any = [{"Name": "default-for-az", "Values": ["true"]}]
            found = client.describe_subnets(Filters=default)["Subnets"]
    if not found:
        raise FleetError(
            f"There is no default subnet in {fleet.region}.", hint="Name some: fleet.subnets."
        )
    return [subnet["SubnetId"] for subnet in found], found[0]["VpcId"]


def addresses(client: EC2Client, instances: list[str], *, within_s: float) -> dict[str, str]:
    """Wait for machines to run; return the address of each that does, public if it has one.

    A machine that was just made may not be described yet: it is looked for again.
    """
    deadline = time.monotonic() + within_s
    found: dict[str, str] = {}
    while True:
        running: Any = [
            {"Name": "instance-id", "Values": instances},
            {"Name": "instance-state-name", "Values": ["running"]},
        ]
        with explained("describe the machines"):
            pages = list(client.get_paginator("describe_instances").paginate(Filters=running))
        for page in pages:
            for reservation in page["Reservations"]:
                for one in reservation["Instances"]:
                    address = one.get("PublicIpAddress") or one.get("PrivateIpAddress")
                    if address:
                        found[one["InstanceId"]] = address
        if len(found) == len(instances) or time.monotonic() > deadline:
            return found
        time.sleep(1.0)
