"""Records the steps of real searches of the local relay, for `benchmarks.regression` to resample.

    python -m benchmarks.step_recording [--searches 12] [--at-once 3] [--append]

Each search is of a new relay that serves one message at a time, in 8 ms with a noise of 30 %, by
real browsers, over edits a second, from a start that is drawn. What is written to
`benchmarks/recorded_steps.json` is what `tasks.search` takes of each step (load, outcome, score
and its noise), with what it was measured on and with. Such a relay waits more than it computes,
so that a few searches fit on two cores at once; what they do to each other is in the steps. The
file is written after each search; `--append` adds to what was recorded in the same way.

The machine must be quiet: other work on it moves the capacity of a relay on two cores by a fifth.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import importlib.metadata
import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.__main__ import machine
from benchmarks.capacity import MEMBERS, search
from run_store.layout import RUNS, RunLayout
from run_store.steps import Step
from run_store.store import Store
from scenarios.model import Scenario
from tasks.local_services import local_store
from tasks.search_plan import Search, planned_search
from tasks.search_steps import tried_of
from tests.relay_process import start_relay

FILE = Path(__file__).with_name("recorded_steps.json")
RELAY = ("--service-ms", "8", "--service-noise", "0.3")
CONNECTIONS = 32
OBJECTIVE = "delivery_ms.p95 < 400"
HOLD_S, SETTLE_S = 5.0, 1.0
STARTS, LIMIT = (10.0, 28.0), 96.0
VERSIONS = ("relay-load", "playwright", "prefect")
SCENARIO = {
    "name": "step-recording",
    "connections": CONNECTIONS,
    "connections_per_document": MEMBERS,
    "fleet": {"workers": 1},
    "phases": {"load": {"kind": "sustained", "duration": "10s", "edits_per_minute": 120}},
}


async def recorded(seed: int, folder: Path) -> list[dict[str, Any]]:
    """Carry one search out; return its steps."""
    draw = random.Random(seed)  # noqa: S311 - a benchmark that is to be repeatable
    asked = Search(
        over="edits",
        start=round(draw.uniform(*STARTS), 2),
        limit=LIMIT,
        hold_s=HOLD_S,
        settle_s=SETTLE_S,
        objectives=(OBJECTIVE,),
    )
    plan = planned_search(Scenario.model_validate(SCENARIO), asked)
    with start_relay(*RELAY, "--seed", str(seed)) as relay:
        result, took_s = await search(relay, plan, folder)
    said = result.sentence if result else "no answer"
    print(f"{seed}: {said} ({took_s:.0f} s)", file=sys.stderr, flush=True)
    with local_store(folder) as address:
        store = Store(address)
        [run_id] = store.folders(RUNS)
        found = [store.get_message(key, Step) for key in store.keys(RunLayout(run_id).steps())]
    steps = [step for step in found if step is not None]
    return [
        {
            "load": tried.load,
            "outcome": tried.outcome,
            "score": tried.score,
            "noise": round(tried.noise, 4),
            "seconds": round((step.ended_us - step.started_us) / 1e6, 1),
            **figures_of(step),
        }
        for tried, step in zip(
            tried_of(steps, over="edits"), sorted(steps, key=lambda s: s.number), strict=True
        )
    ]


def figures_of(step: Step) -> dict[str, float | None]:
    """Return what else is kept of a step, for whoever reads the file."""
    figures = {
        "delivery_p50_ms": step.figures.delivery_ms.p50,
        "delivery_p95_ms": step.figures.delivery_ms.p95,
        "edits_per_s": step.figures.edits_per_second,
        "lateness_p99_ms": step.generator.lateness_p99_ms,
    }
    return {name: None if value is None else round(value, 2) for name, value in figures.items()}


async def recorded_all(seeds: Sequence[int], at_once: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Carry searches out, several at a time; give the steps of each as it ends."""
    turn = asyncio.Semaphore(at_once)

    async def one(seed: int) -> list[dict[str, Any]]:
        async with turn:
            with tempfile.TemporaryDirectory() as name:
                return await recorded(seed, Path(name))

    for done in asyncio.as_completed([one(seed) for seed in seeds]):
        yield await done


async def record(count: int, at_once: int, *, append: bool) -> list[list[dict[str, Any]]]:
    """Record so many searches, and write the file after each; return all that are in it."""
    told = {
        "command": "python -m benchmarks.step_recording",
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "relay": " ".join(RELAY),
        "connections": CONNECTIONS,
        "connections_per_document": MEMBERS,
        "objective": OBJECTIVE,
        "hold_s": HOLD_S,
        "settle_s": SETTLE_S,
        "over": "edits",
        "at_once": at_once,
    }
    known = json.loads(FILE.read_text(encoding="utf-8")) if append else {"searches": []}
    searches: list[list[dict[str, Any]]] = known.pop("searches")
    if known and known != told:
        raise SystemExit(f"{FILE} was recorded with {known}, and this would be with {told}.")
    first = len(searches)
    async for steps in recorded_all(range(first, first + count), at_once):
        searches.append(steps)
        lines = ["[\n  " + ",\n  ".join(map(json.dumps, one)) + "\n ]" for one in searches]
        head, body = json.dumps(told, indent=1).removesuffix("\n}"), ",\n ".join(lines)
        FILE.write_text(f'{head},\n "searches": [\n {body}\n ]\n}}\n', encoding="utf-8")
    return searches


def main() -> int:
    """Record what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_recording")
    parser.add_argument("--searches", type=int, default=12)
    parser.add_argument("--at-once", type=int, default=3, help="searches, each with its own relay")
    parser.add_argument("--append", action="store_true", help="keep what is recorded already")
    options = parser.parse_args()
    found = asyncio.run(record(options.searches, options.at_once, append=options.append))
    print(json.dumps({"searches": len(found), "steps": sum(map(len, found))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
