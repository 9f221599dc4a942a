"""Runs that no relay ever saw, written through the run's own layout, with figures known beforehand.

`RunWriter` writes what it is given. `healthy_run` fills one with a plausible run whose every
sample follows from a seed; a test takes it, breaks one thing, and writes it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reports.engine import RunDatabase, database_in_memory
from reports.facts import facts_of
from run_store.layout import RunLayout, phase_label
from run_store.messages import (
    Attempt,
    Line,
    LostWorker,
    PhaseDone,
    PhaseRecord,
    PhaseRef,
    RunRecord,
    Status,
)
from run_store.samples import SCHEMAS
from run_store.store import Store
from scenarios.model import Scenario

BEGAN_US = 1_760_000_000_000_000
Columns = dict[str, Any]
"""A kind's samples by column: lists or numpy arrays of one length; columns left out are null."""
Numbers = dict[tuple[str, str], dict[str, int]]
"""The last part's number by (phase label, worker), then kind."""


@dataclass(frozen=True)
class SyntheticPhase:
    """One phase: its plan. Connections and rate are the fleet's, at its end and throughout."""

    name: str
    kind: str
    duration_s: float
    connections: int
    edits_per_s: float


PHASES = (
    SyntheticPhase("warmup", "warmup", 5, 4, 1),
    SyntheticPhase("sustained", "sustained", 30, 8, 4),
    SyntheticPhase("cooldown", "cooldown", 10, 8, 0),
)


@dataclass
class RunWriter:
    """Samples of one run by (kind, phase label, worker), and the messages around them."""

    run_id: str
    scenario: dict[str, Any]
    phases: tuple[SyntheticPhase, ...] = PHASES
    workers: tuple[str, ...] = ("worker-1", "worker-2")
    attempt: int = 1
    samples: dict[tuple[str, str, str], Columns] = field(default_factory=dict)
    lost: dict[str, list[LostWorker]] = field(default_factory=dict)
    edits_planned: dict[str, int] = field(default_factory=dict)
    clock_offset_us: dict[str, int] = field(default_factory=dict)
    record_changes: dict[str, Any] = field(default_factory=dict)
    phase_changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts_per_kind: int = 1
    incomplete: tuple[str, ...] = ()
    began_us: int = BEGAN_US

    @property
    def layout(self) -> RunLayout:
        """The run's keys."""
        return RunLayout(self.run_id)

    def label(self, name: str) -> str:
        """Return a phase's label."""
        index = next(i for i, phase in enumerate(self.phases) if phase.name == name)
        return phase_label(index, name)

    def start_us(self, name: str) -> int:
        """Return when a phase begins: one second after the end of the one before it."""
        at = self.began_us
        for phase in self.phases:
            if phase.name == name:
                return at
            at += round((phase.duration_s + 1) * 1e6)
        raise KeyError(name)

    def change(
        self, kind: str, name: str, how: Callable[[Columns], None], *, worker: str | None = None
    ) -> None:
        """Let `how` change the columns of a kind in a phase, of one worker or of all."""
        for (k, label, w), columns in self.samples.items():
            if k == kind and label == self.label(name) and worker in (None, w):
                how(columns)

    def write(self, store: Store) -> None:
        """Write everything: parts, statuses, phase records, and the run's record last."""
        numbers: Numbers = {}
        for (kind, label, worker), columns in self.samples.items():
            table = as_table(kind, columns)
            if table.num_rows == 0:
                continue
            last = min(self.parts_per_kind, table.num_rows)
            edges = np.linspace(0, table.num_rows, last + 1).astype(int)
            for number in range(1, last + 1):
                key = self.layout.part(
                    kind, attempt=self.attempt, phase=label, worker=worker, first=number
                )
                piece = table.slice(edges[number - 1], edges[number] - edges[number - 1])
                store.put(key, parquet_bytes(piece))
            numbers.setdefault((label, worker), {})[kind] = last
        self.write_messages(store, numbers)

    def write_messages(self, store: Store, numbers: Numbers) -> None:
        """Write statuses, phase records and the run's record, with parts numbered as given."""
        for status in self.statuses(numbers):
            store.put_message(self.layout.status(self.attempt, status.worker), status)
        for record in self.phase_records(numbers):
            store.put_message(self.layout.phase(record.label), record)
        store.put_message(self.layout.run, self.run_record())

    def database(self) -> RunDatabase:
        """Return the run's database without a store in between, all of its parts there."""
        tables: dict[str, list[pa.Table]] = {}
        for (kind, label, worker), columns in self.samples.items():
            table = as_table(kind, columns)
            for name, value in (("phase", label), ("worker", worker)):
                table = table.append_column(name, pa.array([value] * len(table), pa.string()))
            attempts = pa.array([self.attempt] * len(table), pa.int32())
            table = table.append_column("attempt", attempts)
            tables.setdefault(kind, []).append(table)
        facts = facts_of(self.run_record(), self.phase_records({}), self.statuses({}))
        return database_in_memory(
            facts, {kind: pa.concat_tables(pieces) for kind, pieces in tables.items()}
        )

    def statuses(self, numbers: Numbers) -> list[Status]:
        """Return each worker's last status."""
        found = []
        for worker in self.workers:
            parts = {label: kinds for (label, w), kinds in numbers.items() if w == worker}
            done = [PhaseDone(phase=label, order=1, parts=kinds) for label, kinds in parts.items()]
            found.append(
                Status(
                    worker=worker,
                    attempt=self.attempt,
                    beat=1,
                    at_us=self.began_us,
                    state="stopped",
                    parts=parts,
                    done=done,
                )
            )
        return found

    def phase_records(self, numbers: Numbers) -> list[PhaseRecord]:
        """Return the records of the phases that are complete."""
        records = []
        before, first_edit = 0, 0
        for index, phase in enumerate(self.phases):
            label = phase_label(index, phase.name)
            start_us = self.start_us(phase.name)
            planned = self.edits_planned.get(label, 0)
            lost = {entry.worker for entry in self.lost.get(label, [])}
            record = PhaseRecord(
                phase=PhaseRef(index=index, name=phase.name, kind=phase.kind),
                label=label,
                attempt=self.attempt,
                order=index + 1,
                started_us=start_us,
                ended_us=start_us + round(phase.duration_s * 1e6),
                planned_s=phase.duration_s,
                connections=Line(start=before, end=phase.connections),
                edits_per_s=Line(start=phase.edits_per_s, end=phase.edits_per_s),
                edits_planned=planned,
                first_edit=first_edit,
                slots=list(self.workers),
                parts={
                    worker: kinds
                    for (of, worker), kinds in numbers.items()
                    if of == label and worker not in lost
                },
                lost=self.lost.get(label, []),
            ).model_copy(update=self.phase_changes.get(label, {}))
            before, first_edit = phase.connections, first_edit + planned
            if phase.name not in self.incomplete:
                records.append(record)
        return records

    def run_record(self) -> RunRecord:
        """Return `run.json`."""
        end_us = self.start_us(self.phases[-1].name) + round(self.phases[-1].duration_s * 1e6)
        return RunRecord(
            run_id=self.run_id,
            scenario=self.scenario,
            relay_url="http://127.0.0.1:8081",
            fleet="local",
            created_us=self.began_us - 4_000_000,
            ended_us=end_us,
            state="reported",
            attempts=[
                Attempt(number=n, started_us=self.began_us - 3_000_000, workers=list(self.workers))
                for n in range(1, self.attempt + 1)
            ],
            versions={"relay-load": "0.1.0"},
            estimate_usd=0.25,
            actual_usd=0.125,
        ).model_copy(update=self.record_changes)


