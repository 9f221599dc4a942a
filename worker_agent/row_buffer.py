"""Samples of users' own pages, in columns, kept until the agent records them.

The rules are those of the page's own recorder (page/src/recorder.js): the rows of a kind are
thinned by what the second before held, and what was left out stands in the weights.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from worker_agent.clock import RunClock
from worker_agent.page_client import Rows

ERRORS_KEPT_PER_S = 100
_STALE_AFTER_S = 5.0
"""A second so long ago says nothing of the rate now."""


class RowBuffer:
    """Takes rows one by one; `drain` gives them as columns, as a page does."""

    def __init__(self, clock: RunClock, deliveries_per_s: float) -> None:
        self._clock = clock
        self._deliveries_per_s = deliveries_per_s
        self._rows: Rows = {}
        self._window_us = clock.now_us()
        self._deliveries = 0
        self._keep = 1.0
        self._errors: Counter[str] = Counter()

    def add(self, kind: str, **values: Any) -> None:
        """Add one row; every row of a kind has the same columns."""
        columns = self._rows.setdefault(kind, {name: [] for name in values})
        for name, value in values.items():
            columns[name].append(value)

    def delivery_weight(self) -> float | None:
        """Decide whether the next delivery is kept: its weight, or None to leave it out.

        The share that is kept follows from the second before, so weighting by its inverse is
        unbiased.
        """
        self._turn()
        self._deliveries += 1
        if self._keep < 1 and random.random() >= self._keep:  # noqa: S311 - a sample, no secret
            return None
        return 1 / self._keep

    def error(self, kind: str, message: str, connection: int, document: int) -> None:
        """Add an error of one connection; beyond 100 of a kind a second they are counted only."""
        self._turn()
        self._errors[kind] += 1
        if self._errors[kind] <= ERRORS_KEPT_PER_S:
            self._error_row(kind, message[:500], connection, document, 1.0)

    def drain(self) -> Rows:
        """Return all rows since the last call, as columns by kind."""
        self._turn()
        rows, self._rows = self._rows, {}
        return rows

    def _turn(self) -> None:
        """Start a new second if the last one is over."""
        now_us = self._clock.now_us()
        length_s = (now_us - self._window_us) / 1e6
        if length_s < 1:
            return
        rate = self._deliveries / length_s if length_s < _STALE_AFTER_S else 0.0
        self._keep = self._deliveries_per_s / rate if rate > self._deliveries_per_s else 1.0
        for kind, count in self._errors.items():
            if (more := count - ERRORS_KEPT_PER_S) > 0:
                message = f"{more} more of this kind in one second"
                self._error_row(kind, message, None, None, float(more))
        self._window_us, self._deliveries = now_us, 0
        self._errors.clear()

    def _error_row(
        self, kind: str, message: str, connection: int | None, document: int | None, weight: float
    ) -> None:
        self.add(
            "errors",
            at_us=self._clock.now_us(),
            type=kind,
            message=message,
            connection=connection,
            document=document,
            weight=weight,
        )
