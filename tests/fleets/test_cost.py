from __future__ import annotations

import pytest

from scenarios.loading import load_scenario
from tasks.cost import VOLUME_USD_PER_HOUR, actual, estimate_by_spot


def test_actual_cost_counts_seconds_and_the_first_minute() -> None:
    """Each machine costs its seconds, a minute at the least, with its volume."""
    machines = {"i-1": ("c5.xlarge", 3600.0), "i-2": ("c5.xlarge", 5.0)}
    got = actual(machines, {"c5.xlarge": 0.06}, connection_minutes=2000)
    assert got is not None
    wanted = (1 + 1 / 60) * (0.06 + VOLUME_USD_PER_HOUR)
    assert got.usd == pytest.approx(wanted)
    assert got.usd_per_1000_connection_minutes == pytest.approx(wanted / 2)


def test_unknown_price_is_not_guessed() -> None:
    """A type without a price gives no figure, rather than one that is too small."""
    assert actual({"i-1": ("x9.huge", 60.0)}, {}, connection_minutes=1) is None


def test_estimate_takes_the_dearest_type() -> None:
    """Capacity decides which type is given, so the estimate takes the dearest one."""
    scenario = load_scenario("baseline")
    got = estimate_by_spot(scenario, {"c5.xlarge": 0.05, "m5.xlarge": 0.07, "z1d.large": 9.0})
    assert got is not None
    assert got.usd_per_hour == pytest.approx(2 * (0.07 + VOLUME_USD_PER_HOUR))
    assert estimate_by_spot(scenario, {}) is None
