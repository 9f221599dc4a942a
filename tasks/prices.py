"""What EC2 charges: the project's own dated table, for where nobody can ask AWS.

On-demand prices are list prices for Linux with shared tenancy in eu-north-1. Those of c5 and c5a
were compared with a public catalogue of 2025, those of m5 with one of 2019: they have not moved
in that time. c6i is listed at the price of c5, and c6a a tenth below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

AS_OF = "2025"
REGION = "eu-north-1"
SOURCE = f"the project's own table of EC2's list prices in {REGION}, {AS_OF}"
SPOT_SHARE = 0.35
"""What spot costs of the on-demand price. In that catalogue: 0.27 to 0.36 for c5 in eu-north-1."""
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
"""US dollars for one machine and one hour. Other regions differ by about 10 %."""

VOLUME_USD_PER_HOUR = 20 * 0.0836 / 730
"""A worker's 20 GiB of gp3, by the list price of a GiB-month in eu-north-1; a month has 730 h."""
ADDRESS_USD_PER_HOUR = 0.005
"""A public IPv4 address, by its list price since 2024."""
WRITES_USD_PER_1000, READS_USD_PER_1000 = 0.005, 0.0004
"""Requests to S3 Standard, by list price."""
OUT_USD_PER_GB = 0.09
"""Traffic from EC2 to the internet. To a relay in the same region it is 0.01 or nothing."""


@dataclass(frozen=True)
class Prices:
    """US dollars for one machine and one hour, by type; `source` says whose word and of when."""

    on_demand: Mapping[str, float]
    spot: Mapping[str, float]
    source: str

    def of(self, kind: str, *, spot: bool) -> float | None:
        """Return the price of a type, or None if it is not known."""
        return (self.spot if spot else self.on_demand).get(kind)

    def dearest(self, kinds: tuple[str, ...], *, spot: bool) -> tuple[str, float] | None:
        """Return the dearest of some types, of which capacity decides which are given."""
        known = [(price, kind) for kind in kinds if (price := self.of(kind, spot=spot)) is not None]
        return (max(known)[1], max(known)[0]) if known else None


TABLE = Prices(
    on_demand=ON_DEMAND_USD_PER_HOUR,
    spot={kind: usd * SPOT_SHARE for kind, usd in ON_DEMAND_USD_PER_HOUR.items()},
    source=f"{SOURCE}, spot at {SPOT_SHARE:.0%} of it",
)
