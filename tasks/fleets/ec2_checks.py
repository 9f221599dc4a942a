"""What must be right in an AWS account before machines are rented; nothing is made or removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from run_store.errors import UsageError
from scenarios.model import FleetSpec
from tasks.checks import Check, checked
from tasks.fleets.aws_account import session_of
from tasks.fleets.ec2_prices import QUICKLY, has_account
from tasks.fleets.ec2_resources import RUN, ec2_client, explained

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

SPOT_QUOTA, ON_DEMAND_QUOTA = "L-34B43A08", "L-1216C47A"
"""Service Quotas' codes for vCPUs of the standard families (A, C, D, H, I, M, R, T, Z)."""
NO_ACCOUNT = "no AWS credentials are configured: set AWS_PROFILE or AWS_ACCESS_KEY_ID for EC2"
ALLOWED = "DryRunOperation"
POLICY = "docs/aws.md has the whole policy"


def account_checks(fleet: FleetSpec) -> Iterator[Check]:
    """Yield the checks of an account, for renting what a fleet asks for."""
    names = ("credentials", "permissions", "spot quota", "on-demand quota", "image", "subnet")
    try:
        known = has_account(fleet.aws_credentials_block)
    except UsageError as error:
        yield Check("credentials", "failed", error.message, error.hint)
        yield from (Check(name, "skipped", "there are no credentials") for name in names[1:])
        return
    if not known:
        yield from (Check(name, "skipped", NO_ACCOUNT) for name in names)
        return
    signed_in = checked("credentials", lambda: who(fleet))
    yield signed_in
    if signed_in.state == "failed":
        why = "the credentials do not work"
        yield from (Check(name, "skipped", why) for name in names[1:])
        return
    client = ec2_client(fleet.region, fleet.aws_credentials_block, options=QUICKLY)
    yield checked("permissions", lambda: may_rent(client, fleet), remedy=POLICY)
    needed = wanted_vcpus(client, fleet)
    for name, code in (("spot quota", SPOT_QUOTA), ("on-demand quota", ON_DEMAND_QUOTA)):
        if code == SPOT_QUOTA and not fleet.spot:
            yield Check(name, "skipped", "the fleet rents no spot machines")
        else:
            yield quota_check(name, code, needed, fleet)
    # asyncssh, which renting needs, is slow to import.
    from tasks.fleets.ec2_image import image_of  # noqa: PLC0415
    from tasks.fleets.ec2_network import subnets_of  # noqa: PLC0415

    yield checked("image", lambda: image_of(client, fleet)[0], remedy="Set fleet.image.")
    yield checked("subnet", lambda: ", ".join(subnets_of(client, fleet)[0]))


def who(fleet: FleetSpec) -> str:
    """Return whose credentials these are. Raises FleetError."""
    with explained("say whose credentials these are"):
        session = session_of(fleet.aws_credentials_block)
        sts = session.client("sts", region_name=fleet.region, config=QUICKLY)
        return f"{sts.get_caller_identity()['Arn']}, {fleet.region}"


def may_rent(client: EC2Client, fleet: FleetSpec) -> str:
    """Return what was asked, as dry runs; raise FleetError that names the calls that are denied.

    What removes can only be asked about a thing that is there and bears our tag: it is not.
    """
    for call, arguments in _rentals(client, fleet).items():
        _dry_run(call, arguments)
    return f"{len(_rentals(client, fleet))} calls that rent are allowed"


def _rentals(client: EC2Client, fleet: FleetSpec) -> dict[Callable[..., Any], dict[str, Any]]:
    tags = [{"Key": RUN, "Value": "doctor"}]
    name = "relay-load-doctor"
    return {
        client.create_launch_template: {
            "LaunchTemplateName": name,
            "LaunchTemplateData": {"InstanceType": fleet.instance_types[0]},
            "TagSpecifications": [{"ResourceType": "launch-template", "Tags": tags}],
        },
        client.import_key_pair: {
            "KeyName": name,
            "PublicKeyMaterial": b"ssh-ed25519 AAAA",
            "TagSpecifications": [{"ResourceType": "key-pair", "Tags": tags}],
        },
        client.create_security_group: {
            "GroupName": name,
            "Description": "never made",
            "TagSpecifications": [{"ResourceType": "security-group", "Tags": tags}],
        },
        client.create_fleet: {
            "Type": "instant",
            "LaunchTemplateConfigs": [
                {
                    "LaunchTemplateSpecification": {
                        "LaunchTemplateName": name,
                        "Version": "$Latest",
                    }
                }
            ],
            "TargetCapacitySpecification": {"TotalTargetCapacity": 1},
        },
    }


def _dry_run(call: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Ask whether a call would be allowed; raise FleetError if it is denied."""
    with explained("rent machines"):
        try:
            call(DryRun=True, **arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            denied = "Unauthorized" in code or "AccessDenied" in code or "AuthFailure" in code
            # A template that is not there, say, is only looked for once the call is allowed.
            if denied:
                raise


def wanted_vcpus(client: EC2Client, fleet: FleetSpec) -> int | None:
    """Return how many vCPUs a fleet may take: of the largest of its types. None if not known."""
    try:
        kinds: Any = list(fleet.instance_types)
        found = client.describe_instance_types(InstanceTypes=kinds)["InstanceTypes"]
        return max(one["VCpuInfo"]["DefaultVCpus"] for one in found) * fleet.workers
    except (ClientError, BotoCoreError, ValueError):
        return None


def quota_check(name: str, code: str, needed: int | None, fleet: FleetSpec) -> Check:
    """Return whether the account's quota of vCPUs is enough for the fleet by itself."""
    session = session_of(fleet.aws_credentials_block)
    try:
        quotas: Any = session.client("service-quotas", region_name=fleet.region, config=QUICKLY)
        quota = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
    except (ClientError, BotoCoreError) as error:
        return Check(name, "skipped", f"Service Quotas does not tell: {error}")
    if needed is None:
        return Check(name, "skipped", f"{quota:g} vCPUs; those of the types are not known")
    if needed > quota:
        remedy = f"Ask for more in Service Quotas ({code}), or take fewer workers."
        return Check(name, "failed", f"{needed} vCPUs are needed, {quota:g} allowed", remedy)
    return Check(name, "ok", f"{needed} vCPUs of {quota:g}; others in the account use them too")
