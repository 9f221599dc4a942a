from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows import capacity
from flows.capacity import relay_calibrate, relay_capacity
from flows.relay_load import relay_load
from reports.history import lines
from run_store.capacity import Calibration, CapacityResult, calibration_key
from run_store.errors import DeadlineError
from run_store.layout import RunLayout
from run_store.messages import RunRecord
from run_store.steps import Step
from run_store.store import Store
from scenarios.loading import load_scenario
from tasks import locks
from tasks.calibration import advice_from
from tasks.capacity import add_to_history
from tasks.local_services import local_store
from tests.flow_process import FlowProcess
from tests.relay_process import start_relay
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.browser, pytest.mark.usefixtures("prefect_api")]
LIMIT = 13
UPWARDS = """
connections = 8
objectives = ["edits.lost == 0", "connections.failed == 0 stop"]
fleet = { workers = 1 }

[phases.warmup]
kind = "warmup"
duration = "2s"
edits_per_minute = 240

[phases.stress]
kind = "stress"
duration = "60s"
edits_per_minute = 240
step_connections = 4
step_hold = "3s"
step_settle = "1s"
objectives = ["delivery_ms.p95 < 1s for 3s stop"]

[phases.cooldown]
kind = "cooldown"
duration = "4s"
"""
"""Up until the relay refuses, and down to what it held."""


def is_in_use(results: Path) -> bool:
    """Say whether somebody holds the local store open, so that its server stays."""
    lock = results / ".store-server" / "users.lock"
    with contextlib.suppress(DeadlineError):
        os.close(locks.take(lock, within_s=0))
        return False
    # Users share it; the guardian that is about to end the server has it alone.
    with contextlib.suppress(DeadlineError):
        os.close(locks.take(lock, shared=True, within_s=0))
        return True
    return False


