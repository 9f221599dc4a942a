from __future__ import annotations

import asyncio

import psutil
import pytest

from tests.waiting import wait_for
from tests.worker_agent.orchestration import kill_browsers
from worker_agent.browsers import Browsers, Housing
from worker_agent.chromium import require_chromium
from worker_agent.clock import RunClock

pytestmark = pytest.mark.browser


async def test_a_browser_that_ends_is_told_once_and_a_closed_one_is_not() -> None:
    """Also one that had no page yet; the next page gets a browser of its own."""
    told: list[bool] = []
    before = set(psutil.Process().children(recursive=True))
    async with Browsers(
        housing=Housing("context", 1), chromium=require_chromium(), clock=RunClock(), settings={}
    ) as browsers:
        browsers.on_browser_lost = lambda: told.append(True)
        await browsers.new_context()
        kill_browsers(set(psutil.Process().children(recursive=True)) - before)
        await asyncio.to_thread(wait_for, lambda: told)
        await browsers.new_context()
    assert told == [True]
