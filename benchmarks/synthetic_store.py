"""Synthetic runs where the report reads them: in memory, or as parts and messages in a store."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.synthetic_run import NEVER, Columns, Samples, samples_of
from benchmarks.synthetic_world import BEGAN_US, World
from reports import engine
from reports.facts import PhaseFacts, RunFacts
from run_store.layout import RunLayout, phase_label
from run_store.messages import Attempt, Line, LostWorker, PhaseRecord, PhaseRef, RunRecord
from run_store.samples import SCHEMAS
from run_store.store import Store
from scenarios.model import Scenario


def as_table(kind: str, columns: Columns) -> pa.Table:
    """Return columns as a table of the kind's own schema."""
    arrays = []
    length = len(next(iter(columns.values())))
    for column in SCHEMAS[kind]:
        values = columns.get(column.name)
        if values is None:
            arrays.append(pa.nulls(length, column.type))
        elif values.dtype == object:
            arrays.append(pa.array(values.tolist(), type=column.type))
        elif values.dtype == np.int64:
            arrays.append(pa.array(values, mask=values == NEVER).cast(column.type))
        else:
            arrays.append(pa.array(values, type=column.type, from_pandas=True))
    return pa.table(arrays, schema=SCHEMAS[kind])


def scenario_of(world: World) -> Scenario:
    """Return the scenario that such a run would have had."""
    return Scenario.model_validate(
        {
            "name": "synthetic",
            "connections": max(phase.connections for phase in world.phases),
            "connections_per_document": world.per_document,
            "objectives": ["edits.error_rate < 5%", "delivery_ms.p95 < 1s", "edits.lost == 0"],
            "fleet": {"workers": len(world.workers)},
            "phases": {
                phase.name: {
                    "kind": phase.kind,
                    "duration": phase.duration_s,
                    "connections": phase.connections,
                    "edits_per_minute": phase.edits_per_s * 60,
                }
                for phase in world.phases
            },
        }
    )


def records_of(world: World) -> list[PhaseRecord]:
    """Return the records of a world's phases."""
    records = []
    before = 0
    for index, (phase, start) in enumerate(zip(world.phases, world.phase_starts(), strict=True)):
        label = phase_label(index, phase.name)
        lost = [
            LostWorker(
                worker=world.workers[worker],
                phase=label,
                last_seen_us=BEGAN_US + round(at * 1e6),
                noticed_us=BEGAN_US + round((at + 12) * 1e6),
                connections=phase.connections // len(world.workers),
                reason="no heartbeat for 10 s",
            )
            for worker, at in world.lost.items()
            if start <= at < start + phase.duration_s
        ]
        records.append(
            PhaseRecord(
                phase=PhaseRef(index=index, name=phase.name, kind=phase.kind),
                label=label,
                attempt=1,
                order=index + 1,
                started_us=BEGAN_US + start * 1_000_000,
                ended_us=BEGAN_US + (start + phase.duration_s) * 1_000_000,
                planned_s=phase.duration_s,
                connections=Line(start=before, end=phase.connections),
                edits_per_s=Line(start=phase.edits_per_s, end=phase.edits_per_s),
                edits_planned=round(phase.edits_per_s * phase.duration_s),
                first_edit=0,
                slots=list(world.workers),
                lost=lost,
            )
        )
        before = phase.connections
    return records


def run_record(world: World) -> RunRecord:
    """Return `run.json` of a world."""
    return RunRecord(
        run_id=f"synthetic-{world.seed}",
        scenario=scenario_of(world).model_dump(mode="json", by_alias=True),
        relay_url="ws://127.0.0.1:8081",
        fleet="local",
        created_us=BEGAN_US - 1_000_000,
        ended_us=BEGAN_US + world.length_s * 1_000_000,
        state="reported",
        attempts=[Attempt(number=1, started_us=BEGAN_US - 1_000_000, workers=list(world.workers))],
    )


def write_run(world: World, store: Store, *, parts: int = 1) -> str:
    """Ship a world's samples into a store, each kind of a worker's phase in so many parts.

    Returns the run's id.
    """
    record = run_record(world)
    layout = RunLayout(record.run_id)
    numbers: dict[str, dict[str, dict[str, int]]] = {}
    for (kind, label, worker), columns in samples_of(world).items():
        table = as_table(kind, columns)
        count = min(parts, len(table))
        edges = [round(i * len(table) / count) for i in range(count + 1)]
        for number, (first, beyond) in enumerate(pairwise(edges), 1):
            body = io.BytesIO()
            pq.write_table(table.slice(first, beyond - first), body, compression="zstd")
            key = layout.part(kind, attempt=1, phase=label, worker=worker, first=number)
            store.put(key, body.getvalue())
        numbers.setdefault(label, {}).setdefault(worker, {})[kind] = count
    for phase in records_of(world):
        of_phase = phase.model_copy(update={"parts": numbers.get(phase.label, {})})
        store.put_message(layout.phase(phase.label), of_phase)
    store.put_message(layout.run, record)
    return record.run_id


@contextlib.contextmanager
def open_in_memory(world: World) -> Iterator[engine.RunDatabase]:
    """Give a world's samples to the report's own views, in a database without a store."""
    record = run_record(world)
    phases = tuple(_facts_of(record) for record in records_of(world))
    facts = RunFacts(record, scenario_of(world), phases, (), ())
    with engine.database_in_memory(facts, samples_by_kind(samples_of(world))) as database:
        yield database


def _facts_of(record: PhaseRecord) -> PhaseFacts:
    return PhaseFacts(
        label=record.label,
        index=record.phase.index,
        name=record.phase.name,
        kind=record.phase.kind,
        attempt=record.attempt,
        complete=True,
        started_us=record.started_us,
        ended_us=record.ended_us,
        planned_s=record.planned_s,
        connections_start=record.connections.start,
        connections_end=record.connections.end,
        edits_per_s_start=record.edits_per_s.start,
        edits_per_s_end=record.edits_per_s.end,
        edits_planned=record.edits_planned,
        stopped_early="",
        record=record,
    )


def samples_by_kind(samples: Samples) -> dict[str, pa.Table]:
    """Return samples as one table for each kind, with the columns of their place."""
    found: dict[str, list[pa.Table]] = {}
    for (kind, label, worker), columns in samples.items():
        table = as_table(kind, columns)
        for name, value in (("attempt", 1), ("phase", label), ("worker", worker)):
            type_ = pa.int32() if name == "attempt" else pa.string()
            table = table.append_column(name, pa.array([value] * len(table), type_))
        found.setdefault(kind, []).append(table)
    return {kind: pa.concat_tables(tables) for kind, tables in found.items()}
