"""Spot prices as EC2 says they are now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from tasks.fleets.ec2_resources import explained

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


def spot_usd_per_hour(client: EC2Client, instance_types: Sequence[str]) -> dict[str, float]:
    """Return what one spot machine of each type costs an hour: the mean over the region's zones.

    A type without a price in the last day is left out. Raises FleetError.
    """
    newest: dict[tuple[str, str], tuple[dt.datetime, float]] = {}
    with explained("look up spot prices"):
        pages = client.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=list(instance_types),  # type: ignore[arg-type]  # a scenario's text
            ProductDescriptions=["Linux/UNIX"],
            StartTime=dt.datetime.now(dt.UTC) - dt.timedelta(days=1),
        )
        for page in pages:
            for entry in page["SpotPriceHistory"]:
                place = entry["InstanceType"], entry["AvailabilityZone"]
                price = entry["Timestamp"], float(entry["SpotPrice"])
                newest[place] = max(price, newest.get(place, price))
    prices: dict[str, list[float]] = {}
    for (kind, _), (_, usd) in newest.items():
        prices.setdefault(kind, []).append(usd)
    return {kind: mean(found) for kind, found in prices.items()}
