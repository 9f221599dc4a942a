"""Scenes in which the relay or S3 is away, or the relay talks nonsense."""

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from run_store.messages import Order
from tests.relay_process import start_relay
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.orchestration import Row, Run


@dataclass
class Outages:
    """One agent whose S3 is away for 10 s while its relay dies, comes back, and then refuses."""

    run: Run
    calm: Order
    outage: Order
    refused: Order
    store_away: tuple[float, float] = (0, 0)
    relay_away: tuple[float, float] = (0, 0)
    """When it was told to end, and when it was back: outside it was there for certain."""
    relay_dead: tuple[float, float] = (0, 0)
    """When it had ended, and when it was told to begin: meanwhile it was away for certain."""
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
        outage = run.order("outage", 24, 8, edits_per_s=4)
        run.sleep_until(outage, 1.5)
        server.stop()
        store_away = time.time()
        run.sleep_until(outage, 3)
        told_to_end = time.time()
        relay.process.kill()
        relay.process.wait()
        ended = time.time()
        first.close()
        # Counted from its death, which may come late on a busy machine.
        wait_for(lambda: time.time() > ended + 5)
        port = str(urlsplit(relay.url).port)
        told_to_begin = time.time()
        relay = stack.enter_context(start_relay("--port", port))
        relay_back = time.time()
        wait_for(lambda: time.time() > store_away + 10)
        server.start()
        store_back = time.time()
        run.done(outage)
        relay.set_faults(max_connections=8)
        refused = run.order("refused", 6, 12, edits_per_s=1)
        run.done(refused)
        stats = relay.stats()
        run.stop()
        return Outages(
            run,
            calm,
            outage,
            refused,
            (store_away, store_back),
            (told_to_end, relay_back),
            (ended, told_to_begin),
            stats,
        )


@dataclass
class Faults:
    """One agent whose relay answers newcomers with one kind of nonsense after another."""

    run: Run
    order: Order
    windows: dict[str, tuple[float, float]]
    relay_stats: Row
    makes_sense_at: float = 0.0


def handshakes(folder: Path, server: StoreServer) -> Faults:
    """Have new connections meet a relay that says nothing, talks nonsense, or is late."""
    windows: dict[str, tuple[float, float]] = {}
    with (
        start_relay() as relay,
        Run(folder, server, relay.url, connections=30, bootstrap="tonk") as run,
    ):
        run.start_all()
        order = run.order("nonsense", 30, 30, edits_per_s=1)
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
            began, end_s = time.time(), end_s + 4.0
            run.sleep_until(order, end_s)
            windows[name] = began, time.time()
            relay.set_faults(**{name: none})
        makes_sense_at = time.time()
        run.done(order)
        stats = relay.stats()
        run.stop()
        return Faults(run, order, windows, stats, makes_sense_at)


def no_documents(folder: Path, server: StoreServer) -> Faults:
    """Have connections meet a relay that knows no document and takes none."""
    with (
        start_relay("--no-documents") as relay,
        Run(folder, server, relay.url, connections=3) as run,
    ):
        run.start_all()
        order = run.order("none", 24, 3, begin=3, edits_per_s=2, edits_per_s_at_end=0)
        run.done(order)
        run.stop()
        return Faults(run, order, {}, relay.stats())
