"""Scenes in which an agent ends before its load: killed, abandoned, or told twice."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from run_store.messages import Order, Status
from tests.relay_process import ROOT, start_relay
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.orchestration import Run, alive, family, still_alive, still_connected
from tests.worker_agent.power_off_stand_ins import powered_off, stand_ins
from tests.worker_agent.samples import rows
from tests.worker_agent.small_disk import SmallDisk


@dataclass
class Restart:
    """An agent that is killed in a phase, and one that takes its place until it is told to end."""

    run: Run
    before: Order
    cut: Order
    killed_at: float
    orphans: list[psutil.Process]
    gone_after_s: float
    spooled: set[str]
    joined: Status
    told_at: float
    exit_code: int
    ended: Status
    left: list[psutil.Process]
    powered_off: str


def restart(folder: Path, server: StoreServer) -> Restart:
    """Kill an agent in the middle of a phase, start another in its place, and tell that to end."""
    with (
        start_relay() as relay,
        Run(folder, server, relay.url, connections=6, edits_per_document=20) as run,
    ):
        run.start_all()
        before = run.order("before", 2, 6, edits_per_s=5)
        run.done(before)
        cut = run.order("cut", 120, 6, edits_per_s=5)
        run.sleep_until(cut, 14)
        agent = run.agents["worker-1"]
        below = family(agent)
        agent.kill()
        killed_at = time.time()
        agent.wait()
        wait_for(lambda: not alive(below), within_s=40, why=lambda: alive(below))
        gone_after_s = time.time() - killed_at
        spooled = {path.name for path in folder.glob("spool-*/**/*.arrows")}
        again = run.start("worker-1", environment=stand_ins(folder), power_off=True)
        joined = run.until(
            "worker-1",
            lambda status: (
                status.errors.get("agent_restarted") and status.vitals.connections_synced == 6
            ),
            within_s=120,
        )
        done = joined.counts.edits_completed
        run.until("worker-1", lambda status: status.counts.edits_completed > done + 10)
        below = family(again)
        again.send_signal(signal.SIGTERM)
        told_at = time.time()
        exit_code = again.wait(timeout=60)
        ended = run.status()
        assert ended is not None
        return Restart(
            run,
            before,
            cut,
            killed_at,
            below,
            gone_after_s,
            spooled,
            joined,
            told_at,
            exit_code,
            ended,
            still_alive(below),
            powered_off(folder),
        )


@dataclass
class Abandoned:
    """An agent whose disk is full for a while, and whose orchestrator then goes away."""

    run: Run
    full: Order
    abandoned: Order
    filled: Status
    cleared: Status
    filled_at: tuple[float, float]
    lease_ended_at: float
    ended_at: float
    exit_code: int
    ended: Status
    left: list[psutil.Process]
    powered_off: str
    relay_connections: int


def abandoned(folder: Path, server: StoreServer) -> Abandoned | None:
    """Fill an agent's disk and give the room back; then let its lease run out."""
    folder.mkdir()
    disk = SmallDisk.mount(folder / "disk")
    if disk is None:
        return None
    with disk, start_relay() as relay, Run(folder, server, relay.url, connections=6) as run:
        run.lease()
        agent = run.start(
            "worker-1",
            environment=stand_ins(folder),
            spool=disk.folder,
            power_off=True,
        )
        run.until("worker-1", lambda status: status.state == "ready", within_s=120)
        full = run.order("full", 20, 6, edits_per_s=8, edits_per_s_at_end=0)
        run.sleep_until(full, 2)
        disk.fill()
        filled_at = time.time()
        filled = run.until("worker-1", lambda status: "disk" in status.message)
        run.sleep_until(full, 8)
        disk.clear()
        cleared_at = time.time()
        cleared = run.until("worker-1", lambda status: status.message == "")
        run.done(full)
        order = run.order("abandoned", 120, 6, edits_per_s=2)
        run.sleep_until(order, 0.5)
        lease_ended_at = time.time() + 2.0
        run.lease(expires_after_s=2.0)
        below = family(agent)
        exit_code = agent.wait(timeout=60)
        ended = run.status()
        assert ended is not None
        return Abandoned(
            run,
            full,
            order,
            filled,
            cleared,
            (filled_at, cleared_at),
            lease_ended_at,
            time.time(),
            exit_code,
            ended,
            still_alive(below),
            powered_off(folder),
            still_connected(relay),
        )


@dataclass
class Hasty:
    """An agent whose S3 is away until it gives up, and that is then told twice to end."""

    run: Run
    order: Order
    store_away_at: float
    took_s: float
    exit_code: int
    left: list[psutil.Process]
    rows_before: int
    shipped: "subprocess.CompletedProcess[str]"
    broken_exit_code: int
    broken: Status
    powered_off: str


def hasty(folder: Path, _server: StoreServer) -> Hasty:
    """Take S3 away until an agent gives up, tell it twice to end, and ship what it left.

    Start one without a browser as well.
    """
    with (
        StoreServer(folder / "s3") as server,
        start_relay() as relay,
        Run(folder, server, relay.url, workers=("worker-1", "worker-2"), connections=6) as run,
    ):
        run.lease()
        broken = run.start("worker-2", chromium="/bin/false")
        agent = run.start(
            "worker-1",
            environment=stand_ins(folder),
            power_off=True,
            ship_every_s=600,
            store_grace_s=12,
        )
        run.until("worker-1", lambda status: status.state == "ready", within_s=120)
        broken_exit_code = broken.wait(timeout=60)
        failed = run.status("worker-2")
        assert failed is not None
        order = run.order("hasty", 60, 6, begin=6, edits_per_s=4)
        run.sleep_until(order, 4)
        below = family(agent)
        server.stop()
        store_away_at = time.time()
        wait_for(lambda: "samples wait" in run.log("worker-1"), within_s=60)
        told_at = time.time()
        agent.send_signal(signal.SIGTERM)
        wait_for(lambda: "told to by SIGTERM" in run.log("worker-1"), within_s=60)
        agent.send_signal(signal.SIGTERM)
        exit_code = agent.wait(timeout=80)
        took_s = time.time() - told_at
        server.start()
        rows_before = len(rows(run.store, run.run_id, "edits"))
        shipped = subprocess.run(
            [sys.executable, "-m", "worker_agent.shipping", "--config", folder / "worker-1.json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return Hasty(
            run,
            order,
            store_away_at,
            took_s,
            exit_code,
            still_alive(below),
            rows_before,
            shipped,
            broken_exit_code,
            failed,
            powered_off(folder),
        )
