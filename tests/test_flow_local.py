from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import run_flow
from prefect.states import Cancelling, Scheduled

from flows.relay_load import relay_load, release_run
from run_store.errors import (
    FleetError,
    InterruptedRunError,
    InvalidRunError,
    ObjectivesMissedError,
)
from run_store.layout import RunLayout, relay_claims
from run_store.messages import Order, PhaseRecord, RunRecord
from run_store.store import Store
from tasks.local_services import RelayAddress, free_port, local_store
from tasks.preparation import Wanted, prepared
from tasks.relay_lock import RelayLock, relay_name
from tests.flow_process import BRIEF, MARK, FlowProcess, agents, run_record, with_mark
from tests.store_server import StoreServer
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.browser, pytest.mark.usefixtures("prefect_api")]
PHASES = ["00-warmup", "01-ramp-up", "02-sustained", "03-cooldown"]


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Mark what this process starts."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    return mark


Begin = Callable[..., FlowProcess]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start the flow in a process of its own; nothing of it outlives the test."""
    begun: list[FlowProcess] = []

    def begin_one(**parameters: Any) -> FlowProcess:
        begun.append(FlowProcess(tmp_path, **parameters))
        return begun[-1]

    yield begin_one
    for flow in begun:
        flow.clean()


def phase_record(results: Path, label: str) -> PhaseRecord:
    [file] = (results / "store/relay-load/runs").glob(f"*/phases/{label}.json")
    return PhaseRecord.model_validate_json(file.read_bytes())


def nothing_left(mark: str) -> bool:
    return not with_mark(mark)


async def third_order(results: Path) -> Path:
    """Wait until the sustained phase is ordered; return the run's folder in the bucket."""
    pattern = "store/relay-load/runs/*/attempt=1/orders/000003.json"
    [order] = await asyncio.to_thread(
        wait_for, lambda: list(results.glob(pattern)), within_s=200, every_s=0.2
    )
    return order.parents[2]


async def test_a_run_passes(tmp_path: Path, mark: str) -> None:
    """A short run passes: all edits reach all, the UI shows it, and nothing is left behind."""
    for number in range(3):
        results = tmp_path / f"results-{number}"
        state = await relay_load("local", results=str(results), overrides=BRIEF, return_state=True)
        if state.is_completed():
            break
        # On a busy machine one of the few edits can be late, which is no fault of the flow's.
        error = await state.aresult(raise_on_failure=False)
        assert isinstance(error, InvalidRunError | ObjectivesMissedError), state
    assert state.is_completed(), state
    record = run_record(results)
    folder = results / record.run_id
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["run_id"], summary["scenario"]) == (record.run_id, "local")
    assert (record.state, record.verdict) == ("reported", summary["verdict"])
    assert summary["verdict"] == "passed"
    assert summary["edits"]["failed"] == 0
    assert summary["connections"]["peak"] == 6
    assert [phase_record(results, label).stopped_early for label in PHASES] == [""] * 4
    assert (folder / "report.html").stat().st_size > 0
    assert not list(folder.glob("**/agent.json")), "the store's keys stay nowhere"
    assert not list(folder.glob("**/*.arrows")), "all samples are in the bucket"
    assert await asyncio.to_thread(wait_for, lambda: nothing_left(mark))
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    assert record.run_id.endswith(flow_run_id.hex[-8:])
    async with get_client() as client:
        by_run = FlowRunFilter.model_validate({"id": {"any_": [flow_run_id]}})
        names = {run.name for run in await client.read_task_runs(flow_run_filter=by_run)}
        assert names >= {"warmup", "ramp-up", "sustained", "cooldown"}
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        artifacts = {item.key: item for item in await client.read_artifacts(artifact_filter=of_run)}
    assert artifacts["phase-sustained"].type == "progress"
    assert artifacts["phase-sustained"].data == 100
    assert artifacts["objectives"].type == "table"
    assert "passed" in str(artifacts["report"].data)


