"""Substitutes for lost workers, with fleets as they are; what conducting does: test_conductor."""

from __future__ import annotations

import asyncio
import signal
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from run_store.messages import Status
from tasks.deploy import start_agents
from tasks.fleets.base import Worker
from tasks.fleets.local import LocalFleet
from tasks.fleets.ssh import SshFleet
from tasks.lease_keeper import LeaseKeeper
from tasks.observation import showing
from tasks.preparation import Wanted, prepared
from tasks.report import make_report
from tasks.run_context import RunContext
from tests.flow_process import BRIEF, MARK, agents, with_mark
from tests.hearing import Hearing
from tests.waiting import wait_for


@pytest.mark.slow
@pytest.mark.browser
async def test_a_killed_agents_connections_go_on_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the next phase on a new agent holds them; the loss counts where it was, and for it."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    # By the next phase all six are open, so that the substitute opens its three at once.
    overrides = {**BRIEF, "phases.warmup.connections": 6, "fleet.replace_lost_workers": True}
    wanted = Wanted("local", results=tmp_path / "results", overrides=overrides)
    fleet = LocalFleet()
    async with prepared(wanted) as run:
        context, store = run.context, run.context.store()
        async with LeaseKeeper(context):
            try:
                conductor = await start_agents(context, await fleet.acquire(context))
                running = asyncio.create_task(conductor.run_phase(0))
                key = context.layout.order(1, 1)
                assert await asyncio.to_thread(wait_for, lambda: store.get(key), within_s=30)
                agents(mark)["worker-2"].send_signal(signal.SIGKILL)
                await running
                await asyncio.gather(*conductor.substitutes.seeking)
                records = [await conductor.run_phase(index) for index in (1, 2, 3)]
                await conductor.finish("done")
                run.record.attempts[-1].workers = conductor.roll.names
            finally:
                await conductor.substitutes.end()
                assert await fleet.release(context) == []
        assert await asyncio.to_thread(wait_for, lambda: not agents(mark))
        await run.load_ended(None)
        summary = await make_report(context)
        status = store.get_message(context.layout.status(1, "worker-3"), Status)
    # The store's server ends half a second after its last user.
    assert await asyncio.to_thread(wait_for, lambda: not with_mark(mark))
    assert [record.slots for record in records] == [["worker-1", "worker-3"]] * 3
    assert status is not None
    assert status.counts.edits_completed > 0
    assert summary.attempts[0].workers == ["worker-1", "worker-2", "worker-3"]
    worker = {one.worker: one for one in summary.workers}["worker-3"]
    assert (worker.connections_peak, worker.edits_failed, worker.lost) == (3, 0, False)
    assert {phase.label: phase.connections.peak for phase in summary.phases}["02-sustained"] == 6
    assert summary.edits.lost == 0
    [lost] = summary.lost_workers
    assert (lost.worker, lost.phase) == ("worker-2", "00-warmup")
    said = [entry for entry in summary.validity_evidence if entry.level != "note"]
    assert {entry.phase for entry in said if entry.phase} == {"00-warmup"}
    [loss] = [entry for entry in said if entry.rule == "lost_worker"]
    assert loss.sentence.endswith("replaced by worker-3 from 01-ramp-up on")


async def test_a_named_host_beyond_those_in_use_is_a_spare(context: RunContext) -> None:
    """Hosts that the workers do not need stand in one after another; then there is none."""
    named = ("root@127.0.1.51", "root@127.0.1.52", "root@127.0.1.53")
    given = {"hosts": named, "workers": 2, "replace_lost_workers": True}
    fleet = context.scenario.fleet.model_copy(update=given)
    context = replace(context, scenario=context.scenario.model_copy(update={"fleet": fleet}))
    lost, hearing = Worker("worker-2", f"{named[1]}:22"), Hearing()
    with showing(hearing):
        first = await SshFleet().substitute(context, "worker-3", lost)
        second = await SshFleet().substitute(context, "worker-4", lost)
    assert first == Worker("worker-3", f"{named[2]}:22")
    assert second is None
    assert hearing.warnings == ["worker-2 is not replaced: no further host is named"]
