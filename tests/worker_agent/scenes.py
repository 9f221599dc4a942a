"""Runs with real agents, Chromium, a local relay and S3, each played once for many tests.

Each scene is a function of a folder and the S3 server. It waits for what it needs to go on;
what has come of it is for the tests to judge. Scenes take their time with little work, so they
are played side by side.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from run_store.messages import Order, Status
from tests.relay_process import ROOT, start_relay
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.orchestration import Row, Run, alive, family, is_renderer
from tests.worker_agent.samples import rows
from tests.worker_agent.small_disk import SmallDisk

Scene = Callable[[Path, StoreServer], object]


def stand_ins(folder: Path) -> dict[str, str]:
    """Return an environment in which powering off is only noted, in a file of `folder`."""
    for name in ("systemctl", "shutdown", "poweroff"):
        command = folder / "bin" / name
        command.parent.mkdir(exist_ok=True)
        note = f'#!/bin/sh\necho "{name} $@" >> "{folder}/off"\n'
        command.write_text(note, encoding="utf-8")
        command.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def powered_off(folder: Path) -> str:
    """Return what was asked of the system's commands that power off."""
    off = folder / "off"
    return off.read_text(encoding="utf-8") if off.exists() else ""


@dataclass
class Plain:
    """Two agents on a plan: up, on, down, and the comparison of replicas."""

    run: Run
    up: Order
    on: Order
    down: Order
    cool: Order
    statuses: list[Status]
    relay_stats: Row


def plain(folder: Path, server: StoreServer) -> Plain:
    """Play a whole run in which nothing goes wrong."""
    with (
        start_relay() as relay,
        Run(
            folder,
            server,
            relay.url,
            workers=("worker-1", "worker-2"),
            connections=12,
            connections_per_document=6,
            edits_per_document=12,
        ) as run,
    ):
        run.start_all()
        # Few edits as the last connections come: on a busy machine those may take seconds.
        up = run.order("up", 6, 12, edits_per_s=3, edits_per_s_at_end=0)
        run.done(up)
        on = run.order("on", 6, 12, edits_per_s=5)
        run.done(on)
        down = run.order("down", 4, 4, edits_per_s=3)
        run.done(down)
        cool = run.order("cool", 2, 4, check_replicas=True)
        run.done(cool)
        run.stop()
        statuses = [status for worker in run.workers if (status := run.status(worker))]
        return Plain(run, up, on, down, cool, statuses, relay.stats())


@dataclass
class Outages:
    """One agent whose S3 is away for 10 s while its relay dies, comes back, and then refuses."""

    run: Run
    calm: Order
    outage: Order
    refused: Order
    store_away: tuple[float, float] = (0, 0)
    relay_away: tuple[float, float] = (0, 0)
    relay_stats: Row = field(default_factory=dict)


def outages(folder: Path, _server: StoreServer) -> Outages:
    """Take S3 and the relay away in the middle of a phase, and give both back."""
    with ExitStack() as stack:
        server = stack.enter_context(StoreServer(folder / "s3"))
        first = ExitStack()
        relay = first.enter_context(start_relay())
        run = stack.enter_context(Run(folder, server, relay.url, connections=12))
        run.start_all()
        calm = run.order("calm", 2, 8, edits_per_s=2)
        run.done(calm)
        outage = run.order("outage", 16, 8, edits_per_s=4)
        run.sleep_until(outage, 1.5)
        server.stop()
        store_away = time.time()
        run.sleep_until(outage, 3)
        relay_away = time.time()
        relay.process.kill()
        relay.process.wait()
        first.close()
        # Counted from its death, which may come late on a busy machine.
        wait_for(lambda: time.time() > relay_away + 3, within_s=4)
        port = str(urlsplit(relay.url).port)
        relay = stack.enter_context(start_relay("--port", port))
        relay_back = time.time()
        wait_for(lambda: time.time() > store_away + 10, within_s=11)
        server.start()
        store_back = time.time()
        run.done(outage)
        relay.set_faults(max_connections=8)
        refused = run.order("refused", 3, 12, edits_per_s=1)
        run.done(refused)
        stats = relay.stats()
        run.stop()
        return Outages(
            run,
            calm,
            outage,
            refused,
            (store_away, store_back),
            (relay_away, relay_back),
            stats,
        )


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
        cut = run.order("cut", 60, 6, edits_per_s=5)
        run.sleep_until(cut, 7)
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
            within_s=80,
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
            alive(below),
            powered_off(folder),
        )


@dataclass
class Faults:
    """One agent whose relay answers newcomers with one kind of nonsense after another."""

    run: Run
    order: Order
    windows: dict[str, tuple[float, float]]
    relay_stats: Row


