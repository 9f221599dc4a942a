"""What a run will cost, by a table in the project: pure, and good to a factor of two.

    usd = instances x (minutes of all phases + minutes around them) / 60 x price of one for an hour

The price is that of the scenario's first instance type, times the spot share if it rents spot
instances. Volumes, addresses and traffic are left out: for an hour they are cents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scenarios.model import Scenario

AS_OF = "2025-01"
SOURCE = f"on-demand list prices of EC2 for Linux in eu-north-1, {AS_OF}"
ON_DEMAND_USD_PER_HOUR = {
    "c5.xlarge": 0.182,
    "c5a.xlarge": 0.164,
    "c6i.xlarge": 0.182,
    "c6a.xlarge": 0.1638,
    "m5.xlarge": 0.204,
    "c5.2xlarge": 0.364,
    "c5a.2xlarge": 0.328,
    "c6i.2xlarge": 0.364,
    "c6a.2xlarge": 0.3276,
    "m5.2xlarge": 0.408,
}
"""US dollars for one instance and one hour; see SOURCE. Other regions differ by about 10 %."""
SPOT_SHARE = 0.35
"""What spot costs of the on-demand price: usual figures lie between 0.3 and 0.5."""
OVERHEAD_S = 10 * 60.0
"""Paid time beside the phases: 5 min to provision, 3 to deploy, 1 each to report and tear down."""


@dataclass(frozen=True)
class Estimate:
    """US dollars for the whole run and for one hour of it; `source` says by which prices."""

    usd: float
    usd_per_hour: float
    source: str


@dataclass(frozen=True)
class Actual:
    """What a run did cost in US dollars, and that for 1000 connection-minutes of load."""

    usd: float
    usd_per_1000_connection_minutes: float | None


VOLUME_USD_PER_HOUR = 20 * 0.0836 / 730
"""A worker's 20 GiB of gp3, by the list price of a GiB-month in eu-north-1; a month has 730 h."""
BILLED_AT_LEAST_S = 60.0
"""EC2 bills Linux by the second, and the first minute in full."""


def actual(
    machines: Mapping[str, tuple[str, float]],
    usd_per_hour: Mapping[str, float],
    *,
    connection_minutes: float,
) -> Actual | None:
    """Return what machines cost: `machines` maps each to its type and the seconds it lived.

    None if the price of a type is not known.
    """
    usd = 0.0
    for kind, lived_s in machines.values():
        price = usd_per_hour.get(kind)
        if price is None:
            return None
        usd += max(lived_s, BILLED_AT_LEAST_S) / 3600 * (price + VOLUME_USD_PER_HOUR)
    per_thousand = usd / connection_minutes * 1000 if connection_minutes > 0 else None
    return Actual(usd=usd, usd_per_1000_connection_minutes=per_thousand)


def estimate_by_spot(scenario: Scenario, usd_per_hour: Mapping[str, float]) -> Estimate | None:
    """Return what a run will cost at the spot prices that hold now, volumes included.

    The dearest of the scenario's types counts, since capacity decides which are given. None if
    no type has a price, or the scenario rents no spot machines.
    """
    prices = [usd_per_hour[kind] for kind in scenario.fleet.instance_types if kind in usd_per_hour]
    if not prices or not scenario.fleet.spot:
        return None
    per_hour = scenario.fleet.workers * (max(prices) + VOLUME_USD_PER_HOUR)
    return Estimate(
        usd=per_hour * (scenario.duration_s + OVERHEAD_S) / 3600,
        usd_per_hour=per_hour,
        source=f"spot prices in {scenario.fleet.region} now, the dearest of its types",
    )


def estimate(scenario: Scenario, *, fleet: str | None = None) -> Estimate | None:
    """Return what a run of this scenario will cost; None if its instance type has no price.

    `fleet` is the kind that is used in place of the scenario's own. A fleet that rents nothing
    costs nothing.
    """
    kind = fleet or scenario.fleet.kind
    if kind != "ec2":
        return Estimate(usd=0.0, usd_per_hour=0.0, source=f"a {kind} fleet rents nothing")
    price = ON_DEMAND_USD_PER_HOUR.get(scenario.fleet.instance_types[0])
    if price is None:
        return None
    share = SPOT_SHARE if scenario.fleet.spot else 1.0
    per_hour = scenario.fleet.workers * price * share
    return Estimate(
        usd=per_hour * (scenario.duration_s + OVERHEAD_S) / 3600,
        usd_per_hour=per_hour,
        source=f"{SOURCE}, spot at {SPOT_SHARE:.0%}" if scenario.fleet.spot else SOURCE,
    )
