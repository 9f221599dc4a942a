"""Samples that do not fit on the disk: in memory until they do, deliveries thinned first."""

from __future__ import annotations

import random
from collections import Counter, deque

import pyarrow as pa
import pyarrow.compute as pc

LIMIT_BYTES = 64 * 2**20
"""Memory that samples may take while they cannot be written."""
_LEAST_SHARE = 0.125

Key = tuple[str, str]
"""Phase and kind."""


def thinned(batch: pa.RecordBatch, share: float, draw: random.Random) -> pa.RecordBatch:
    """Return a uniform sample of deliveries, about `share` of them, each with more weight.

    A row is kept or not whatever it holds, and stands for 1/`share` as many as before: sums
    and quantiles over the weights stay unbiased.
    """
    kept = batch.filter(
        pa.array([draw.random() < share for _ in range(batch.num_rows)], pa.bool_())
    )
    at = kept.schema.get_field_index("weight")
    weights = pc.divide(kept.column(at), share)
    return kept.set_column(at, kept.schema.field(at), weights)


class Backlog:
    """Batches in the order in which they came. `lost` counts rows that found no room at all."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.lost: Counter[str] = Counter()
        self._limit_bytes = limit_bytes
        self._batches: deque[tuple[Key, pa.RecordBatch]] = deque()
        self._bytes = 0
        self._draw = random.Random()  # noqa: S311 - which deliveries are kept is no secret

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(batch.num_rows for _, batch in self._batches)

    def keys(self) -> set[Key]:
        """Return the phases and kinds of which something waits."""
        return {key for key, _ in self._batches}

    def add(self, key: Key, batch: pa.RecordBatch) -> None:
        """Put a batch behind the others; makes room for it if there is none."""
        self._batches.append((key, batch))
        self._bytes += batch.nbytes
        while self._bytes > self._limit_bytes and self._batches:
            self._make_room()

    def first(self) -> tuple[Key, pa.RecordBatch]:
        """Return the batch that has waited longest."""
        return self._batches[0]

    def drop_first(self) -> None:
        """Take away the batch that has waited longest: it is written."""
        _, batch = self._batches.popleft()
        self._bytes -= batch.nbytes

    def _make_room(self) -> None:
        """Halve the deliveries; where they are no great part of it, give up what is oldest."""
        deliveries = sum(b.nbytes for (_, kind), b in self._batches if kind == "deliveries")
        if deliveries > self._limit_bytes * _LEAST_SHARE:
            halved = [
                (key, thinned(batch, 0.5, self._draw) if key[1] == "deliveries" else batch)
                for key, batch in self._batches
            ]
            self._batches = deque((key, batch) for key, batch in halved if batch.num_rows)
            self._bytes = sum(batch.nbytes for _, batch in self._batches)
        else:
            (_, kind), batch = self._batches.popleft()
            self._bytes -= batch.nbytes
            self.lost[kind] += batch.num_rows