@pytest.mark.slow
async def test_one_of_two_workers_is_killed(tmp_path: Path, mark: str) -> None:
    """The run goes on to its report, which is invalid and says who was lost, when and with what."""
    results = tmp_path / "results"
    flow = asyncio.create_task(
        relay_load(
            "local",
            results=str(results),
            overrides={**BRIEF, "phases.sustained.duration": "6s"},
        )
    )
    await third_order(results)
    agents(mark)["worker-2"].send_signal(signal.SIGKILL)
    with pytest.raises(InvalidRunError, match="worker-2"):
        await flow
    [lost] = phase_record(results, "02-sustained").lost
    assert (lost.worker, lost.phase, lost.connections) == ("worker-2", "02-sustained", 3)
    assert phase_record(results, "03-cooldown").slots == ["worker-1", ""]
    record = run_record(results)
    assert (record.state, record.validity) == ("reported", "invalid")
    assert (results / record.run_id / "report.html").exists()
    assert not list(results.glob("*/attempt-1/worker-2/spool")), "its last samples were shipped"
    assert await asyncio.to_thread(wait_for, lambda: nothing_left(mark))


@pytest.mark.slow
async def test_all_workers_are_killed(tmp_path: Path, mark: str) -> None:
    """A run whose workers are all gone ends soon, with a report of what was measured."""
    results = tmp_path / "results"
    flow = asyncio.create_task(
        relay_load(
            "local",
            results=str(results),
            overrides={**BRIEF, "phases.sustained.duration": "300s"},
        )
    )
    await third_order(results)
    for agent in agents(mark).values():
        agent.send_signal(signal.SIGKILL)
    async with asyncio.timeout(60):
        with pytest.raises(Exception, match=r"[Ee]very worker was lost"):
            await flow
    record = run_record(results)
    assert record.state == "failed"
    assert (results / record.run_id / "report.html").exists()
    assert await asyncio.to_thread(wait_for, lambda: nothing_left(mark))


@pytest.mark.slow
async def test_a_retry_goes_on_where_the_run_stands(tmp_path: Path, mark: str) -> None:
    """Retrying the flow run keeps its complete phases, reconnects, and does the rest."""
    results = tmp_path / "results"
    parameters: dict[str, Any] = {
        "scenario": "local",
        "results": str(results),
        "overrides": {**BRIEF, "phases.sustained.duration": "5s"},
    }

    async def first_attempt() -> State[Any]:
        return await relay_load(**parameters, return_state=True)

    first = asyncio.create_task(first_attempt())
    run = await third_order(results)
    with local_store(results) as address:
        Store(address).put(RunLayout(run.name).stop, b"{}")
    state = await first
    assert state.is_failed()
    with pytest.raises(InterruptedRunError, match="asked to stop"):
        await state.aresult()
    warmup = phase_record(results, "00-warmup")
    assert phase_record(results, "02-sustained").stopped_early == "asked to stop"

    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, Scheduled(name="AwaitingRetry"), force=True)
        flow_run = await client.read_flow_run(flow_run_id)
    retried: Any = run_flow(relay_load, flow_run=flow_run, parameters=parameters)
    await retried
    record = run_record(results)
    assert record.run_id == run.name
    assert [attempt.first_phase for attempt in record.attempts] == [0, 2]
    assert record.state == "reported"
    assert phase_record(results, "00-warmup") == warmup
    again = phase_record(results, "02-sustained")
    assert (again.attempt, again.stopped_early, again.connections.start) == (2, "", 6)
    assert await asyncio.to_thread(wait_for, lambda: nothing_left(mark))


async def test_a_run_that_fails_before_its_load_is_reported(tmp_path: Path) -> None:
    """Hosts that cannot be reached end a run, and its report says what happened."""
    results = tmp_path / "results"
    nobody = f"nobody@127.0.0.1:{free_port()}"
    with pytest.raises(FleetError, match="cannot be reached"):
        await relay_load("local", results=str(results), hosts=[nobody], overrides=BRIEF)
    record = run_record(results)
    assert record.state == "failed"
    summary = json.loads((results / record.run_id / "summary.json").read_text())
    assert (summary["state"], summary["validity"]) == ("failed", "invalid")
    assert "cannot be reached" in " ".join(summary["problems"])
    assert (results / record.run_id / "report.html").stat().st_size > 0