def as_table(kind: str, columns: Columns) -> pa.Table:
    """Return samples with the kind's own schema; columns that are not given are null."""
    schema = SCHEMAS[kind]
    length = len(next(iter(columns.values()))) if columns else 0
    return pa.table(
        {
            column.name: pa.array(columns[column.name], type=column.type, from_pandas=True)
            if column.name in columns
            else pa.nulls(length, column.type)
            for column in schema
        },
        schema=schema,
    )


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def scenario_of(
    phases: tuple[SyntheticPhase, ...],
    *,
    workers: int = 2,
    objectives: tuple[str, ...] = (
        "edits.error_rate < 5%",
        "delivery_ms.p95 < 1s",
        "edits.lost == 0",
    ),
    phase_objectives: dict[str, tuple[str, ...]] | None = None,
) -> dict[str, Any]:
    """Return the scenario of these phases as a run's record holds it."""
    scenario = Scenario.model_validate(
        {
            "name": "synthetic",
            "connections": max(phase.connections for phase in phases),
            "objectives": objectives,
            "fleet": {"workers": workers},
            "phases": {
                phase.name: {
                    "kind": phase.kind,
                    "duration": phase.duration_s,
                    "connections": phase.connections,
                    "edits_per_minute": phase.edits_per_s * 60,
                    "objectives": (phase_objectives or {}).get(phase.name, ()),
                }
                for phase in phases
            },
        }
    )
    return scenario.model_dump(mode="json", by_alias=True)


