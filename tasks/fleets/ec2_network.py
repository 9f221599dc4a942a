"""Where rented machines stand: subnets, who may reach them, and how they reach the relay."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from run_store.errors import FleetError, UsageError
from scenarios.model import FleetSpec
from tasks.fleets.ec2_ledger import Ledger
from tasks.fleets.ec2_order import Order
from tasks.fleets.ec2_resources import RULE, Resource, explained

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

OWN_ADDRESS = "https://checkip.amazonaws.com"
_PORTS = {"ws": 80, "wss": 443}


def subnets_of(client: EC2Client, fleet: FleetSpec) -> tuple[list[str], str]:
    """Return the subnets that machines may stand in, and their VPC. Raises FleetError."""
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


def security_groups(client: EC2Client, order: Order, vpc: str, ledger: Ledger) -> list[str]:
    """Return the groups of the machines; one is made unless the fleet names all that it needs.

    The relay's group lets a group of the run's own in, even beside one that the fleet names: two
    runs with one group would take each other's rule away.
    """
    fleet = order.fleet
    groups = [fleet.security_group] if fleet.security_group else []
    if not groups or fleet.relay_security_group:
        own = _make_group(client, order, vpc, ledger, with_ssh=not groups)
        groups.append(own)
        if fleet.relay_security_group:
            _let_in_at_relay(client, order, own, ledger)
    return groups


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
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(f"fleet.ssh_cidr {text!r} is no network: {error}.") from None
    if network.prefixlen == 0 and not fleet.ssh_from_anywhere:
        raise UsageError(
            f"fleet.ssh_cidr {text} lets everybody reach the workers' SSH.",
            hint="Name your own network, or set fleet.ssh_from_anywhere if that is meant.",
        )
    return str(network)


def relay_port(relay_url: str) -> int:
    """Return the port of a relay's URL, or its scheme's."""
    parts = urlsplit(relay_url)
    return parts.port or _PORTS.get(parts.scheme, 0)


def relay_from_within(client: EC2Client, relay_url: str, fleet: FleetSpec) -> str:
    """Return the relay's URL for machines of ours: by its private address if it stands beside them.

    Rules between security groups hold for private addresses only. The name stays for `wss://`,
    since the certificate is made out to it, and for a relay that is not in the machines' network.
    Raises FleetError.
    """
    parts = urlsplit(relay_url)
    public = _public_addresses(parts.hostname or "")
    if parts.scheme != "ws" or not public:
        return relay_url
    _, vpc = subnets_of(client, fleet)
    near: Any = [{"Name": "ip-address", "Values": public}, {"Name": "vpc-id", "Values": [vpc]}]
    with explained("look whether the relay stands in the workers' network"):
        found = client.describe_instances(Filters=near)["Reservations"]
    private = [one.get("PrivateIpAddress") for group in found for one in group["Instances"]]
    if not private or private[0] is None:
        return relay_url
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"{private[0]}{port}").geturl()


def _public_addresses(host: str) -> list[str]:
    """Return the public IPv4 addresses of a host; none if it has none, or is not known here."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, socket.AF_INET)}
    except OSError:
        return []
    return sorted(str(one) for one in found if ipaddress.ip_address(one).is_global)


def _make_group(
    client: EC2Client, order: Order, vpc: str, ledger: Ledger, *, with_ssh: bool
) -> str:
    cidr = ssh_cidr(order.fleet) if with_ssh else ""
    with (
        ledger.asking("CreateSecurityGroup", order.name) as asked,
        explained("make a security group"),
    ):
        group = client.create_security_group(
            GroupName=order.name,
            Description="Load workers; SSH is for their orchestrator",
            VpcId=vpc,
            TagSpecifications=order.tags("security-group"),
        )["GroupId"]
        ledger.got(asked, Resource("security group", group))
        if cidr:
            wide = "Ipv6Ranges" if ":" in cidr else "IpRanges"
            source = {"CidrIpv6" if ":" in cidr else "CidrIp": cidr}
            client.authorize_security_group_ingress(
                GroupId=group,
                IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, wide: [source]}],  # type: ignore[list-item]  # a computed key
            )
    return group


def _let_in_at_relay(client: EC2Client, order: Order, group: str, ledger: Ledger) -> None:
    """Let a group's machines in on the relay's port; the rule bears our tags as all else does."""
    relay_group, port = order.fleet.relay_security_group, order.relay_port
    source: Any = {"GroupId": group, "Description": order.name}
    with (
        ledger.asking("AuthorizeSecurityGroupIngress", f"{relay_group} {group}") as asked,
        explained(f"let the workers in at {relay_group}"),
    ):
        made = client.authorize_security_group_ingress(
            GroupId=relay_group,
            IpPermissions=[
                {
                    "IpProtocol": "tcp",
                    "FromPort": port,
                    "ToPort": port,
                    "UserIdGroupPairs": [source],
                }
            ],
            TagSpecifications=order.tags("security-group-rule"),
        )
        rules = [one["SecurityGroupRuleId"] for one in made["SecurityGroupRules"]]
        ledger.got(asked, *(Resource(RULE, f"{relay_group}/{rule}") for rule in rules))
