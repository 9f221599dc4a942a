"""A worker's load without orchestrator and store: browsers, pages and a schedule, in process."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from run_store.agent_config import AgentConfig
from run_store.errors import BrowserError
from run_store.layout import RunLayout
from run_store.messages import Line, Order, PhaseRef
from run_store.store import Store, StoreAddress
from scenarios.model import Scenario
from worker_agent.browsers import Browsers, Housing
from worker_agent.chromium import find_chromium
from worker_agent.clock import RunClock
from worker_agent.load import Load, page_settings
from worker_agent.page_client import PageState
from worker_agent.recording import Recording
from worker_agent.spool import Spool

WORKER = "worker-1"


@dataclass
class Bench:
    """One worker's browsers and load; give it orders with `begin`."""

    browsers: Browsers
    load: Load
    recording: Recording
    clock: RunClock
    number: int = 0

    async def begin(
        self,
        *,
        duration_s: float,
        connections: Line,
        edits_per_s: float = 0.0,
        edits_before: int = 0,
    ) -> None:
        """Give an order that begins now, and return when it has begun."""
        self.number += 1
        order = Order(
            number=self.number,
            attempt=1,
            action="run",
            starts_at_us=self.clock.now_us() + 1_000_000,
            duration_s=duration_s,
            phase=PhaseRef(index=self.number, name="bench", kind="sustained"),
            connections=connections,
            edits_per_s=Line(start=edits_per_s, end=edits_per_s),
            slots=[WORKER],
            first_edit=edits_before,
            document_edits={0: edits_before},
        )
        await self.load.prepare(order)
        await self.clock.sleep_until(order.starts_at_us)

    async def all_synced(self, connections: int, *, within_s: float = 180) -> None:
        """Wait until so many connections are in sync; end the benchmark if they never are."""
        deadline = self.clock.now_us() + within_s * 1e6
        while self.clock.now_us() < deadline:
            if (await self.state()).synced >= connections:
                return
            await asyncio.sleep(0.2)
        raise SystemExit(f"not all {connections} connections were in sync after {within_s:g} s")

    async def state(self) -> PageState:
        """Fetch the pages' samples; return the sums of their states."""
        states = await self.load.tick()
        return PageState(
            atUs=self.clock.now_us(),
            lagMs=max(state.lagMs for state in states),
            **{
                name: sum(getattr(state, name) for state in states)
                for name in (
                    *("wanted", "open", "synced", "healthy", "attempted", "pending"),
                    *("heapBytes", "memoryBytes"),
                )
            },
        )


@contextlib.asynccontextmanager
async def bench(scenario: Scenario, relay_url: str, *, pages: bool = True) -> AsyncIterator[Bench]:
    """Start the browsers that a scenario needs on one worker; close all at the end."""
    chromium = find_chromium()
    if chromium is None:
        raise BrowserError("There is no Chromium here.", hint="Run `make setup`.")
    clock = RunClock()
    with tempfile.TemporaryDirectory() as folder:
        config = AgentConfig(
            run_id="bench",
            attempt=1,
            worker=WORKER,
            store=StoreAddress(bucket="unused", endpoint_url="http://127.0.0.1:9"),
            relay_url=relay_url,
            scenario=scenario.model_dump(mode="json", by_alias=True),
            spool=Path(folder),
        )
        spool = Spool(
            config.spool,
            store=Store(config.store),
            layout=RunLayout("bench"),
            attempt=1,
            worker=WORKER,
        )
        recording = Recording(spool)
        browsers = Browsers(
            housing=Housing(scenario.isolation, scenario.connections_per_page),
            chromium=chromium,
            clock=clock,
            settings=page_settings(config, scenario),
        )
        async with browsers:
            if pages:
                await browsers.house(scenario.peak_connections)
            load = Load(
                config=config,
                scenario=scenario,
                browsers=browsers,
                recording=recording,
                clock=clock,
            )
            yield Bench(browsers, load, recording, clock)
            await load.close()


def browser_processes() -> list[psutil.Process]:
    """Return every process below this one that is Chromium's."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "chrom" in child.name() or "headless" in child.name():
                found.append(child)
    return found


async def browser_pss_mb() -> float:
    """Return the PSS of all browser processes together, in MiB."""

    def measure() -> float:
        total = 0.0
        for process in browser_processes():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss / 2**20
        return total

    return await asyncio.to_thread(measure)


def browser_cpu_s() -> float:
    """Return the CPU seconds that all browser processes have spent so far."""
    total = 0.0
    for process in browser_processes():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total