def healthy_run(
    run_id: str = "synthetic-run",
    *,
    phases: tuple[SyntheticPhase, ...] = PHASES,
    workers: int = 2,
    connections_per_document: int = 0,
    seed: int = 1,
    objectives: tuple[str, ...] | None = None,
    phase_objectives: dict[str, tuple[str, ...]] | None = None,
    clock_offset_us: dict[str, int] | None = None,
) -> RunWriter:
    """Return a run in which everything went well, of any size, ready to be changed and written.

    All connections are on documents of `connections_per_document` (0: one for all), connection
    c at worker c modulo `workers`; each edit is delivered once to every other connection of its
    document. Latencies are log-normal, in whole microseconds.
    """
    names = tuple(f"worker-{n + 1}" for n in range(workers))
    run = RunWriter(
        run_id=run_id,
        scenario=scenario_of(
            phases,
            workers=workers,
            phase_objectives=phase_objectives,
            **({} if objectives is None else {"objectives": objectives}),
        ),
        phases=phases,
        workers=names,
        clock_offset_us=clock_offset_us or {},
    )
    draw = np.random.default_rng(seed)
    first_edit, opened = 0, 0
    for phase in phases:
        edits = _edits(run, phase, first_edit, connections_per_document, draw)
        first_edit += len(edits["edit"])
        run.edits_planned[run.label(phase.name)] = len(edits["edit"])
        _put_edits(run, phase, edits)
        _put_deliveries(run, phase, edits, connections_per_document, draw)
        _put_connections(run, phase, opened, connections_per_document, draw)
        opened = max(opened, phase.connections)
        _put_resources(run, phase, draw)
        _put_relay(run, phase)
    _put_replicas(run, phases[-1], opened, first_edit, connections_per_document)
    return run


Array = npt.NDArray[Any]


def _document(connection: Array, per_document: int) -> Array:
    return connection // per_document if per_document else np.zeros_like(connection)


def _offset(run: RunWriter, worker: int) -> int:
    return run.clock_offset_us.get(run.workers[worker], 0)


def _edits(
    run: RunWriter,
    phase: SyntheticPhase,
    first_edit: int,
    per_document: int,
    draw: np.random.Generator,
) -> dict[str, Array]:
    """Return the edits of a phase on true time; `_us` on no worker's clock yet."""
    count = round(phase.edits_per_s * phase.duration_s)
    at = (np.arange(count) + 0.5) / max(phase.edits_per_s, 1e-9)
    intended = run.start_us(phase.name) + np.round(at * 1e6).astype(np.int64)
    started = intended + draw.integers(50, 2_000, count)
    connection = draw.integers(0, max(phase.connections, 1), count)
    return {
        "edit": np.arange(first_edit, first_edit + count),
        "document": _document(connection, per_document),
        "generation": np.zeros(count, np.int64),
        "connection": connection,
        "intended_us": intended,
        "started_us": started,
        "acknowledged_us": started + _latency_us(draw, count, 4_000),
    }


def _latency_us(draw: np.random.Generator, count: int, median_us: float) -> Array:
    return np.round(median_us * draw.lognormal(0, 0.5, count)).astype(np.int64)


def _put_edits(run: RunWriter, phase: SyntheticPhase, edits: dict[str, Array]) -> None:
    for index, worker in enumerate(run.workers):
        mine = edits["connection"] % len(run.workers) == index
        columns: Columns = {
            name: values[mine] + (_offset(run, index) if name.endswith("_us") else 0)
            for name, values in edits.items()
        }
        columns["held"] = np.zeros(int(mine.sum()), bool)
        columns["error"] = [None] * int(mine.sum())
        run.samples["edits", run.label(phase.name), worker] = columns


