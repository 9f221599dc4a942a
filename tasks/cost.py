"""What a run will cost, what it did cost, and whether its scenario allows that: pure functions.

    usd = machines x hours x (machine + volume + address + requests to S3) + data to the relay
    hours = minutes of all phases + 10 minutes around them

A machine's price is that of the dearest type that the scenario names: capacity decides which of
them are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from run_store.errors import FleetError
from scenarios.model import Scenario
from tasks.prices import (
    ADDRESS_USD_PER_HOUR,
    OUT_USD_PER_GB,
    READS_USD_PER_1000,
    TABLE,
    VOLUME_USD_PER_HOUR,
    WRITES_USD_PER_1000,
    Prices,
)

OVERHEAD_S = 10 * 60.0
"""Paid time beside the phases: 5 min to provision, 3 to deploy, 1 each to report and tear down."""
WRITES_PER_HOUR = 3600 + 6 * 120
"""A worker's: a heartbeat each second, and a part of each of six kinds each 30 s."""
READS_PER_HOUR = 3 * 3600
"""A worker's: it looks for orders twice a second, and for the lease."""
BYTES_OUT_PER_DELIVERY = 300
"""What a replica answers to the relay for each change that it receives: an assumption."""
BILLED_AT_LEAST_S = 60.0
"""EC2 bills Linux by the second, and the first minute in full."""


@dataclass(frozen=True)
class Item:
    """One line of an estimate: `count` machines, for `hours`, at `usd_per_hour` each."""

    what: str
    count: float
    hours: float
    usd_per_hour: float

    @property
    def usd(self) -> float:
        """The line's sum."""
        return self.count * self.hours * self.usd_per_hour


@dataclass(frozen=True)
class Estimate:
    """US dollars for the whole run and for one hour of it; `source` says by which prices."""

    usd: float
    usd_per_hour: float
    source: str
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Machine:
    """A machine that was rented: its type, how long it lived, and its price."""

    kind: str
    lived_s: float
    usd_per_hour: float | None
    has_address: bool = True


def estimate(
    scenario: Scenario, *, fleet: str | None = None, prices: Prices = TABLE
) -> Estimate | None:
    """Return what a run of this scenario will cost; None if none of its types has a price.

    `fleet` is the kind that is used in place of the scenario's own. A fleet that rents nothing
    costs nothing.
    """
    kind = fleet or scenario.fleet.kind
    if kind != "ec2":
        return Estimate(usd=0.0, usd_per_hour=0.0, source=f"a {kind} fleet rents nothing")
    spot = scenario.fleet.spot
    found = prices.dearest(scenario.fleet.instance_types, spot=spot)
    if found is None:
        return None
    dearest, usd_per_hour = found
    hours, workers = (scenario.duration_s + OVERHEAD_S) / 3600, scenario.fleet.workers
    with_address = 0 if scenario.fleet.addresses == "private" else workers
    requests = WRITES_PER_HOUR * WRITES_USD_PER_1000 + READS_PER_HOUR * READS_USD_PER_1000
    gigabytes = planned_deliveries(scenario) * BYTES_OUT_PER_DELIVERY / 1e9
    data_per_hour = gigabytes * OUT_USD_PER_GB / hours
    items = (
        Item(f"{dearest} {'spot' if spot else 'on demand'}", workers, hours, usd_per_hour),
        Item("20 GiB volume", workers, hours, VOLUME_USD_PER_HOUR),
        Item("public address", with_address, hours, ADDRESS_USD_PER_HOUR),
        Item("requests to S3", workers, hours, requests / 1000),
        Item(f"data to the relay, {gigabytes:.2f} GB", 1, hours, data_per_hour),
    )
    usd = sum(item.usd for item in items)
    return Estimate(usd=usd, usd_per_hour=usd / hours, source=prices.source, items=items)


def planned_deliveries(scenario: Scenario) -> float:
    """Return how many deliveries a run plans: each edit, to all other members of its document.

    Of a phase that goes on in steps it is the most: as if all of it were at its limit.
    """
    total = 0.0
    for phase in scenario.phases:
        start = phase.edits_per_minute_start
        first = phase.edits_per_minute if start is None else start
        mean = (first + phase.edits_per_minute) / 2
        per_minute = phase.most_edits_per_minute if phase.has_steps else mean
        edits = per_minute * phase.duration_s / 60
        members = members_of_document(scenario, scenario.most_connections_in(phase))
        total += edits * max(members - 1, 0)
    return total


def members_of_document(scenario: Scenario, connections: float) -> float:
    """Return how many of so many connections share a document."""
    return min(connections, scenario.connections_per_document or connections)


def check_budget(scenario: Scenario, cost: Estimate | None) -> None:
    """Raise FleetError if a run would cost more than its scenario allows."""
    limits = (scenario.max_usd_per_hour, scenario.max_usd)
    if limits == (None, None):
        return
    if cost is None:
        raise FleetError(
            f"No price of {', '.join(scenario.fleet.instance_types)} is known: the scenario's "
            "budget cannot be kept.",
            hint="Take another instance type, or leave out max_usd and max_usd_per_hour.",
        )
    sums = (cost.usd_per_hour, cost.usd)
    names = (("an hour", "max_usd_per_hour"), ("in all", "max_usd"))
    for limit, usd, (what, name) in zip(limits, sums, names, strict=True):
        if limit is not None and usd > limit:
            raise FleetError(
                f"The run would cost ${usd:.2f} {what} ({cost.source}), and its scenario "
                f"allows ${limit:.2f}.",
                hint=f"Take fewer workers, cheaper types or less load; or raise {name}.",
            )


def seconds_within(max_usd: float | None, cost: Estimate | None) -> float | None:
    """Return how long a fleet may stay before it has cost `max_usd`; None if for ever."""
    if max_usd is None or cost is None or cost.usd_per_hour <= 0:
        return None
    return max_usd / cost.usd_per_hour * 3600


def actual_usd(machines: Sequence[Machine]) -> float | None:
    """Return what machines cost; None if the price of one is not known.

    Each costs its seconds, a minute at the least, with its volume and its public address.
    """
    usd = 0.0
    for machine in machines:
        if machine.usd_per_hour is None:
            return None
        hours = max(machine.lived_s, BILLED_AT_LEAST_S) / 3600
        address = ADDRESS_USD_PER_HOUR if machine.has_address else 0.0
        usd += hours * (machine.usd_per_hour + VOLUME_USD_PER_HOUR + address)
    return usd
