"""Checks of what a run needs: each is ok, failed with a remedy, or skipped with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from run_store.errors import RelayLoadError


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was seen, and what to do about it if it failed."""

    name: str
    state: Literal["ok", "failed", "skipped"]
    said: str
    remedy: str = ""


def checked(name: str, look: Callable[[], str], *, remedy: str = "") -> Check:
    """Return how a look went: what it says, or the error that it raised, with its own hint."""
    try:
        return Check(name, "ok", look())
    except RelayLoadError as error:
        return Check(name, "failed", error.message, error.hint or remedy)