def _put_deliveries(
    run: RunWriter,
    phase: SyntheticPhase,
    edits: dict[str, Array],
    per_document: int,
    draw: np.random.Generator,
) -> None:
    members = np.arange(phase.connections)
    workers = len(run.workers)
    for index, worker in enumerate(run.workers):
        mine = members[members % workers == index]
        size = per_document or phase.connections
        # Observers of an edit: this worker's members of its document, but for the writer.
        by_document = [
            mine[_document(mine, per_document) == d]
            for d in range(-(-phase.connections // max(size, 1)))
        ]
        width = max((len(group) for group in by_document), default=0)
        if width == 0 or len(edits["edit"]) == 0:
            continue
        grid = np.full((len(by_document), width), -1, np.int64)
        for d, group in enumerate(by_document):
            grid[d, : len(group)] = group
        observers = grid[edits["document"]]
        row = np.repeat(np.arange(len(edits["edit"])), width)
        observer = observers.ravel()
        keep = (observer >= 0) & (observer != edits["connection"][row])
        row, observer = row[keep], observer[keep]
        writer_worker = edits["connection"][row] % workers
        offsets = np.array([_offset(run, w) for w in range(workers)], np.int64)
        run.samples["deliveries", run.label(phase.name), worker] = {
            "edit": edits["edit"][row],
            "document": edits["document"][row],
            "generation": edits["generation"][row],
            "writer": edits["connection"][row],
            "observer": observer,
            "intended_us": edits["intended_us"][row] + offsets[writer_worker],
            "sent_us": edits["started_us"][row] + offsets[writer_worker],
            "seen_us": edits["started_us"][row]
            + _latency_us(draw, len(row), 9_000)
            + offsets[index],
            "same_worker": writer_worker == index,
            "repeat": np.ones(len(row), np.int64),
            "weight": np.ones(len(row)),
        }


def _put_connections(
    run: RunWriter, phase: SyntheticPhase, opened: int, per_document: int, draw: np.random.Generator
) -> None:
    steps = (("opening", 0), ("open", 2_000), ("handshake", 3_000), ("synced", 8_000))
    for index, worker in enumerate(run.workers):
        new = np.array(
            [c for c in range(opened, phase.connections) if c % len(run.workers) == index], np.int64
        )
        if len(new) == 0:
            continue
        # All are in sync before the phase's first edit is due.
        begin = run.start_us(phase.name) - 900_000 + draw.integers(0, 5_000, len(new))
        count = len(new) * len(steps)
        took = np.tile([us for _, us in steps], len(new)) + draw.integers(0, 900, count)
        run.samples["connections", run.label(phase.name), worker] = {
            "at_us": np.repeat(begin, len(steps)) + took + _offset(run, index),
            "connection": np.repeat(new, len(steps)),
            "document": np.repeat(_document(new, per_document), len(steps)),
            "generation": np.zeros(count, np.int64),
            "event": [event for event, _ in steps] * len(new),
            "duration_ms": took / 1000,
            "tries": np.ones(count, np.int64),
        }


def _put_resources(run: RunWriter, phase: SyntheticPhase, draw: np.random.Generator) -> None:
    seconds = int(phase.duration_s)
    for index, worker in enumerate(run.workers):
        held = len([c for c in range(phase.connections) if c % len(run.workers) == index])
        counts = np.full(seconds, held)
        run.samples["resources", run.label(phase.name), worker] = {
            "at_us": run.start_us(phase.name)
            + np.arange(seconds) * 1_000_000
            + 300_000
            + _offset(run, index),
            "cpu_percent": draw.uniform(20, 30, seconds),
            "agent_cpu_percent": draw.uniform(2, 5, seconds),
            "browser_cpu_percent": draw.uniform(20, 40, seconds),
            "rss_mb": np.full(seconds, 80.0),
            "browser_pss_mb": np.full(seconds, 300.0),
            "js_heap_mb": np.full(seconds, 40.0),
            "loop_lag_ms": draw.uniform(0.1, 2, seconds),
            "page_lag_ms": draw.uniform(0.1, 4, seconds),
            "connections_target": counts,
            "connections_open": counts,
            "connections_synced": counts,
            "connections_healthy": counts,
            "sockets_attempted": counts,
            "edits_pending": np.zeros(seconds, np.int64),
            "clock_offset_ms": np.full(seconds, _offset(run, index) / 1000),
            "clock_error_ms": np.full(seconds, 0.5),
            "disk_free_mb": np.full(seconds, 50_000.0),
        }


def _put_relay(run: RunWriter, phase: SyntheticPhase) -> None:
    seconds = int(phase.duration_s)
    start_us = run.start_us(phase.name)
    since = (start_us - run.began_us) / 1e6 + np.arange(seconds)
    run.samples["relay", run.label(phase.name), run.workers[0]] = {
        "at_us": start_us + np.arange(seconds) * 1_000_000 + 400_000 + _offset(run, 0),
        "response_ms": np.full(seconds, 1.5),
        "timestamp_ms": (start_us / 1000) + np.arange(seconds) * 1000.0,
        "connections": np.full(seconds, phase.connections),
        "memory_rss_mb": 100 + since / 10,
        "memory_total_mb": np.full(seconds, 8000.0),
        "uptime_s": 60 + since,
        "pid": np.full(seconds, 4242),
    }


def _put_replicas(
    run: RunWriter, phase: SyntheticPhase, opened: int, edits: int, per_document: int
) -> None:
    end_us = run.start_us(phase.name) + round(phase.duration_s * 1e6)
    for index, worker in enumerate(run.workers):
        mine = np.array([c for c in range(opened) if c % len(run.workers) == index], np.int64)
        documents = _document(mine, per_document)
        run.samples["replicas", run.label(phase.name), worker] = {
            "at_us": np.full(len(mine), end_us - 500_000 + _offset(run, index)),
            "connection": mine,
            "document": documents,
            "generation": np.zeros(len(mine), np.int64),
            "in_sync": np.ones(len(mine), bool),
            "heads": [f"heads-of-{document}" for document in documents],
            "edits": np.full(len(mine), edits),
            "missing": [[] for _ in mine],
            "changed_us": np.full(
                len(mine), run.start_us(phase.name) - 500_000 + _offset(run, index)
            ),
        }
