"""What we have in an AWS account: found by our tags and by what was recorded, and removed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from run_store.errors import FleetError
from tasks.fleets.aws_account import session_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)

RUN, ATTEMPT = "relay-load:run", "relay-load:attempt"
EXPIRES_AT, OWNER = "relay-load:expires-at", "relay-load:owner"
RULE = "security group rule"
"""Its id is the group's and its own, with a slash between."""
_PRESENT = ["pending", "running", "stopping", "stopped"]
_GONE = (".NotFound", "NotFoundException", ".Unknown", "DoesNotExist")
_LATER = {"DependencyViolation", "RequestLimitExceeded", "Throttling", "InternalError"}
_DENIED = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"}
_WRONG_LOGIN = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "RequestExpired",
    "UnrecognizedClientException",
}
OPTIONS = Config(
    connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 8, "mode": "standard"}
)


@dataclass(frozen=True)
class Resource:
    """One thing of ours in an account. `expires_at` is in seconds since the epoch, 0 if unknown."""

    kind: str
    id: str
    run_id: str = ""
    expires_at: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


def ec2_client(region: str, block: str = "", *, options: Config = OPTIONS) -> EC2Client:
    """Return a client of EC2 in a region, by an AwsCredentials block or the usual chain."""
    with explained("connect to EC2"):
        return session_of(block).client("ec2", region_name=region, config=options)


@contextlib.contextmanager
def explained(
    doing: str, *, service: str = "ec2", hints: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Turn what AWS answers into a FleetError that says which permission or quota is missing.

    `hints` maps error codes to what the user can do about them.
    """
    try:
        yield
    except NoCredentialsError:
        raise FleetError(
            f"There are no AWS credentials to {doing}.",
            hint="Set AWS_PROFILE or AWS_ACCESS_KEY_ID, or use --fleet ssh or local.",
        ) from None
    except ClientError as error:
        code, said = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        call = f"{service}:{error.operation_name}"
        if hints and code in hints:
            hint = hints[code]
        elif code in _DENIED:
            hint = f"Allow {call} to this user or role; docs/aws.md has the whole policy."
        elif code in _WRONG_LOGIN:
            hint = "The credentials are wrong or have ended: log in again, or name another profile."
        elif "LimitExceeded" in code or "VcpuLimit" in code:
            hint = "Ask for a higher vCPU quota in Service Quotas, or take fewer workers."
        else:
            hint = ""
        raise FleetError(f"AWS refused to {doing} ({call}: {code}): {said}", hint=hint) from error
    except BotoCoreError as error:
        raise FleetError(f"AWS could not be asked to {doing}: {error}.") from error


def find_resources(client: EC2Client, run_id: str | None = None) -> list[Resource]:
    """Return all that carries our tags and is not gone: of one run, or of all runs.

    In the order of removal. Raises FleetError.
    """
    filters: list[Any] = (
        [{"Name": f"tag:{RUN}", "Values": [run_id]}]
        if run_id
        else [{"Name": "tag-key", "Values": [RUN]}]
    )
    found: list[Resource] = []
    with explained("list what is tagged as ours"):
        states: Any = {"Name": "instance-state-name", "Values": _PRESENT}
        for page in client.get_paginator("describe_instances").paginate(Filters=[*filters, states]):
            for reservation in page["Reservations"]:
                for instance in reservation["Instances"]:
                    tags = instance.get("Tags", [])
                    found.append(_resource("instance", instance["InstanceId"], tags))
        for templates in client.get_paginator("describe_launch_templates").paginate(
            Filters=filters
        ):
            for template in templates["LaunchTemplates"]:
                tags = template.get("Tags", [])
                found.append(_resource("launch template", template["LaunchTemplateId"], tags))
        pairs = client.describe_key_pairs(Filters=filters)["KeyPairs"]
        found += [_resource("key pair", pair["KeyName"], pair.get("Tags", [])) for pair in pairs]
        # Rules go first: while another's group names one of ours, ours cannot be removed.
        for rules in client.get_paginator("describe_security_group_rules").paginate(
            Filters=filters
        ):
            for rule in rules["SecurityGroupRules"]:
                identity = f"{rule['GroupId']}/{rule['SecurityGroupRuleId']}"
                found.append(_resource(RULE, identity, rule.get("Tags", [])))
        for groups in client.get_paginator("describe_security_groups").paginate(Filters=filters):
            for group in groups["SecurityGroups"]:
                tags = group.get("Tags", [])
                found.append(_resource("security group", group["GroupId"], tags))
    return found


@dataclass(frozen=True)
class Removal:
    """What EC2 answered: it does not know the `unknown`, gone or not there yet; the rest go."""

    refused: list[Resource]
    unknown: list[Resource]


def remove_resources(client: EC2Client, resources: list[Resource]) -> Removal:
    """Ask for the removal of each; return those that refused for now, and those not known."""
    refused: list[Resource] = []
    unknown: list[Resource] = []
    for resource in resources:
        try:
            with explained(f"remove the {resource}"):
                _remove(client, resource)
        except FleetError as error:
            cause = error.__cause__
            code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""
            if any(mark in code for mark in _GONE):
                unknown.append(resource)
                continue
            if code not in _LATER:
                log.warning("%s", error)
            refused.append(resource)
    return Removal(refused, unknown)


def _remove(client: EC2Client, resource: Resource) -> None:
    match resource.kind:
        case "instance":
            client.terminate_instances(InstanceIds=[resource.id])
        case "launch template":
            client.delete_launch_template(LaunchTemplateId=resource.id)
        case "key pair":
            client.delete_key_pair(KeyName=resource.id)
        case kind if kind == RULE:
            group, _, rule = resource.id.partition("/")
            client.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule])
        case "security group":
            client.delete_security_group(GroupId=resource.id)
        case kind:
            raise FleetError(f"Nobody knows how to remove a {kind}.")


def _resource(kind: str, identity: str, tags: list[Any]) -> Resource:
    values = {tag["Key"]: tag["Value"] for tag in tags}
    try:
        expires_at = float(values.get(EXPIRES_AT, 0))
    except ValueError:
        expires_at = 0.0
    return Resource(kind=kind, id=identity, run_id=values.get(RUN, ""), expires_at=expires_at)
