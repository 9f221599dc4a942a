"""Rows to write into a spool, and what of them is in the bucket."""

import io
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_store.layout import Part, RunLayout, without_covered
from run_store.samples import SCHEMAS
from run_store.store import Store
from worker_agent.spool import Spool

PHASE = "00-warmup"
StartWriter = Callable[[str], "subprocess.Popen[str]"]
"""Starts `spool_writer.py` in a mode."""


def spool_at(folder: Path, store: Store, run_id: str) -> Spool:
    """Return a spool of the worker `w` in a run."""
    return Spool(folder, store=store, layout=RunLayout(run_id), attempt=1, worker="w")


def edits(numbers: Iterable[int]) -> dict[str, list[Any]]:
    """Return rows of edits with these numbers, as columns."""
    numbered = list(numbers)
    return {
        "edit": numbered,
        "document": [0] * len(numbered),
        "intended_us": [1_700_000_000_000_000 + number for number in numbered],
    }


def deliveries(numbers: Iterable[int]) -> dict[str, list[Any]]:
    """Return rows of deliveries of these edits, each of weight 1."""
    numbered = list(numbers)
    return {"edit": numbered, "weight": [1.0] * len(numbered), "repeat": [1] * len(numbered)}


def parts(store: Store, run_id: str, kind: str = "") -> list[Part]:
    """Return all parts that the bucket has of a run."""
    found = map(Part.from_key, store.keys(RunLayout(run_id).samples(kind)))
    return [part for part in found if part is not None]


def rows(store: Store, run_id: str, kind: str, **where: str) -> list[dict[str, Any]]:
    """Return a run's rows of one kind as a reader finds them, with phase and worker."""
    found = []
    for part in without_covered(parts(store, run_id, kind)):
        if any(getattr(part, name) != value for name, value in where.items()):
            continue
        body = store.get(part.key)
        assert body is not None
        found += [
            {**row, "phase": part.phase, "worker": part.worker}
            for row in pq.read_table(io.BytesIO(body)).to_pylist()
        ]
    return found


def numbers(store_rows: list[dict[str, Any]]) -> list[Any]:
    """Return the numbers of rows of edits."""
    return [row["edit"] for row in store_rows]


def batch(columns: dict[str, list[Any]], kind: str = "edits") -> pa.RecordBatch:
    """Return rows of one kind, given as columns, as Arrow has them."""
    arrays = [
        pa.array(columns.get(field.name, [None] * len(columns["edit"])), type=field.type)
        for field in SCHEMAS[kind]
    ]
    return pa.record_batch(arrays, schema=SCHEMAS[kind])