@pytest.mark.slow
async def test_runs_of_one_relay_take_turns(tmp_path: Path, quiet_relay: RelayAddress) -> None:
    """While another run has the relay nothing is started; then the run passes."""
    results = tmp_path / "results"
    claims = relay_claims(relay_name(quiet_relay.url))
    with local_store(results) as address:
        store = Store(address)
        async with RelayLock(store, quiet_relay.url, "another-run"):
            flow = asyncio.create_task(
                relay_load(
                    "local", relay_url=quiet_relay.url, results=str(results), overrides=BRIEF
                )
            )
            await asyncio.to_thread(wait_for, lambda: len(store.keys(claims)) == 2, within_s=60)
            assert run_record(results).state == "running"
            begun = {path.name for path in results.glob("store/relay-load/runs/*/attempt=1/*")}
            assert begun <= {"presence.json"}
        assert (await flow)["verdict"] == "passed"
        assert store.keys(claims) == []


@pytest.mark.parametrize(
    ("moment", "reported"),
    [pytest.param("deploy: ", False, marks=pytest.mark.slow), ("00-load: ", True)],
)
def test_ctrl_c_once(begin: Begin, moment: str, reported: bool) -> None:
    """Once ends the run in order, and what was measured is reported."""
    flow = begin()
    flow.wait_for(moment)
    flow.send(signal.SIGINT)
    assert flow.wait() == 130, flow.said
    wait_for(lambda: not flow.left(), why=flow.left)
    record = run_record(flow.results)
    assert (flow.results / record.run_id / "report.html").exists() == reported
    assert record.state == "stopped"
    assert not list(flow.results.glob("**/agent.json"))


@pytest.mark.slow
def test_ctrl_c_twice(begin: Begin) -> None:
    """Twice ends it now, without a report, and everything is given back all the same."""
    flow = begin()
    flow.wait_for("00-load: ")
    flow.send(signal.SIGINT)
    flow.wait_for("press Ctrl-C again")
    flow.send(signal.SIGINT)
    assert flow.wait() == 130, flow.said
    wait_for(lambda: not flow.left(), why=flow.left)
    record = run_record(flow.results)
    assert record.state == "stopped"
    assert not (flow.results / record.run_id / "report.html").exists()
    assert not list(flow.results.glob("**/agent.json"))


def test_a_terminated_flow_tears_down(begin: Begin) -> None:
    """SIGTERM, which is how a cancellation comes, leaves nothing running."""
    flow = begin()
    flow.wait_for("00-load: ")
    flow.send(signal.SIGTERM)
    assert flow.wait() != 0
    wait_for(lambda: not flow.left(), why=flow.left)
    assert run_record(flow.results).state == "stopped"
    assert not list(flow.results.glob("**/agent.json"))


@pytest.mark.slow
def test_a_killed_flow_leaves_no_process(
    begin: Begin, store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of the flow ends agents, browsers and relay; the agents ship what they have."""
    keys = store_server.address.secrets()
    assert keys is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store_server.address.endpoint_url or "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    prefix = uuid.uuid4().hex
    flow = begin(store=f"s3://relay-load/{prefix}")
    flow.wait_for("2 of 2 workers")
    names = {psutil.Process(process.pid).name() for process in with_mark(flow.mark)}
    assert any("chrom" in name for name in names), names
    flow.send(signal.SIGKILL)
    flow.wait()
    wait_for(lambda: not flow.left(), within_s=40, why=flow.left)
    bucket = store_server.folder / "relay-load" / prefix / "runs"
    [run] = [RunRecord.model_validate_json(file.read_bytes()) for file in bucket.glob("*/run.json")]
    assert run.state == "running", "nobody was there to say otherwise"
    shipped = list(bucket.glob("*/samples/resources/*/phase=00-load/*/*.parquet"))
    assert len(shipped) == 2


async def test_a_hook_gives_back_what_its_flow_run_holds(tmp_path: Path) -> None:
    """Knowing nothing but a flow run's id and parameters, a hook has its workers stopped."""
    identity = uuid.uuid4()
    parameters = {"scenario": "local", "results": str(tmp_path), "store": None}
    flow_run = FlowRun(id=identity, flow_id=uuid.uuid4(), parameters=parameters)
    await release_run(relay_load, flow_run, Cancelling())
    assert not await asyncio.to_thread(os.listdir, tmp_path), "there is nothing to give back yet"
    wanted = Wanted(scenario="local", results=tmp_path, identity=str(identity))
    async with prepared(wanted) as run:
        await release_run(relay_load, flow_run, Cancelling())
        key = run.context.layout.order(1, 1)
        order = await asyncio.to_thread(run.context.store().get_message, key, Order)
    assert order is not None
    assert order.action == "stop"
