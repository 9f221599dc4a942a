"""Scenes in which agents follow their plan: in time, late, and with pages that have grown."""

import time
from dataclasses import dataclass
from pathlib import Path

from run_store.messages import Order, Status
from tests.relay_process import start_relay
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.orchestration import Row, Run, family, is_renderer
from tests.worker_agent.power_off_stand_ins import powered_off, stand_ins


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
        # Few edits as the last connections come, or as a phase ends: on a busy machine they may
        # take seconds, and what was not begun at its end is missed.
        up = run.order("up", 6, 12, edits_per_s=3, edits_per_s_at_end=0)
        run.done(up)
        on = run.order("on", 6, 12, edits_per_s=10, edits_per_s_at_end=0)
        run.done(on)
        down = run.order("down", 4, 4, edits_per_s=6, edits_per_s_at_end=0)
        run.done(down)
        cool = run.order("cool", 2, 4, check_replicas=True)
        run.done(cool)
        run.stop()
        statuses = [status for worker in run.workers if (status := run.status(worker))]
        return Plain(run, up, on, down, cool, statuses, relay.stats())


@dataclass
class Late:
    """An agent that hears of orders late, and whose pages then hang for 5 s."""

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
        heard_at = time.time()
        joined = run.order("joined", 12, 4, edits_per_s=4, lead_s=-6)
        run.done(joined)
        hung = run.order("hung", 14, 4, edits_per_s=4)
        run.sleep_until(hung, 1)
        pages = [one for one in family(run.agents["worker-1"]) if is_renderer(one)]
        for page in pages:
            page.suspend()
        hung_at = time.time()
        wait_for(lambda: time.time() > hung_at + 5)
        hung_until = time.time()
        for page in pages:
            page.resume()
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
        run.until("worker-1", lambda status: status.state == "ready", within_s=120)

        def pages() -> set[int]:
            return {one.pid for one in family(agent) if is_renderer(one)}

        run.done(run.order("first", 3, 6, edits_per_s=6, edits_per_s_at_end=0))
        before = pages()
        second = run.order("second", 4, 6, edits_per_s=6, edits_per_s_at_end=0, lead_s=6)
        run.done(second)
        after = pages()
        run.stop(is_last_word=True)
        return Grown(run, second, before, after, powered_off(folder))
