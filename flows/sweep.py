"""The sweep: whatever of ours stands in an AWS account and has outlived its run is removed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import boto3
from botocore.exceptions import BotoCoreError
from prefect import flow
from prefect.logging import get_run_logger

from run_store.errors import FleetError, StoreError
from run_store.layout import RunLayout
from run_store.messages import Lease, RunRecord
from run_store.store import Store, StoreAddress
from tasks.fleets.ec2_resources import Resource, ec2_client, find_resources, remove_resources

log = logging.getLogger(__name__)

REGION = "eu-north-1"
ALL_REGIONS = "all"
GONE_WITHIN_S = 300.0
LOOK_EVERY_S = 3.0
LEASE_WATCH_S = 8.0
"""A lease that is not raised for so long, four times its step, has nobody behind it."""


@dataclass(frozen=True)
class Leftover:
    """Something of ours in a region, and why it may go."""

    region: str
    resource: Resource
    reason: str


def has_account() -> bool:
    """Say whether any AWS credentials are configured here."""
    try:
        return boto3.session.Session().get_credentials() is not None
    except BotoCoreError:
        return False


def regions_of(region: str) -> list[str]:
    """Return the regions to look in: the one that is named, or all that the account may use."""
    if region != ALL_REGIONS:
        return [region]
    answer = ec2_client(REGION).describe_regions()
    return sorted(one["RegionName"] for one in answer["Regions"])


def find_leftovers(
    regions: Sequence[str],
    *,
    run_id: str | None = None,
    older_than_s: float = 0.0,
    now: float | None = None,
    is_running: Callable[[str], bool | None] = lambda _: None,
    force: bool = False,
) -> list[Leftover]:
    """Return what of ours has outlived its run, in the order of its removal.

    Outlived: its expires-at has passed (by `older_than_s`), or `is_running(run_id)` says False.
    A run of which True is said keeps its own unless `force`d; None is "not known". A `run_id`
    asks for one run only, and then anything goes that is not known to be running.
    Raises FleetError.
    """
    at = time.time() if now is None else now
    found: list[Leftover] = []
    known: dict[str, bool | None] = {}
    for region in regions:
        for resource in find_resources(ec2_client(region), run_id):
            if resource.run_id not in known:
                known[resource.run_id] = is_running(resource.run_id)
            reason = why_leftover(
                resource,
                now=at - older_than_s,
                running=known[resource.run_id],
                asked_for=run_id is not None,
                force=force,
            )
            if reason:
                found.append(Leftover(region=region, resource=resource, reason=reason))
    return found


def why_leftover(
    resource: Resource, *, now: float, running: bool | None, asked_for: bool, force: bool
) -> str:
    """Return why a resource may be removed; empty if it may not."""
    if force:
        return "forced"
    expired = bool(resource.expires_at) and resource.expires_at < now
    if running:
        return ""
    if running is False:
        return "its run has ended"
    if expired:
        return "its time is over"
    return "asked for" if asked_for else ""


def remove_leftovers(leftovers: Sequence[Leftover]) -> list[Leftover]:
    """Remove them, and look again until they are gone; return those that remain."""
    left = list(leftovers)
    deadline = time.monotonic() + GONE_WITHIN_S
    while True:
        for region in {one.region for one in left}:
            remove_resources(
                ec2_client(region), [one.resource for one in left if one.region == region]
            )
        present = {
            (region, one.kind, one.id)
            for region in {one.region for one in left}
            for one in find_resources(ec2_client(region))
        }
        left = [one for one in left if (one.region, one.resource.kind, one.resource.id) in present]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(LOOK_EVERY_S)


def running_by_lease(
    store: Store, *, watch_s: float = LEASE_WATCH_S
) -> Callable[[str], bool | None]:
    """Return who says whether a run is alive: its last attempt's lease is being raised.

    None for a run that this store does not know, or cannot be asked about.
    """

    def says(run_id: str) -> bool | None:
        layout = RunLayout(run_id)
        try:
            record = store.get_message(layout.run, RunRecord)
            if record is None or not record.attempts:
                return None
            if record.state != "running":
                return False
            key = layout.lease(record.attempts[-1].number)
            before = store.get_message(key, Lease)
            if before is None:
                return None  # provisioning: there is no lease before the load begins
            time.sleep(watch_s)
            after = store.get_message(key, Lease)
        except StoreError as error:
            log.warning("nothing is known of %s: %s", run_id, error)
            return None
        return after is not None and after.counter != before.counter

    return says


@flow(name="relay-load-sweep", persist_result=False)
def sweep(region: str = ALL_REGIONS, store: str | None = None, dry_run: bool = False) -> list[str]:
    """Remove what has outlived its run, in one region or all; return what it found.

    `store` (s3://bucket/prefix) lets it see which runs are alive; else expiry alone decides. Does
    nothing, quietly, where no AWS account is configured. Raises FleetError if something remains.
    """
    if not has_account():
        return []
    is_running = running_by_lease(Store(StoreAddress.from_url(store))) if store else lambda _: None
    found = find_leftovers(regions_of(region), is_running=is_running)
    names = [f"{one.region}: {one.resource} of {one.resource.run_id}" for one in found]
    for name, one in zip(names, found, strict=True):
        get_run_logger().info("%s, since %s", name, one.reason)
    left = [] if dry_run else remove_leftovers(found)
    if left:
        raise FleetError(
            "These remain: " + ", ".join(f"{one.region}: {one.resource}" for one in left) + ".",
            hint="Look at them in the EC2 console.",
        )
    return names
