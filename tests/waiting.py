"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T],
    *,
    within_s: float = 60.0,
    why: Callable[[], object] | str = "",
    every_s: float = 0.05,
) -> T:
    """Return the condition's first true value; AssertionError, which says `why`, if none came."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            said = why() if callable(why) else why
            raise AssertionError(f"nothing within {within_s:g} s: {said}")
        time.sleep(every_s)
    return value
