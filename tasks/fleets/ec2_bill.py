"""What a run's machines cost: which there were, how long each lived, and at what price.

`runs/<run-id>/bill.json` is written at every release, by whoever releases.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from run_store.layout import RunLayout
from run_store.store import Store
from scenarios.model import FleetSpec
from tasks.cost import Machine, actual_usd
from tasks.fleets.ec2_prices import current_prices
from tasks.fleets.ec2_resources import ATTEMPT, RUN, ec2_client, explained
from tasks.prices import Prices
from tasks.run_context import RunContext

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)

_ENDED = re.compile(r"\((\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2})[^)]*\)")
_OVER = ("shutting-down", "terminated")


class Rented(BaseModel):
    """One machine. Instants are in seconds since the epoch; `until_s` is None while it runs."""

    id: str
    kind: str
    spot: bool
    attempt: int
    from_s: float
    until_s: float | None = None
    usd_per_hour: float | None = None
    has_address: bool = True


class Bill(BaseModel):
    """All machines of a run, of all its attempts."""

    machines: list[Rented] = []

    def usd(self, now_s: float, *, ended: Mapping[int, float] | None = None) -> float | None:
        """Return what they have cost until now; None if a price is not known.

        `ended` says when attempts were over that may have been killed before they could write
        down the end of their machines.
        """
        over = ended or {}
        return actual_usd(
            [
                Machine(
                    kind=one.kind,
                    lived_s=max(
                        (one.until_s or over.get(one.attempt) or now_s) - one.from_s,
                        0.0,
                    ),
                    usd_per_hour=one.usd_per_hour,
                    has_address=one.has_address,
                )
                for one in self.machines
            ]
        )


def read_bill(store: Store, run_id: str) -> Bill:
    """Return a run's bill; an empty one if nothing was rented. Raises StoreError."""
    return store.get_message(_key(run_id), Bill) or Bill()


def machines_noted(context: RunContext) -> None:
    """Write down a run's machines before they go; what hinders that hinders no release."""
    fleet = context.scenario.fleet
    try:
        client = ec2_client(fleet.region, fleet.aws_credentials_block)
        note_machines(client, context.store(), context.run_id, fleet)
    except Exception:
        log.exception("what the run's machines cost will not be known")


def machines_gone(context: RunContext, ids: Collection[str]) -> None:
    """Write down that these of a run's machines were given back just now; likewise."""
    try:
        close_bill(context.store(), context.run_id, ids, at_s=time.time())
    except Exception:
        log.exception("what the run's machines cost will not be known")


def note_machines(client: EC2Client, store: Store, run_id: str, fleet: FleetSpec) -> None:
    """Write down the machines that a run has, with their prices, before they go.

    Those that are known keep what is known of them, but for an end that was not. Raises
    FleetError or StoreError.
    """
    bill = read_bill(store, run_id)
    known = {one.id: one for one in bill.machines}
    with explained("describe the run's machines"):
        filters: list[Any] = [{"Name": f"tag:{RUN}", "Values": [run_id]}]
        pages = list(client.get_paginator("describe_instances").paginate(Filters=filters))
    instances: list[Any] = [
        one
        for page in pages
        for reservation in page["Reservations"]
        for one in reservation["Instances"]
    ]
    ended = [one for one in instances if _ends(one, known.get(one["InstanceId"]))]
    new = [one for one in instances if one["InstanceId"] not in known]
    if new:
        prices = current_prices(fleet)
        bill.machines += [_rented(one, prices) for one in new]
    if new or ended:
        store.put_message(_key(run_id), bill)


def _ends(instance: Any, noted: Rented | None) -> bool:
    """Note when a machine ended that was noted before; say whether that is news."""
    if noted is None or noted.until_s is not None:
        return False
    noted.until_s = ended_at_s(instance)
    return noted.until_s is not None


def _rented(instance: Any, prices: Prices) -> Rented:
    """Return what a bill says of a machine that EC2 has described."""
    spot = instance.get("InstanceLifecycle") == "spot"
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    return Rented(
        id=instance["InstanceId"],
        kind=instance["InstanceType"],
        spot=spot,
        attempt=int(tags.get(ATTEMPT, "1")),
        from_s=instance["LaunchTime"].timestamp(),
        until_s=ended_at_s(instance),
        usd_per_hour=prices.of(instance["InstanceType"], spot=spot),
        has_address="PublicIpAddress" in instance,
    )


def close_bill(store: Store, run_id: str, ids: Collection[str], *, at_s: float) -> None:
    """Write down when those of these machines that still ran were given back. Raises StoreError."""
    bill = read_bill(store, run_id)
    still = [one for one in bill.machines if one.until_s is None and one.id in ids]
    for one in still:
        one.until_s = at_s
    if still:
        store.put_message(_key(run_id), bill)


def ended_at_s(instance: Any) -> float | None:
    """Return when a machine ended, as EC2 tells it in a sentence; None while it runs.

    "Server.SpotInstanceTermination: ..." names no instant; then it is now.
    """
    if instance["State"]["Name"] not in _OVER:
        return None
    found = _ENDED.search(instance.get("StateTransitionReason", ""))
    if not found:
        return time.time()
    return dt.datetime.fromisoformat(found[1]).replace(tzinfo=dt.UTC).timestamp()


def _key(run_id: str) -> str:
    return f"{RunLayout(run_id).root}bill.json"