def handshakes(folder: Path, server: StoreServer) -> Faults:
    """Have new connections meet a relay that says nothing, talks nonsense, or is late."""
    windows: dict[str, tuple[float, float]] = {}
    with (
        start_relay() as relay,
        Run(folder, server, relay.url, connections=20, bootstrap="tonk") as run,
    ):
        run.start_all()
        order = run.order("nonsense", 20, 20, edits_per_s=1)
        end_s = 1.2
        run.sleep_until(order, end_s)
        # The first two are waited out for ten seconds, which must lie within the phase.
        faults: tuple[tuple[str, bool | str | int, bool | int | None], ...] = (
            ("manifest_delay_ms", 600_000, 0),
            ("accept_silent", True, False),
            ("garbage", True, False),
            ("close_at_once", True, False),
            ("protocol_version", "2", None),
        )
        for name, fault, none in faults:
            relay.set_faults(**{name: fault})
            began, end_s = time.time(), end_s + 2.5
            run.sleep_until(order, end_s)
            windows[name] = began, time.time()
            relay.set_faults(**{name: none})
        run.done(order)
        stats = relay.stats()
        run.stop()
        return Faults(run, order, windows, stats)


def no_documents(folder: Path, server: StoreServer) -> Faults:
    """Have connections meet a relay that knows no document and takes none."""
    with (
        start_relay("--no-documents") as relay,
        Run(folder, server, relay.url, connections=3) as run,
    ):
        run.start_all()
        order = run.order("none", 21.5, 3, begin=3, edits_per_s=1)
        run.done(order)
        run.stop()
        return Faults(run, order, {}, relay.stats())


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
        run.until("worker-1", lambda status: status.state == "ready", within_s=80)
        full = run.order("full", 12, 6, edits_per_s=4)
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
        run.lease(expires_after_s=2.0)
        run.sleep_until(order, 0.5)
        run.lease(expires_after_s=2.0)
        lease_ended_at = time.time() + 2.0
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
            alive(below),
            powered_off(folder),
            relay.metrics()["connections"],
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
            ship_every_s=60,
            store_grace_s=3,
        )
        run.until("worker-1", lambda status: status.state == "ready", within_s=80)
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
            alive(below),
            rows_before,
            shipped,
            broken_exit_code,
            failed,
            powered_off(folder),
        )


@dataclass
class Late:
    """An agent that hears of orders late, and whose pages then hang for 4 s."""

    run: Run
    over: Order
    joined: Order
    hung: Order
    hung_at: tuple[float, float]
    last: Order
    heard_at: float
    status: Status | None


def late(folder: Path, server: StoreServer) -> Late:
    """Give an agent orders whose instants have passed; then stop its pages for a while."""
    with (
        start_relay() as relay,
        Run(folder, server, relay.url, connections=8, edits_per_document=10) as run,
    ):
        run.start_all()
        over = run.order("over", 2, 8, edits_per_s=4, lead_s=-12)
        joined = run.order("joined", 12, 4, edits_per_s=4, lead_s=-6)
        heard_at = time.time()
        run.done(joined)
        hung = run.order("hung", 8, 4, edits_per_s=4)
        run.sleep_until(hung, 1)
        pages = [one for one in family(run.agents["worker-1"]) if is_renderer(one)]
        hung_at = time.time()
        for page in pages:
            page.suspend()
        wait_for(lambda: time.time() > hung_at + 4, within_s=5)
        for page in pages:
            page.resume()
        hung_until = time.time()
        run.done(hung)
        last = run.order("last", 2, 4, edits_per_s=2, check_replicas=True)
        run.done(last)
        run.stop()
        return Late(run, over, joined, hung, (hung_at, hung_until), last, heard_at, run.status())


@dataclass
class Grown:
    """One agent whose pages hold more than they may before its second order."""

    run: Run
    second: Order
    pages_before: set[int]
    pages_after: set[int]
    powered_off: str


def grown(folder: Path, server: StoreServer) -> Grown:
    """Allow pages next to no memory, and order twice; then let a retry have the last word."""
    with start_relay() as relay, Run(folder, server, relay.url, connections=6) as run:
        run.lease()
        agent = run.start(
            "worker-1", environment=stand_ins(folder), page_memory_mb=0.1, power_off=True
        )
        run.until("worker-1", lambda status: status.state == "ready", within_s=80)

        def pages() -> set[int]:
            return {one.pid for one in family(agent) if is_renderer(one)}

        run.done(run.order("first", 3, 6, edits_per_s=3))
        before = pages()
        second = run.order("second", 4, 6, edits_per_s=3)
        run.done(second)
        after = pages()
        run.stop(is_last_word=True)
        return Grown(run, second, before, after, powered_off(folder))


SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (outages, plain, no_documents, handshakes, restart, abandoned, late, hasty, grown)
}
"""Every scene by its name, the longest first."""
