from __future__ import annotations

import asyncio

import pytest

from run_store.errors import FleetError
from scenarios.loading import load_scenario
from scenarios.model import Scenario
from tasks.budget import BudgetKeeper
from tasks.cost import Estimate

A_DOLLAR_A_SECOND = Estimate(usd=60, usd_per_hour=3600, source="a test")


def limited(max_usd: float | None) -> Scenario:
    return load_scenario("heavy", {} if max_usd is None else {"max_usd": max_usd})


async def reason(scenario: Scenario, *, spent_usd: float = 0, within_s: float = 60) -> str:
    """Return why a run is wound down within that time; empty if it is not."""
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with BudgetKeeper(scenario, A_DOLLAR_A_SECOND, spent_usd=spent_usd) as budget:
        budget.ends(said.set_result)
        try:
            return await asyncio.wait_for(said, within_s)
        except TimeoutError:
            return ""


async def test_a_run_ends_when_its_budget_is_spent() -> None:
    """The load is ended in order, with the sum in the reason, while there is time for it."""
    assert (await reason(limited(0.3))).startswith("its budget of $0.30 is spent")


async def test_a_run_within_its_budget_goes_on() -> None:
    """A budget that is larger than the time costs, or none at all, ends nothing."""
    assert await reason(limited(600), within_s=2) == ""
    assert await reason(limited(None), spent_usd=1000, within_s=2) == ""


async def test_earlier_attempts_count() -> None:
    """A retry has what its run has left; a run that has nothing left rents nothing."""
    assert (await reason(limited(10), spent_usd=9.7)).startswith("its budget of $10.00 is spent")
    with pytest.raises(FleetError, match="spent by earlier attempts"):
        await reason(limited(10), spent_usd=10)


async def test_nothing_is_ended_after_the_load() -> None:
    """A keeper that is left calls nobody any more."""
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with BudgetKeeper(limited(0.3), A_DOLLAR_A_SECOND) as budget:
        budget.ends(said.set_result)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(said, 0.6)
