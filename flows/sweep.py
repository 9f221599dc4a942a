"""The sweep: what of ours has outlived its run goes, and reports that are owed are made."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect import flow, get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Crashed

from flows.early_interrupts import EARLY
from run_store.errors import FleetError, StoreError
from run_store.layout import RUNS, RunLayout
from run_store.messages import Lease, RunRecord
from run_store.store import Store
from tasks.fleets.ec2_prices import has_account
from tasks.fleets.ec2_resources import (
    Resource,
    ec2_client,
    explained,
    find_resources,
    remove_resources,
)
from tasks.owed import make_owed_reports, owed_reports
from tasks.stores import opened_store

log = logging.getLogger(__name__)
EARLY.let_go()

REGION = "eu-north-1"
ALL_REGIONS = "all"
GONE_WITHIN_S = 300.0
LOOK_EVERY_S = 3.0
LONGER_S = 5.0
"""A lease that has stood still for so much longer than it holds has nobody behind it."""
WATCH_EVERY_S = 1.0
FLOW_RUN = "prefect.flow-run."
RUN_TAIL = 8
"""A run's id ends with so many characters of its flow run's id."""
KEPT_RUNNING = "kept: its run is going on"
KEPT_UNKNOWN = "kept: nobody knows that its run has ended"

IsRunning = Callable[[str], bool | None]
"""Says whether a run goes on, by its id; None if that is not known."""


@dataclass(frozen=True)
class Leftover:
    """Something of ours in a region; why it may go, or why it stays."""

    region: str
    resource: Resource
    reason: str
    goes: bool = True


def regions_of(region: str, *, block: str = "") -> list[str]:
    """Return the regions to look in: the one that is named, or all that the account may use."""
    if region != ALL_REGIONS:
        return [region]
    with explained("list regions"):
        answer = ec2_client(REGION, block).describe_regions()
    return sorted(one["RegionName"] for one in answer["Regions"])


def look(
    regions: Sequence[str],
    *,
    run_id: str | None = None,
    older_than_s: float = 0.0,
    now: float | None = None,
    is_running: IsRunning = lambda _: None,
    force: bool = False,
    block: str = "",
) -> list[Leftover]:
    """Return all that is ours, each with why it may go or stays, in the order of its removal.

    It may go if its expires-at has passed (by `older_than_s`), or `is_running(run_id)` says
    False. A run of which True is said keeps its own unless `force`d; None is "not known". A
    `run_id`, or an end of one, asks for one run only, and then anything goes that is not known
    to be running. `block` names an AwsCredentials block of Prefect's. Raises FleetError.
    """
    at = time.time() if now is None else now
    found: list[Leftover] = []
    known: dict[str, bool | None] = {}
    for region in regions:
        for resource in find_resources(ec2_client(region, block)):
            if run_id and not resource.run_id.endswith(run_id):
                continue
            if resource.run_id not in known:
                known[resource.run_id] = is_running(resource.run_id)
            reason = why_leftover(
                resource,
                now=at - older_than_s,
                running=known[resource.run_id],
                asked_for=run_id is not None,
                force=force,
            )
            kept = KEPT_RUNNING if known[resource.run_id] else KEPT_UNKNOWN
            found.append(Leftover(region, resource, reason or kept, goes=bool(reason)))
    return found


def find_leftovers(
    regions: Sequence[str],
    *,
    run_id: str | None = None,
    is_running: IsRunning = lambda _: None,
    block: str = "",
) -> list[Leftover]:
    """Return what of ours has outlived its run, in the order of its removal. Raises FleetError."""
    found = look(regions, run_id=run_id, is_running=is_running, block=block)
    return [one for one in found if one.goes]


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


def remove_leftovers(
    leftovers: Sequence[Leftover], *, within_s: float = GONE_WITHIN_S, block: str = ""
) -> list[Leftover]:
    """Remove them, and look again until they are gone; return those that remain."""
    left = list(leftovers)
    deadline = time.monotonic() + within_s
    while left:
        for region in {one.region for one in left}:
            remove_resources(
                ec2_client(region, block), [one.resource for one in left if one.region == region]
            )
        present = {
            (region, one.kind, one.id)
            for region in {one.region for one in left}
            for one in find_resources(ec2_client(region, block))
        }
        left = [one for one in left if (one.region, one.resource.kind, one.resource.id) in present]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(LOOK_EVERY_S)
    return left


def running_by_lease(store: Store, *, watch_s: float | None = None) -> IsRunning:
    """Return who says whether a run is alive: its last attempt's lease or presence is raised.

    The presence is raised in the teardown too, when agents ship what they have. Both are watched
    for `watch_s`, else for as long as the lease holds and somewhat longer: a store that is slow
    delays them. None for a run that this store does not know, or cannot be asked about.
    """

    def says(run_id: str) -> bool | None:
        layout = RunLayout(run_id)
        try:
            record = store.get_message(layout.run, RunRecord)
            if record is None or not record.attempts:
                return None
            if record.state != "running":
                return False
            number = record.attempts[-1].number
            keys = (layout.lease(number), layout.presence(number))
            before = [store.get_message(key, Lease) for key in keys]
            holds_s = [one.expires_after_s for one in before if one is not None]
            if not holds_s:
                return None  # it has just been opened, and its process says nothing yet
            lasts_s = max(holds_s) + LONGER_S if watch_s is None else watch_s
            deadline = time.monotonic() + lasts_s
            while time.monotonic() < deadline:
                time.sleep(min(WATCH_EVERY_S, lasts_s))
                if [store.get_message(key, Lease) for key in keys] != before:
                    return True
        except StoreError as error:
            log.warning("nothing is known of %s: %s", run_id, error)
            return None
        return False

    return says


@flow(name="relay-load-sweep", persist_result=False)
def sweep(
    region: str = ALL_REGIONS,
    store: str | None = None,
    flow_run: str | None = None,
    dry_run: bool = False,
    aws_credentials_block: str = "",
) -> list[str]:
    """Remove what has outlived its run, in one region or all, and make the reports that are owed.

    Returns what it found and made. A report is owed by a run that ended without one.

    `store` (s3://bucket/prefix or block:NAME; else RELAY_LOAD_STORE, or the local one) lets it
    see which runs are alive; without one, expiry alone decides. `flow_run` is the id of one whose
    heartbeat has stopped: if nobody raises its lease it is marked as crashed, and what it holds
    goes at once. It is looked for in the store that it was itself given, if it was; of one that
    is not there nothing is known, and nothing of it goes before its time. Without AWS
    credentials, by `aws_credentials_block` or the usual chain, nothing is looked for in an
    account. Raises FleetError if something remains.
    """
    block = aws_credentials_block
    identity = UUID(flow_run.removeprefix(FLOW_RUN)) if flow_run else None
    own = _store_of(identity) if identity else None
    url = own or store or os.environ.get("RELAY_LOAD_STORE")
    results = Path(os.environ.get("RELAY_LOAD_RESULTS") or "results")
    with opened_store(url, results) as runs:
        is_running = running_by_lease(runs) if runs else lambda _: None
        run_id = None
        if identity:
            run_id = identity.hex[-RUN_TAIL:]
            names = [name for name in runs.folders(RUNS) if name.endswith(run_id)] if runs else []
            goes_on = [is_running(name) for name in names]
            if any(goes_on):
                get_run_logger().info("%s goes on: its lease is alive", names[0])
                return []
            if False not in goes_on:
                get_run_logger().warning(
                    "nothing is known of a run …%s in %s: what it holds goes when its time is over",
                    run_id,
                    url or "the local store",
                )
                return []
            if not dry_run:
                _mark_crashed(identity)
        try:
            # What costs money comes first; whatever becomes of it, reports are made.
            told = (
                _remove(region, run_id, is_running, dry_run=dry_run, block=block)
                if has_account(block)
                else []
            )
        finally:
            owed = _report(runs, results, run_id or "", dry_run=dry_run) if runs else []
    return [*told, *(f"the report of {name}" for name in owed)]


def _remove(
    region: str, run_id: str | None, is_running: IsRunning, *, dry_run: bool, block: str
) -> list[str]:
    """Remove what has outlived its run; return what there was. Raises FleetError."""
    found = find_leftovers(
        regions_of(region, block=block), run_id=run_id, is_running=is_running, block=block
    )
    told = [f"{one.region}: {one.resource} of {one.resource.run_id}" for one in found]
    for name, one in zip(told, found, strict=True):
        get_run_logger().info("%s, since %s", name, one.reason)
    left = [] if dry_run else remove_leftovers(found, block=block)
    if left:
        raise FleetError(
            "These remain: " + ", ".join(f"{one.region}: {one.resource}" for one in left) + ".",
            hint="Look at them in the EC2 console.",
        )
    return told


def _report(store: Store, results: Path, tail: str, *, dry_run: bool) -> list[str]:
    """Make the reports that are owed; return their runs. A store that is away ends no sweep."""
    try:
        if dry_run:
            return [record.run_id for record in owed_reports(store, tail=tail)]
        made = make_owed_reports(store, results, tail=tail)
    except StoreError as error:
        get_run_logger().warning("no report could be made: %s", error)
        return []
    for run_id in made:
        get_run_logger().info("the report of %s was owed, and is made", run_id)
    return made


def _store_of(identity: UUID) -> str | None:
    """Return the store that a flow run was given as its parameter, if it was."""
    with get_client(sync_client=True) as client:
        try:
            given = client.read_flow_run(identity).parameters.get("store")
        except ObjectNotFound:
            return None
    return given if isinstance(given, str) and given else None


def _mark_crashed(identity: UUID) -> None:
    """Say in Prefect that a flow run is over whose process is gone: its slot is free then."""
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(identity)
        except ObjectNotFound:
            return
        if run.state is not None and not run.state.is_final():
            why = "Its heartbeat stopped, and nobody raises its lease."
            crashed: State[None] = Crashed(message=why)
            client.set_flow_run_state(identity, crashed, force=True)
            get_run_logger().warning("%s is marked as crashed", run.name)