@pytest.mark.slow
async def test_a_search_finds_what_the_relay_lets_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is that number, in the report, the bucket and the history, with its steps."""
    in_use = []

    def kept(*given: Any) -> bool:
        in_use.append(is_in_use(tmp_path))
        return add_to_history(*given)

    monkeypatch.setattr(capacity, "add_to_history", kept)
    with start_relay("--max-connections", str(LIMIT)) as relay:
        summary = await relay_capacity(
            "local",
            relay_url=relay.url,
            start=8,
            limit=64,
            edits_per_s=4,
            hold="2s",
            settle="1s",
            overrides={"fleet.workers": 1},
            results=str(tmp_path),
        )
    assert (summary["verdict"], summary["validity"]) == ("passed", "valid")
    assert in_use == [True]
    run_id = summary["run_id"]
    with local_store(tmp_path) as address:
        store = Store(address)
        result = store.get_message(RunLayout(run_id).capacity, CapacityResult)
        keys = store.keys(RunLayout(run_id).steps())
        steps = [step for key in keys if (step := store.get_message(key, Step))]
        [line] = lines(store)
    assert result is not None
    assert (result.kind, result.capacity) == ("between", LIMIT)
    assert result.objective == "the relay lets every connection in"
    assert [step.connections for step in steps][:3] == [8, 16, LIMIT]
    assert [step.outcome for step in steps][:3] == ["good", "bad", "good"]
    assert result.sentence == summary["capacity"]["sentence"]
    assert "13 connections" in (tmp_path / run_id / "report.html").read_text(encoding="utf-8")
    assert (line.run_id, line.capacity, line.scenario) == (run_id, LIMIT, "local")


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_killed_search_goes_on_from_its_last_step(tmp_path: Path) -> None:
    """Nothing that was judged is measured again, and the answer is the one that it would have had.

    The search's process is killed, and its flow run is retried, as the button in Prefect's UI does.
    """
    asked: dict[str, Any] = {
        "scenario": "local",
        "start": 8,
        "limit": 64,
        "edits_per_s": 4,
        "hold": "2s",
        "settle": "1s",
        "overrides": {"fleet.workers": 1},
        "results": str(tmp_path / "results"),
    }
    bucket = tmp_path / "results" / "store" / "relay-load" / "runs"
    with start_relay("--max-connections", str(LIMIT)) as relay:
        asked["relay_url"] = relay.url
        first = FlowProcess(tmp_path, "relay_capacity", **asked)
        try:
            [judged] = await asyncio.to_thread(
                wait_for,
                lambda: list(bucket.glob("*/steps/01-search/000001.json")),
                within_s=120,
                why=lambda: first.said,
            )
            first.send(signal.SIGKILL)
            first.wait()
            await asyncio.to_thread(wait_for, lambda: not first.left(), within_s=60)
        finally:
            first.clean()
        kept = [file.read_bytes() for file in sorted(judged.parent.iterdir())]
        run_id = judged.parents[2].name
        assert not list(bucket.glob("*/capacity.json")), "it had no answer yet"
        async with get_client() as client:
            [flow_run] = [
                run for run in await client.read_flow_runs() if run_id.endswith(run.id.hex[-8:])
            ]
            again_at: State[None] = Scheduled(name="AwaitingRetry")
            await client.set_flow_run_state(flow_run.id, again_at, force=True)
            flow_run = await client.read_flow_run(flow_run.id)
        again: Any = run_flow(relay_capacity, flow_run=flow_run, parameters=asked)
        summary = await again
    assert (summary["run_id"], summary["validity"]) == (run_id, "valid")
    with local_store(tmp_path / "results") as address:
        store = Store(address)
        result = store.get_message(RunLayout(run_id).capacity, CapacityResult)
        record = store.get_message(RunLayout(run_id).run, RunRecord)
        keys = store.keys(RunLayout(run_id).steps())
        bodies = [store.get(key) for key in keys]
        [line] = lines(store)
    assert bodies[: len(kept)] == kept
    steps = [Step.model_validate_json(body) for body in bodies if body]
    assert [step.connections for step in steps][:3] == [8, 16, LIMIT]
    assert result is not None
    assert (result.kind, result.capacity, line.capacity) == ("between", LIMIT, LIMIT)
    assert record is not None
    assert [attempt.first_phase for attempt in record.attempts] == [0, 1]


@pytest.mark.slow
async def test_a_cool_down_holds_what_the_last_good_step_held(tmp_path: Path) -> None:
    """Of connections that the relay refuses nothing is asked any more, and no edit is lost."""
    scenario = tmp_path / "upwards.toml"
    scenario.write_text(UPWARDS, encoding="utf-8")
    with start_relay("--max-connections", str(LIMIT)) as relay:
        summary = await relay_load(
            str(scenario), relay_url=relay.url, fleet="local", results=str(tmp_path)
        )
    # The phase's own stop objective and the run's bound the capacity; neither sets the verdict.
    assert (summary["verdict"], summary["validity"]) == ("passed", "valid")
    found = summary["capacity"]
    assert (found["kind"], found["low"], found["high"]) == ("between", 12, 16)
    stress, cool = summary["phases"][1:]
    assert (stress["connections_end"], cool["connections_end"]) == (16, 12)
    rows = {row["text"]: row for row in summary["objectives"]}
    assert rows["edits.lost == 0"]["met"]
    assert rows["connections.failed == 0 stop"]["met"]
    assert "outside the stress phase" in rows["connections.failed == 0 stop"]["sentence"]


@pytest.mark.slow
async def test_a_calibration_says_what_one_worker_holds(tmp_path: Path) -> None:
    """Up to the limit if nothing gave way before it, and that it is at least that."""
    with start_relay() as relay:
        told = await relay_calibrate(
            "local",
            relay_url=relay.url,
            start=6,
            limit=12,
            hold="3s",
            settle="1s",
            overrides={"phases.sustained.edits_per_minute": 2400},
            results=str(tmp_path),
        )
    with local_store(tmp_path) as address:
        known = Store(address).get_message(calibration_key("local", "local"), Calibration)
    assert known is not None
    assert known.model_dump(mode="json") == told["calibration"]
    assert known.is_at_least
    assert known.connections == 12
    assert known.sentence.startswith("one local worker holds at least 12 connections")
    # And the next run's estimate goes by it: twice as many connections, two workers.
    twice = load_scenario(
        "local", {"connections": 24, "phases.sustained.edits_per_minute": 600, "fleet.workers": 1}
    )
    with advice_from(None, tmp_path) as advise:
        needed = advise(twice, "local").needed
    assert needed is not None
    assert needed.calibration == known
    assert (needed.asked, needed.is_too_few) == (1, False)
    assert needed.needed >= 2
