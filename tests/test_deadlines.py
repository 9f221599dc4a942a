from __future__ import annotations

import asyncio

import pytest

from run_store.errors import DeadlineError
from tasks import provision
from tasks.deadlines import within
from tasks.run_context import RunContext


async def test_a_step_that_takes_too_long_is_ended_and_named() -> None:
    """What is awaited is cancelled, and the error names the step and its time."""
    ended = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(DeadlineError, match=r"The step deploy took more than "):
        async with within(0.05, "deploy"):
            await hangs()
    assert ended == [True]


async def test_a_timeout_inside_of_a_step_stays_what_it_is() -> None:
    """Only its own deadline is a step's; one of something in it is that thing's."""
    with pytest.raises(TimeoutError, match="of something in it"):
        async with within(60, "deploy"):
            raise TimeoutError("of something in it")


async def test_renting_has_a_deadline(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that never gives its workers ends the run, and teardown looks for what it made."""

    class Never:
        async def acquire(self, _context: RunContext) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(provision, "fleet_of", lambda _: Never())
    monkeypatch.setattr(provision, "PROVISION_WITHIN_S", 0.05)
    with pytest.raises(DeadlineError, match="provision"):
        await provision.provision.fn(context)
