"""Conducting with a fleet whose agents are tasks of the test, and in a hurry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tasks import conductor as conductor_module
from tasks import instants, roll_call
from tasks.run_context import RunContext
from tests.fake_fleet import FakeFleet


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instants, "BEGINS_AFTER_S", 0.4)
    monkeypatch.setattr(conductor_module, "LOOK_EVERY_S", 0.2)
    # Agents and conductor are one process: where it halts no agent shall be lost for its silence.
    monkeypatch.setattr(roll_call, "SILENT_AFTER_S", 60.0)


@pytest.fixture
async def fleet(context: RunContext) -> AsyncIterator[FakeFleet]:
    fleet = FakeFleet()
    yield fleet
    await fleet.release(context)
