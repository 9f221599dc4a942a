from __future__ import annotations

import asyncio
import contextlib

import psutil
import pytest

from tests.waiting import wait_for
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
        for process in set(psutil.Process().children(recursive=True)) - before:
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if "chrom" in words[0] and not any(word.startswith("--type=") for word in words):
                    process.kill()
        await asyncio.to_thread(wait_for, lambda: told)
        await browsers.new_context()
    assert told == [True]
