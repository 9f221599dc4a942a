"""Whether the orchestrator still lives, by this worker's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from run_store.messages import Lease

FIRST_LEASE_S = 120.0
"""How long an agent waits for a first lease before it takes the orchestrator for gone."""


class LeaseWatch:
    """Told of each look at the lease; says when it has run out.

    Only time during which the store answered counts: while it does not, nothing is known.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._counter: int | None = None
        self._expires_after_s = FIRST_LEASE_S
        self._age_s = 0.0
        self._looked_at = monotonic()

    def seen(self, lease: Lease | None) -> None:
        """Take what the store answered: the lease, or that there is none."""
        now = self._monotonic()
        if lease is not None and lease.counter != self._counter:
            self._counter = lease.counter
            self._expires_after_s = lease.expires_after_s
            self._age_s = 0.0
        else:
            self._age_s += now - self._looked_at
        self._looked_at = now

    def store_silent(self) -> None:
        """Take that the store did not answer: this time does not count."""
        self._looked_at = self._monotonic()

    @property
    def is_over(self) -> bool:
        """The counter stood still for longer than the lease allows."""
        return self._age_s > self._expires_after_s
