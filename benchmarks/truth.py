"""Is it true? Faults of the local relay whose effect is known, against what the samples say.

    python -m benchmarks.truth

Each row has a case, what was wanted, what was got, and whether it is within its tolerance.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_run import finished_run, label_of
from reports.engine import RunDatabase
from run_store.layout import Part, without_covered
from tasks.run_context import RunContext
from tests.relay_process import RelayProcess

Row = dict[str, Any]
DELAYS_MS = (50, 200, 1000)
STALL_S = 2.0


def row(case: str, wanted: float, got: float, tolerance: float) -> Row:
    """Return one case; `tolerance` is a share of what was wanted."""
    return {
        "case": case,
        "wanted": round(wanted, 4),
        "got": round(got, 4),
        "tolerance": tolerance,
        "ok": abs(got - wanted) <= tolerance * abs(wanted),
    }


def phase_figure(database: RunDatabase, metric: str, phase: str, figure: str) -> float:
    """Return one figure of a latency in one phase, as the report states it."""
    for one in database.rows("distribution", metric=metric):
        if one["scope"] == "phase" and one["phase"] == phase:
            return float(one[figure])
    raise SystemExit(f"there is no {metric} in {phase}")


async def delays() -> list[Row]:
    """Injected delays: the rise of each p50 over a control phase of the same run."""
    phases = {"control": {"kind": "sustained", "duration": "20s", "edits_per_minute": 90.0}}
    phases |= {f"delay-{delay}": phases["control"] for delay in DELAYS_MS}
    scenario = {
        "connections": 10,
        "fleet": {"workers": 1},
        "phases": {"ramp": {"kind": "ramp", "duration": "3s", "edits_per_minute": 60.0}, **phases},
    }

    async def switch(relay: RelayProcess, phase: str) -> None:
        half = int(phase.partition("-")[2]) / 2 if phase.startswith("delay-") else 0
        await asyncio.to_thread(relay.set_faults, delay_in_ms=half, delay_out_ms=half)

    rows = []
    async with finished_run(scenario, before_phase=switch) as (context, database):
        for metric in ("acknowledgement_ms", "delivery_ms"):
            control = phase_figure(database, metric, label_of(context, "control"), "p50")
            for delay in DELAYS_MS:
                label = label_of(context, f"delay-{delay}")
                got = phase_figure(database, metric, label, "p50") - control
                rows.append(row(f"{metric} p50, delay of {delay} ms", delay, got, 0.05))
    return rows


async def stall() -> list[Row]:
    """A relay that handles nothing for 2 s: p99 and max as an open model predicts them.

    An edit that was due t seconds after the stall began waits for the rest of it; all others
    take what they take without it.
    """
    documents = 10
    scenario = {
        "connections": 2 * documents,
        "connections_per_document": 2,
        "fleet": {"workers": 1},
        "phases": {
            "ramp": {"kind": "ramp", "duration": "3s"},
            "stall": {"kind": "sustained", "duration": "20s", "edits_per_minute": 900.0},
        },
    }
    background: set[asyncio.Task[None]] = set()

    async def switch(relay: RelayProcess, phase: str) -> None:
        async def stall_soon() -> None:
            await asyncio.sleep(8)
            await asyncio.to_thread(relay.set_faults, stall_s=STALL_S)

        if phase == "stall":
            background.add(asyncio.create_task(stall_soon()))

    async with finished_run(scenario, before_phase=switch) as (context, database):
        label = label_of(context, "stall")
        edits = _table(context, "edits", label)
        due_s = [due / 1e6 for due in _numbers(edits, "intended_us")]
        took_s = [
            acknowledged / 1e6 - due
            for acknowledged, due in zip(_numbers(edits, "acknowledged_us"), due_s, strict=True)
        ]
        usual = sorted(took_s)[len(took_s) // 2]
        # The stall ended when the first edit that waited was acknowledged.
        ended = min(
            due + took for due, took in zip(due_s, took_s, strict=True) if took > STALL_S / 4
        )
        predicted = sorted(
            usual + (ended - due if ended - STALL_S <= due < ended else 0.0) for due in due_s
        )
        return [
            row(
                "acknowledgement p99 over a stall of 2 s",
                quantile(predicted, 0.99) * 1000,
                phase_figure(database, "acknowledgement_ms", label, "p99"),
                0.10,
            ),
            row(
                "acknowledgement max over a stall of 2 s",
                predicted[-1] * 1000,
                phase_figure(database, "acknowledgement_ms", label, "max"),
                0.10,
            ),
        ]


async def offered_and_pooled() -> list[Row]:
    """Offered against achieved rate, and pooled percentiles against the raw parts, 4 workers."""
    scenario = {
        "connections": 40,
        "fleet": {"workers": 4},
        "phases": {
            "ramp": {"kind": "ramp", "duration": "4s", "edits_per_minute": 60.0},
            "steady": {"kind": "sustained", "duration": "30s", "edits_per_minute": 480.0},
        },
    }
    async with finished_run(scenario) as (context, database):
        label = label_of(context, "steady")
        edits = _table(context, "edits", label)
        started = sum(value is not None for value in edits["started_us"].to_pylist())
        rows = [row("edits started at 480 a minute for 30 s", 240, started, 0.005)]
        deliveries = _table(context, "deliveries", label)
        columns = ("seen_us", "intended_us", "same_worker", "repeat")
        exact = sorted(
            (seen - due) / 1000
            for seen, due, same, repeat in zip(
                *(_numbers(deliveries, name) for name in columns), strict=True
            )
            if same and repeat == 1
        )
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            got = phase_figure(database, "delivery_ms", label, name)
            rows.append(
                row(f"delivery {name} of 4 workers, pooled", quantile(exact, q), got, 1e-12)
            )
        return rows


async def drops() -> list[Row]:
    """Connections that the relay drops, counted: 250 connections, dropped four times each."""
    scenario = {
        "connections": 250,
        "connections_per_document": 50,
        "fleet": {"workers": 1},
        "phases": {
            "ramp": {"kind": "ramp", "duration": "6s"},
            "hold": {"kind": "sustained", "duration": "35s"},
        },
    }
    dropped: list[int] = []
    background: set[asyncio.Task[None]] = set()

    async def switch(relay: RelayProcess, phase: str) -> None:
        async def drop_all() -> None:
            for _ in range(4):
                deadline = asyncio.get_running_loop().time() + 20
                while asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(0.5)
                    if (await asyncio.to_thread(relay.metrics))["connections"] == 250:  # noqa: PLR2004
                        break
                dropped.append(await asyncio.to_thread(relay.drop, count=250))

        if phase == "hold":
            background.add(asyncio.create_task(drop_all()))

    async with finished_run(scenario, before_phase=switch) as (_, database):
        counts = [one for one in database.rows("connection_counts") if one["scope"] == "run"]
        return [row(f"{sum(dropped)} dropped connections", 1000, counts[0]["dropped"], 0)]


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the q-quantile by linear interpolation between order statistics (type 7).

    Hyndman & Fan (1996), "Sample Quantiles in Statistical Packages".
    """
    place = (len(ordered) - 1) * q
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _numbers(table: pa.Table, column: str) -> list[Any]:
    """Return a column that has no nulls as plain values."""
    values = table[column].to_pylist()
    if None in values:
        raise SystemExit(f"{column} has nulls: the load was not carried out in full")
    return values


def _table(context: RunContext, kind: str, label: str) -> pa.Table:
    """Read a kind of one phase straight from its parts, without any of the report's code."""
    store = context.store()
    parts = [Part.from_key(key) for key in store.keys(context.layout.samples(kind))]
    tables = []
    for part in without_covered([one for one in parts if one and one.phase == label]):
        body = store.get(part.key)
        if body is not None:
            tables.append(pq.read_table(pa.BufferReader(body)))
    return pa.concat_tables(tables)


async def run(cases: Sequence[str]) -> dict[str, Any]:
    """Return every case's row and whether all are within their tolerance."""
    known = {
        "delays": delays,
        "stall": stall,
        "pooled": offered_and_pooled,
        "drops": drops,
    }
    rows = [one for name in cases or known for one in await known[name]()]
    for one in rows:
        print(f"{'ok  ' if one['ok'] else 'MISS'} {one['case']}: {one['got']} for {one['wanted']}")
    return {"passed": all(one["ok"] for one in rows), "rows": rows}


def main() -> None:
    """Print a line for each case, and one JSON object last; exit 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cases", nargs="*", help="delays, stall, pooled, drops; none: all")
    result = asyncio.run(run(parser.parse_args().cases))
    print(json.dumps(result))
    raise SystemExit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
