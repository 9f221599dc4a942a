"""What becomes of samples: into the spool, and into the sums of the heartbeat."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from run_store.histogram import Histogram
from run_store.messages import Counts
from worker_agent.clock import RunClock
from worker_agent.page_client import Rows
from worker_agent.spool import Spool

log = logging.getLogger(__name__)

_LATENESS_KEPT = 1000
TIMEOUTS = frozenset({"bootstrap_timeout", "connect_timeout", "handshake_timeout"})
"""Failures to connect that the page's own clock has told, and not the relay."""


class Recording:
    """Takes rows of every kind; keeps counts, errors by type and latency histograms.

    `outstanding` holds the edits of the present order that this worker owes a row for.
    """

    def __init__(self, spool: Spool, now_us: Callable[[], int] | None = None) -> None:
        self.spool = spool
        self._now_us = now_us or RunClock().now_us
        self.phase = ""
        self.counts = Counts()
        self.errors: Counter[str] = Counter()
        self.acknowledgement = Histogram()
        self.delivery = Histogram()
        self.lateness = Histogram()
        self.outstanding: dict[int, dict[str, Any]] = {}
        self._lateness: deque[float] = deque(maxlen=_LATENESS_KEPT)

    def take(self, rows: Rows) -> None:
        """Record columns by kind, as a page gives them."""
        for kind, columns in rows.items():
            if self.phase:
                self._append(kind, columns)
        if "edits" in rows:
            self._count_edits(rows["edits"])
        if "deliveries" in rows:
            columns = rows["deliveries"]
            for intended, seen, weight, same in zip(
                columns["intended_us"],
                columns["seen_us"],
                columns["weight"],
                columns["same_worker"],
                strict=True,
            ):
                self.counts.deliveries += weight
                if same:
                    self.delivery.add((seen - intended) / 1000, weight)
        if "errors" in rows:
            for kind, weight in zip(rows["errors"]["type"], rows["errors"]["weight"], strict=True):
                self.errors[kind] += int(weight)
                self.counts.connect_timeouts += int(weight) if kind in TIMEOUTS else 0
        for event in rows.get("connections", {}).get("event", []):
            self.counts.drops += event == "dropped"
            self.counts.connect_failures += event == "failed"

    def row(self, kind: str, **values: Any) -> None:
        """Record one row of a kind; columns that are left out are null."""
        self.take({kind: {name: [value] for name, value in values.items()}})

    def error(self, at_us: int, kind: str, message: str, *, weight: float = 1.0) -> None:
        """Record an error that is not of one connection."""
        self.row(
            "errors", at_us=at_us, type=kind, message=message[:500], connection=None, weight=weight
        )

    def missed(self) -> None:
        """Record every outstanding edit as missed: its page is gone, or never came to it."""
        for edit, row in list(self.outstanding.items()):
            self.row(
                "edits",
                edit=edit,
                **row,
                started_us=None,
                acknowledged_us=None,
                error="missed",
                held=False,
            )

    def lateness_p99_ms(self) -> float:
        """Return the 99th percentile of how late the last edits started, in milliseconds."""
        ordered = sorted(self._lateness)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0

    def _append(self, kind: str, columns: dict[str, list[Any]]) -> None:
        """Put rows into the spool; values that are of no sample's type are an error sample."""
        try:
            self.spool.append(self.phase, kind, columns)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            log.warning("rows of %s are no samples: %s", kind, error)
            self.error(self._now_us(), "bad_sample", f"{kind}: {error}")

    def _count_edits(self, columns: dict[str, list[Any]]) -> None:
        for edit, intended, started, acknowledged, error, held in zip(
            columns["edit"],
            columns["intended_us"],
            columns["started_us"],
            columns["acknowledged_us"],
            columns["error"],
            columns["held"],
            strict=True,
        ):
            self.outstanding.pop(edit, None)
            self.counts.edits_offered += 1
            if error == "missed":
                self.counts.edits_missed += 1
            elif acknowledged is None:
                self.counts.edits_failed += 1
            else:
                self.counts.edits_completed += 1
                self.acknowledgement.add((acknowledged - intended) / 1000)
            if started is not None and not held:
                self._lateness.append((started - intended) / 1000)
                self.lateness.add((started - intended) / 1000)
