"""A run's money: what it will cost, said before it starts, and its end when that is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from run_store.errors import FleetError
from scenarios.durations import format_duration
from scenarios.model import Scenario
from tasks.cost import Estimate, check_budget, estimate, seconds_within
from tasks.observation import current_observer
from tasks.prices import TABLE, Prices

WIND_DOWN_S = 180.0
"""What a run keeps back of its budget's time for cool-down, last samples and teardown."""


async def estimated(scenario: Scenario, fleet: str) -> Estimate | None:
    """Return what a run will cost, by the prices of now where AWS can be asked."""
    return estimate(scenario, fleet=fleet, prices=await prices_for(scenario, fleet))


async def prices_for(scenario: Scenario, fleet: str) -> Prices:
    """Return the prices of now of what a scenario rents; the project's own without AWS."""
    if fleet != "ec2":
        return TABLE
    # boto3 is slow to import, and only rented machines have prices.
    from tasks.fleets.ec2_prices import current_prices  # noqa: PLC0415

    return await asyncio.to_thread(current_prices, scenario.fleet) or TABLE


def agree(scenario: Scenario, cost: Estimate | None) -> None:
    """Say what a run will cost; raise FleetError if its scenario does not allow that."""
    if cost is None or cost.usd:
        current_observer().step("estimate", in_words(cost))
        check_budget(scenario, cost)


def in_words(cost: Estimate | None) -> str:
    """Return an estimate as one line."""
    if cost is None:
        return "no price of its instance types is known"
    if not cost.usd:
        return f"nothing: {cost.source}"
    return f"about ${cost.usd:.2f}, ${cost.usd_per_hour:.2f} an hour, by {cost.source}"


class BudgetKeeper:
    """Ends a run in order when its `max_usd` is nearly spent, for as long as an `async with`.

    The clock starts with it: enter it before anything is rented. `spent_usd` is what earlier
    attempts at the run have cost. Raises FleetError if nothing is left of its budget.
    """

    def __init__(self, scenario: Scenario, cost: Estimate | None, *, spent_usd: float = 0) -> None:
        limit = scenario.max_usd
        self._max_usd = limit
        self._stays_s = seconds_within(None if limit is None else limit - spent_usd, cost)
        self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        if self._stays_s is not None and self._stays_s <= 0:
            raise FleetError(
                f"Its budget of ${self._max_usd:.2f} was spent by earlier attempts.",
                hint="Raise max_usd, or start a new run.",
            )
        self._began_s = asyncio.get_running_loop().time()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer:
            self._timer.cancel()

    def ends(self, end: Callable[[str], None]) -> None:
        """Have `end` called, with the reason, when it is time to wind down."""
        if self._stays_s is None:
            return
        kept_back_s = min(WIND_DOWN_S, self._stays_s / 10)
        at_s = self._began_s + self._stays_s - kept_back_s
        self._timer = asyncio.get_running_loop().call_at(at_s, self._spent, end)

    def _spent(self, end: Callable[[str], None]) -> None:
        end(
            f"its budget of ${self._max_usd:.2f} is spent after "
            f"{format_duration(self._stays_s or 0)}"
        )
