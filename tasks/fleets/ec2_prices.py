"""Prices as AWS says they are now: of spot machines, and on demand."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from run_store.errors import FleetError
from scenarios.model import FleetSpec
from tasks.fleets.aws_account import session_of
from tasks.fleets.ec2_resources import ec2_client, explained
from tasks.prices import SPOT_SHARE, TABLE, Prices

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)

PRICING_REGION = "us-east-1"
"""The price list of all regions is served from here, and from few other places."""
QUICKLY = Config(
    connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"}
)


def has_account(block: str = "") -> bool:
    """Say whether any AWS credentials are configured here, or in a block of Prefect's.

    Raises UsageError if there is no such block.
    """
    try:
        return session_of(block).get_credentials() is not None
    except BotoCoreError:
        return False


def current_prices(fleet: FleetSpec) -> Prices:
    """Return what a fleet's types cost now; where AWS does not say, what the table says.

    Its `source` names where each kind of price is from, and the day. Never raises.
    """
    if not has_account(fleet.aws_credentials_block):
        return TABLE
    spot: Mapping[str, float] = {}
    if fleet.spot:
        try:
            spot = spot_usd_per_hour(
                ec2_client(fleet.region, fleet.aws_credentials_block, options=QUICKLY),
                fleet.instance_types,
            )
        except FleetError as error:
            log.warning("%s The project's own table is used.", error)
    listed = on_demand_usd_per_hour(fleet)
    on_demand = {**TABLE.on_demand, **listed}
    shared = {kind: usd * SPOT_SHARE for kind, usd in on_demand.items()}
    asked = spot if fleet.spot else listed
    if not any(kind in asked for kind in fleet.instance_types):
        return Prices(on_demand=on_demand, spot=shared, source=TABLE.source)
    what = "spot price history" if fleet.spot else "price list"
    return Prices(
        on_demand=on_demand,
        spot=spot or shared,
        source=f"EC2's {what} of {fleet.region}, {dt.datetime.now(dt.UTC):%Y-%m-%d}",
    )


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


def on_demand_usd_per_hour(fleet: FleetSpec) -> dict[str, float]:
    """Return the list price of a fleet's types for Linux; what AWS does not say is left out.

    The price list is a service of its own, with a permission of its own, and never needed.
    """
    session = session_of(fleet.aws_credentials_block)
    found: dict[str, float] = {}
    try:
        client: Any = session.client("pricing", region_name=PRICING_REGION, config=QUICKLY)
        for kind in fleet.instance_types:
            answer = client.get_products(
                ServiceCode="AmazonEC2", Filters=_wanted(fleet.region, kind), MaxResults=10
            )
            prices = [usd for text in answer["PriceList"] if (usd := listed_usd(text)) is not None]
            if prices:
                found[kind] = max(prices)
    except (ClientError, BotoCoreError) as error:
        log.info("AWS's price list did not answer: %s", error)
    return found


def listed_usd(text: str) -> float | None:
    """Return the hourly on-demand price in one entry of AWS's price list (JSON); None if none.

    An entry is `terms.OnDemand.<offer>.priceDimensions.<rate>.pricePerUnit.USD`.
    """
    try:
        offers = json.loads(text)["terms"]["OnDemand"].values()
        rates = [rate for offer in offers for rate in offer["priceDimensions"].values()]
        prices = [float(rate["pricePerUnit"]["USD"]) for rate in rates if rate["unit"] == "Hrs"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return max((usd for usd in prices if usd > 0), default=None)


def _wanted(region: str, kind: str) -> list[dict[str, str]]:
    values = {
        "instanceType": kind,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    return [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in values.items()]
