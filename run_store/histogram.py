"""A mergeable latency histogram, for the live display only.

Buckets grow by a fixed ratio, so any quantile is within 2.5 % of the truth. A report's
percentiles never come from here: they are computed from the pooled samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import BaseModel

_RATIO = 1.05
_LOWEST_MS = 0.05


class Histogram(BaseModel):
    """Counts of latencies by bucket; add() and merge() fold, quantile() asks."""

    counts: dict[int, float] = {}

    @property
    def count(self) -> float:
        """Number of latencies, with their weights."""
        return sum(self.counts.values())

    def add(self, latency_ms: float, weight: float = 1.0) -> None:
        """Count one latency in milliseconds."""
        bucket = max(0, math.ceil(math.log(max(latency_ms, _LOWEST_MS) / _LOWEST_MS, _RATIO)))
        self.counts[bucket] = self.counts.get(bucket, 0.0) + weight

    def quantile(self, q: float) -> float | None:
        """Return the q-quantile in milliseconds (0 <= q <= 1); None when empty."""
        wanted, seen = q * self.count, 0.0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return _middle_ms(bucket)
        return None

    @property
    def mean(self) -> float | None:
        """The mean in milliseconds; None when empty."""
        if not self.count:
            return None
        return sum(_middle_ms(bucket) * n for bucket, n in self.counts.items()) / self.count

    def above(self, limit_ms: float) -> float:
        """Return how many latencies are longer than a limit, in milliseconds."""
        return sum(n for bucket, n in self.counts.items() if _middle_ms(bucket) > limit_ms)

    def since(self, earlier: Histogram) -> Histogram:
        """Return what was counted after `earlier`, an older state of this histogram."""
        rest = {bucket: n - earlier.counts.get(bucket, 0.0) for bucket, n in self.counts.items()}
        return Histogram(counts={bucket: n for bucket, n in rest.items() if n > 0})


def _middle_ms(bucket: int) -> float:
    return float(_LOWEST_MS * _RATIO ** (bucket - 0.5))


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """Return one histogram that counts what all of these count."""
    counts: dict[int, float] = {}
    for histogram in histograms:
        for bucket, count in histogram.counts.items():
            counts[bucket] = counts.get(bucket, 0.0) + count
    return Histogram(counts=counts)
