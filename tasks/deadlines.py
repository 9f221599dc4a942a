"""How long a step may take at the most: nothing waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from run_store.errors import DeadlineError
from scenarios.durations import format_duration
from scenarios.model import Scenario

PROVISION_WITHIN_S = 900.0
"""Machines that are rented run within three minutes; the rest is for an API that throttles."""
DEPLOY_WITHIN_S = 2400.0
"""Two tries at a host, each four minutes to boot and ten to install, and its browsers."""

AROUND_A_PHASE_S = 100.0
"""What a phase may need beside its length: an instant to begin at, and the last samples."""
AROUND_A_LOAD_S = 1200.0
"""What a whole load may need beside its phases: agents to be ready, a store that is away."""


@contextlib.asynccontextmanager
async def within(seconds: float, step: str) -> AsyncIterator[None]:
    """End what is awaited in a `with` when its time is over; DeadlineError names the step."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineError(
            f"The step {step} took more than {format_duration(seconds)}, and was ended.",
            hint="The run's log says what it waited for.",
        ) from error


def load_lasts_at_most_s(scenario: Scenario) -> float:
    """Return how long a load may take from its agents' start to its last sample, in seconds."""
    return scenario.duration_s + AROUND_A_PHASE_S * len(scenario.phases) + AROUND_A_LOAD_S
