"""How workers log in to the store: with credentials of their own, never the orchestrator's."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError
from pydantic import SecretStr

from run_store.credentials import StoreCredentials
from run_store.errors import FleetError
from run_store.layout import RunLayout
from run_store.store import StoreAddress
from scenarios.model import FleetSpec
from tasks.fleets.aws_account import session_of
from tasks.fleets.ec2_resources import OPTIONS, explained
from tasks.fleets.remote import Host
from tasks.preflight import is_loopback
from tasks.run_context import RunContext

log = logging.getLogger(__name__)

LASTS_S = 3600
"""The longest that every role may be assumed for, also by a session of another role."""
RENEW_AFTER_SHARE = 0.5
"""Credentials are renewed when so much of their time is over: a first failure is no harm yet."""
READ_AGAIN_AFTER_S = 600.0
"""How long keys of a profile count as new; what stands behind it may change."""
VARIABLES = (
    "RELAY_LOAD_WORKER_ACCESS_KEY_ID",
    "RELAY_LOAD_WORKER_SECRET_ACCESS_KEY",
    "RELAY_LOAD_WORKER_SESSION_TOKEN",
)
_WAYS = (
    "Name one of: an instance profile (fleet.instance_profile, ec2 only), a role for workers that "
    "you may assume (fleet.worker_role), or keys made for workers (fleet.worker_credentials = env, "
    "profile:NAME, or host if the hosts have their own). docs/aws.md says more."
)


@dataclass(frozen=True)
class Supply:
    """One set of credentials, and when the next should be had (by `time.time()`; inf: never)."""

    credentials: StoreCredentials
    renew_at: float


def session_policy(address: StoreAddress, run_id: str, *, partition: str = "aws") -> str:
    """Return the policy of a run's workers: put and get below the run's prefix, and list it."""
    bucket = f"arn:{partition}:s3:::{address.bucket}"
    below = f"{address.prefix}{RunLayout(run_id).root}*"
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:PutObject", "s3:GetObject"],
                    "Resource": f"{bucket}/{below}",
                },
                {
                    "Effect": "Allow",
                    "Action": "s3:ListBucket",
                    "Resource": bucket,
                    "Condition": {"StringLike": {"s3:prefix": below}},
                },
            ],
        },
        separators=(",", ":"),
    )


class WorkerAccess:
    """The credentials of one run's workers, in one process. Secrets are masked in every repr.

    Without a `source` nothing is handed over: the hosts have their own way in.
    """

    def __init__(
        self, source: Callable[[], Supply] | None, *, now: Callable[[], float] = time.time
    ) -> None:
        self._source = source
        self._now = now
        self._supply: Supply | None = None
        self._held: dict[str, Supply] = {}
        self._asking = asyncio.Lock()

    @property
    def hands_over(self) -> bool:
        """Whether hosts are given credentials."""
        return self._source is not None

    async def next_for(self, worker: str) -> StoreCredentials | None:
        """Return what a worker should be given now; None if what it holds is still good.

        All workers of a run share what is asked for once. Raises FleetError.
        """
        if self._source is None:
            return None
        async with self._asking:
            if self._supply is None or self._now() >= self._supply.renew_at:
                self._supply = await asyncio.to_thread(self._source)
            supply = self._supply
        return None if self._held.get(worker) is supply else supply.credentials

    def handed_over(self, worker: str) -> None:
        """Take that a worker holds what `next_for` returned last."""
        if self._supply is not None:
            self._held[worker] = self._supply

    def forget(self, worker: str) -> None:
        """Take that nothing is known of what a worker holds."""
        self._held.pop(worker, None)


def access_of(context: RunContext) -> WorkerAccess:
    """Return how the run's workers log in to its store; FleetError if there is no way.

    An instance profile, the hosts' own way, keys that the user gives for workers, a role for
    workers, a federated session of an IAM user: the first that is named or possible. Nothing is
    asked of AWS yet.
    """
    fleet, address = context.scenario.fleet, context.address
    if _is_on_loopback(address.endpoint_url) and _is_elsewhere(context):
        raise FleetError(
            f"Workers on other machines cannot reach the store {address.url} at "
            f"{address.endpoint_url}: that is this machine for each of them.",
            hint="Name a bucket that they can reach: --store s3://bucket/prefix.",
        )
    kind, _, profile = fleet.worker_credentials.partition(":")
    if kind == "host" or (context.fleet == "ec2" and fleet.instance_profile):
        return WorkerAccess(None)
    if kind == "env":
        return WorkerAccess(_from_environment)
    if kind == "profile":
        return WorkerAccess(lambda: _from_profile(profile))
    if fleet.worker_role:
        return WorkerAccess(lambda: _by_role(fleet, address, context.run_id))
    if _is_ours(address):
        return WorkerAccess(lambda: _as_they_are(address))
    if address.endpoint_url is None or "AWS_ENDPOINT_URL_STS" in os.environ:
        return WorkerAccess(lambda: _federated(fleet, address, context.run_id))
    raise FleetError(
        f"Workers have no way to the store {address.url} at {address.endpoint_url}: they are "
        "never given your own keys, and such a store makes none for them.",
        hint=_WAYS,
    )


def without_keys(address: StoreAddress) -> StoreAddress:
    """Return where the store is, and nothing that lets anybody in."""
    region = address.region or boto3.session.Session().region_name
    return StoreAddress(
        bucket=address.bucket,
        prefix=address.prefix,
        endpoint_url=address.endpoint_url,
        region=region,
    )


def _is_elsewhere(context: RunContext) -> bool:
    """Say whether workers are to be on machines whose loopback is another than ours."""
    if context.fleet == "ec2":
        # Unless EC2 is emulated here, and its machines are here too.
        return not _is_on_loopback(os.environ.get("AWS_ENDPOINT_URL_EC2"))
    hosts = [Host.from_text(text) for text in context.scenario.fleet.hosts]
    return any(not is_loopback(host.address) for host in hosts)


def _is_on_loopback(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    return bool(host) and is_loopback(host)


def _is_ours(address: StoreAddress) -> bool:
    """Say whether a store is a local one: its keys are made for it and open nothing else."""
    return address.secrets() is not None and _is_on_loopback(address.endpoint_url)


def _as_they_are(address: StoreAddress) -> Supply:
    if address.access_key is None or address.secret_key is None:
        raise FleetError("The local store has no keys.")
    credentials = StoreCredentials(access_key=address.access_key, secret_key=address.secret_key)
    return Supply(credentials, renew_at=float("inf"))


def _from_environment() -> Supply:
    key, secret, token = (os.environ.get(name, "") for name in VARIABLES)
    if not key or not secret:
        raise FleetError(
            "fleet.worker_credentials is env, and the workers' keys are not in the environment.",
            hint=f"Set {VARIABLES[0]} and {VARIABLES[1]}.",
        )
    return Supply(_credentials(key, secret, token), renew_at=float("inf"))


def _from_profile(name: str) -> Supply:
    try:
        found = boto3.session.Session(profile_name=name).get_credentials()
    except BotoCoreError as error:
        raise FleetError(f"The AWS profile {name} cannot be used: {error}.") from error
    if found is None:
        raise FleetError(f"The AWS profile {name} has no credentials for workers.")
    frozen = found.get_frozen_credentials()
    return Supply(
        _credentials(str(frozen.access_key), str(frozen.secret_key), frozen.token or ""),
        renew_at=time.time() + READ_AGAIN_AFTER_S,
    )


def _by_role(fleet: FleetSpec, address: StoreAddress, run_id: str) -> Supply:
    """Assume the workers' role, cut down to the run's own prefix."""
    hints = {
        "AccessDenied": f"Allow sts:AssumeRole on {fleet.worker_role} to this user or role, and "
        "name it in the role's trust policy; docs/aws.md has both."
    }
    with explained("make credentials for the workers", service="sts", hints=hints):
        session = session_of(fleet.aws_credentials_block)
        answer = session.client("sts", region_name=fleet.region, config=OPTIONS).assume_role(
            RoleArn=fleet.worker_role,
            RoleSessionName=f"relay-load-{run_id}"[:64],
            Policy=session_policy(address, run_id, partition=_partition(session, fleet.region)),
            DurationSeconds=LASTS_S,
        )
    return _supply(answer["Credentials"])


def _federated(fleet: FleetSpec, address: StoreAddress, run_id: str) -> Supply:
    """Make a federated session of the IAM user that we are, cut down to the run's own prefix."""
    with explained("make credentials for the workers", service="sts", hints={}):
        session = session_of(fleet.aws_credentials_block)
        client = session.client("sts", region_name=fleet.region, config=OPTIONS)
        caller = client.get_caller_identity()["Arn"]
    if ":user/" not in caller:
        raise FleetError(
            f"The workers have no way to the store {address.url}: you are {caller}, and only an "
            "IAM user may make credentials for others without a role.",
            hint=_WAYS,
        )
    with explained(
        "make credentials for the workers", service="sts", hints={"AccessDenied": _WAYS}
    ):
        answer = client.get_federation_token(
            Name=f"relay-load-{run_id}"[-32:].lstrip("-"),
            Policy=session_policy(address, run_id, partition=_partition(session, fleet.region)),
            DurationSeconds=LASTS_S,
        )
    return _supply(answer["Credentials"])


def _supply(answer: Any) -> Supply:
    ends_at = answer["Expiration"].timestamp()
    left_s = ends_at - time.time()
    return Supply(
        StoreCredentials(
            access_key=SecretStr(answer["AccessKeyId"]),
            secret_key=SecretStr(answer["SecretAccessKey"]),
            session_token=SecretStr(answer["SessionToken"]),
            expires_at=ends_at,
        ),
        renew_at=ends_at - left_s * (1 - RENEW_AFTER_SHARE),
    )


def _credentials(key: str, secret: str, token: str) -> StoreCredentials:
    return StoreCredentials(
        access_key=SecretStr(key),
        secret_key=SecretStr(secret),
        session_token=SecretStr(token) if token else None,
    )


def _partition(session: boto3.session.Session, region: str) -> str:
    return session.get_partition_for_region(region)
