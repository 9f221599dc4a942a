"""What is looked at after each case: processes, rows of samples, and the report."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faults.case import Result
from benchmarks.faults.site import SWEPT_AFTER_S, Site
from run_store.layout import Part, RunLayout, without_covered
from worker_agent.journal import read_batches

Row = tuple[Any, ...]


def audit(site: Site, result: Result) -> None:
    """Fill in what is left of a case: leaks, rows that are not in the bucket, and the report."""
    result.leaks = [*site.gone(), *site.left]
    result.problem = result.problem or "; ".join(site.problems)
    spooled, stored = rows_spooled(site), rows_stored(site)
    result.rows_spooled = sum(spooled.values())
    result.rows_lost = sum((spooled - stored).values())
    # A row that an agent could not note any more before it was killed is in no ledger.
    result.rows_twice = sum(n - spooled[row] for row, n in stored.items() if 0 < spooled[row] < n)
    summary, by = site.summary(), ""
    if not summary and site.run_id():
        summary, by = _swept(site), " (made by the sweep)"
    result.report = f"{_report(summary)}{by if summary else ''}"
    if (site.names or stored) and not summary:
        result.problem = result.problem or "there is no report"
    said = json.dumps(summary)
    for name in site.names:
        if summary and name.lower() not in said.lower():
            result.problem = result.problem or f"the report does not say {name!r}"


def _swept(site: Site) -> dict[str, Any]:
    """Let the sweep make the report, once the run has been quiet for as long as it wants."""
    time.sleep(SWEPT_AFTER_S + 1)  # the store tells whole seconds
    site.sweep()
    return site.summary()


def rows_spooled(site: Site) -> Counter[Row]:
    """Return every row that an agent of the case has written to its disk."""
    rows: Counter[Row] = Counter()
    for file in site.ledger.glob("*.arrows"):
        attempt, worker, phase, kind, _pid = file.stem.split("~")
        where = (attempt.removeprefix("attempt="), worker, phase, kind)
        for batch in read_batches(file):
            rows.update(_rows(where, batch))
    return rows


def rows_stored(site: Site) -> Counter[Row]:
    """Return every row that the bucket holds for the case, as a reader of it counts."""
    store, rows = site.store(), Counter[Row]()
    run_id = site.run_id()
    if not run_id:
        return rows
    keys = store.keys(RunLayout(run_id).samples())
    for part in without_covered([p for key in keys if (p := Part.from_key(key)) is not None]):
        body = store.get(part.key)
        if body is None:
            continue
        where = (str(part.attempt), part.worker, part.phase, part.kind)
        for batch in pq.read_table(io.BytesIO(body)).to_batches():
            rows.update(_rows(where, batch))
    return rows


def _rows(where: tuple[str, ...], batch: pa.RecordBatch) -> list[Row]:
    columns = [column.to_pylist() for column in batch.columns]
    return [(*where, *(str(value) for value in values)) for values in zip(*columns, strict=True)]


def _report(summary: dict[str, Any]) -> str:
    if not summary:
        return "none"
    return f"{summary['state']}, {summary['verdict']}, {summary['validity']}"
