"""The agent: follows the orders of one attempt of a run, from the bucket and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import platform
import signal
import time
from pathlib import Path
from typing import Any, Literal

import psutil

from run_store.agent_config import AgentConfig
from run_store.errors import BrowserError, RelayLoadError, StoreError
from run_store.layout import RunLayout, phase_label
from run_store.messages import Lease, Order, PhaseDone, Status, Vitals
from run_store.store import Store
from scenarios.model import Scenario
from worker_agent.browsers import Browsers, Housing
from worker_agent.chromium import find_chromium
from worker_agent.clock import RunClock
from worker_agent.lease import LeaseWatch
from worker_agent.load import Load, page_settings
from worker_agent.page_client import PageState
from worker_agent.recording import Recording
from worker_agent.relay_sampler import RelaySampler
from worker_agent.resources import ResourceSampler, Usage
from worker_agent.spool import Spool

log = logging.getLogger(__name__)

TICK_S = 1.0
CLOCK_EVERY_S = 30.0
SHIP_LAST_S = 60.0
FOLLOW_AFTER_S = 6.0
"""A follower samples the relay once the sampler before it has not been heard for so long."""

State = Literal["starting", "ready", "running", "stopping", "stopped", "failed"]


class Agent:
    """One worker. `run()` returns when it was told to stop, or has reason to."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.scenario = Scenario.model_validate(config.scenario)
        self.layout = RunLayout(config.run_id)
        self.clock = RunClock()
        self.store = Store(config.store, timeout_s=5.0, tries=2)
        # Samples go through a client of their own: a slow upload delays no heartbeat.
        self.spool = Spool(
            config.spool,
            store=Store(config.store, timeout_s=30.0, tries=2),
            layout=self.layout,
            attempt=config.attempt,
            worker=config.worker,
        )
        self.recording = Recording(self.spool)
        self.lease = LeaseWatch()
        self.sampler = RelaySampler(config.relay_url, self.clock, self._relay_row)
        self.status = Status(
            worker=config.worker,
            attempt=config.attempt,
            beat=0,
            at_us=self.clock.now_us(),
            state="starting",
            versions=versions(),
            host=host_facts(),
        )
        self.orders: asyncio.Queue[Order] = asyncio.Queue()
        self._last_order = 0
        self._store_answered_at = time.monotonic()
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._sampling: asyncio.Task[None] | None = None
        self._offset_ms: float | None = None
        self._offset_error_ms: float | None = None
        self._states: list[PageState] = []
        self._loop_lag_ms = 0.0
        self._spool_lock = asyncio.Lock()

    async def run(self) -> int:
        """Follow orders until the end; return the process's exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, f"told to by {number.name}")
        background = [
            asyncio.create_task(work, name=name)
            for name, work in (("heartbeat", self._heartbeat()), ("lag", self._watch_lag()))
        ]
        try:
            return await self._run(background)
        except RelayLoadError as error:
            log.error("%s", error)  # noqa: TRY400 - its message says all
            self.status.state, self.status.message = "failed", str(error)
            return 1
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._beat()

    def stop(self, reason: str) -> None:
        """End the load in order and ship what there is, as soon as possible."""
        log.info("stopping: %s", reason)
        self._stop_reason = self._stop_reason or reason
        self._stop.set()

    async def _run(self, background: list[asyncio.Task[None]]) -> int:
        chromium = Path(self.config.chromium) if self.config.chromium else find_chromium()
        if chromium is None:
            raise BrowserError(
                "There is no Chromium on this worker.",
                hint="Install chromium-headless-shell, or run `playwright install chromium`.",
            )
        housing = Housing(self.scenario.isolation, self.scenario.connections_per_page)
        share = -(-self.scenario.peak_connections // self.scenario.fleet.workers)
        browsers = Browsers(
            housing=housing,
            chromium=chromium,
            clock=self.clock,
            settings=page_settings(self.config, self.scenario),
        )
        async with browsers:
            await browsers.house(max(1, share))
            load = Load(
                config=self.config,
                scenario=self.scenario,
                browsers=browsers,
                recording=self.recording,
                clock=self.clock,
            )
            self.status.state = "ready"
            await self._beat()
            background += [
                asyncio.create_task(work, name=name)
                for name, work in (
                    ("orders", self._poll_orders()),
                    ("ship", self._keep_shipping()),
                    ("clock", self._keep_clock()),
                    ("ticks", self._keep_ticking(load)),
                    ("life", self._watch_life()),
                )
            ]
            await self._follow(load)
            self.status.state = "stopping"
            for task in background[2:]:
                task.cancel()
            if self._sampling:
                self._sampling.cancel()
            await load.close()
        await self._ship_the_last()
        self.status.state, self.status.message = "stopped", self._stop_reason
        return 0

    async def _follow(self, load: Load) -> None:
        """Carry out orders one after another, until one says stop or something ends us."""
        order = await self._next(None)
        while order is not None and order.action == "run" and order.phase is not None:
            label = phase_label(order.phase.index, order.phase.name)
            await load.prepare(order)
            await self._until(order.starts_at_us)
            self.recording.phase = label
            self.status.state, self.status.order, self.status.phase = "running", order.number, label
            self._sample_relay(order)
            end_us = order.starts_at_us + round(order.duration_s * 1e6)
            following = await self._next(end_us)
            if following is not None:
                await self._until(min(end_us, following.starts_at_us))
            if self.clock.now_us() < end_us:
                load.cut(self.clock.now_us())
            await load.settle()
            if order.check_replicas:
                await load.check_replicas()
            await self._finish(label, order.number)
            order = following or (None if self._stop.is_set() else await self._next(None))

    async def _next(self, until_us: int | None) -> Order | None:
        """Wait for the next order, until an instant; None if none came or we must stop."""
        waits: list[asyncio.Task[Any]] = [
            asyncio.create_task(self.orders.get()),
            asyncio.create_task(self._stop.wait()),
        ]
        if until_us is not None:
            waits.append(asyncio.create_task(self.clock.sleep_until(until_us)))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits[1:]:
            task.cancel()
        if waits[0].done():
            order: Order = waits[0].result()
            return order
        waits[0].cancel()
        return None

    async def _until(self, at_us: int) -> None:
        """Wait for an instant, or until we must stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, (at_us - self.clock.now_us()) / 1e6)):
                await self._stop.wait()

    async def _finish(self, label: str, number: int) -> None:
        """Ship all samples of a phase that is over, and say so."""
        while True:
            try:
                async with self._spool_lock:
                    await asyncio.to_thread(self._ship_phase, label)
                break
            except StoreError as error:
                log.warning("samples wait: %s", error)
                if self._stop.is_set():
                    return
                await asyncio.sleep(1.0)
        self.status.done.append(
            PhaseDone(phase=label, order=number, parts=self.spool.numbers(label))
        )
        await self._beat()

    def _ship_phase(self, label: str) -> None:
        self.spool.freeze(label)
        self.spool.ship()
        self.spool.compact(label)

    async def _ship_the_last(self) -> None:
        deadline = time.monotonic() + SHIP_LAST_S
        async with self._spool_lock:
            await asyncio.to_thread(self.spool.freeze)
            while True:
                try:
                    await asyncio.to_thread(self.spool.ship)
                except StoreError as error:
                    if time.monotonic() > deadline:
                        log.error("samples stay in the spool: %s", error)  # noqa: TRY400
                        return
                    await asyncio.sleep(1.0)
                else:
                    return

    async def _poll_orders(self) -> None:
        """Look for the next order and at the lease, again and again."""
        while True:
            try:
                key = self.layout.order(self.config.attempt, self._last_order + 1)
                order = await asyncio.to_thread(self.store.get_message, key, Order)
                lease_key = self.layout.lease(self.config.attempt)
                lease = await asyncio.to_thread(self.store.get_message, lease_key, Lease)
            except StoreError as error:
                self.lease.store_silent()
                log.warning("no orders can be read: %s", error)
                order = None
            else:
                self._store_answered_at = time.monotonic()
                self.lease.seen(lease)
            if order is None:
                await asyncio.sleep(self.config.order_poll_s)
                continue
            self._last_order = order.number
            if order.action == "stop":
                self._stop_reason = self._stop_reason or order.reason or "ordered to stop"
            self.orders.put_nowait(order)

    async def _watch_life(self) -> None:
        """End the load when nobody is there to end it."""
        born = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            silent_s = time.monotonic() - self._store_answered_at
            if self.lease.is_over:
                self.stop("the orchestrator's lease is over")
            elif silent_s > self.config.store_grace_s:
                self.stop(f"the store has not answered for {silent_s:.0f} s")
            elif time.monotonic() - born > self.config.lives_at_most_s:
                self.stop("this agent's time limit is reached")

    async def _keep_shipping(self) -> None:
        while True:
            await asyncio.sleep(self.config.ship_every_s)
            try:
                async with self._spool_lock:
                    self.spool.freeze()
                    await asyncio.to_thread(self.spool.ship)
            except StoreError as error:
                log.warning("samples wait: %s", error)

    async def _keep_clock(self) -> None:
        while True:
            offset = await self.sampler.clock_offset()
            self._offset_ms = offset.offset_ms if offset else None
            self._offset_error_ms = offset.error_ms if offset else None
            await asyncio.sleep(CLOCK_EVERY_S)

    async def _keep_ticking(self, load: Load) -> None:
        resources = ResourceSampler()
        next_at = time.monotonic()
        while True:
            next_at = max(next_at + TICK_S, time.monotonic())
            await asyncio.sleep(next_at - time.monotonic())
            self._states = await load.tick()
            usage = await asyncio.to_thread(resources.sample)
            self._record_resources(load, usage)

    async def _watch_lag(self) -> None:
        """Measure how late the event loop is, by a timer that should fire each 50 ms."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            lag_ms = (time.monotonic() - before - 0.05) * 1000
            self._loop_lag_ms = max(self._loop_lag_ms, lag_ms)

    def _record_resources(self, load: Load, usage: Usage) -> None:
        states, now_us = self._states, self.clock.now_us()
        heap_mb = sum(state.heapBytes for state in states) / 2**20
        page_lag_ms = max((state.lagMs for state in states), default=0.0)
        target = load.target(now_us)
        opened = sum(state.open for state in states)
        synced = sum(state.synced for state in states)
        if self.recording.phase:
            self.recording.row(
                "resources",
                at_us=now_us,
                cpu_percent=usage.cpu_percent,
                agent_cpu_percent=usage.agent_cpu_percent,
                browser_cpu_percent=usage.browser_cpu_percent,
                rss_mb=usage.rss_mb,
                browser_pss_mb=usage.browser_pss_mb,
                js_heap_mb=heap_mb,
                loop_lag_ms=self._loop_lag_ms,
                page_lag_ms=page_lag_ms,
                connections_target=target,
                connections_open=opened,
                connections_synced=synced,
                connections_healthy=sum(state.healthy for state in states),
                sockets_attempted=sum(state.attempted for state in states),
                edits_pending=sum(state.pending for state in states),
                clock_offset_ms=self._offset_ms,
                clock_error_ms=self._offset_error_ms,
                disk_free_mb=self.spool.free_mb(),
            )
        self._loop_lag_ms = 0.0
        self.status.vitals = Vitals(
            connections_target=target,
            connections_open=opened,
            connections_synced=synced,
            lateness_p99_ms=self.recording.lateness_p99_ms(),
            cpu_percent=usage.cpu_percent,
            memory_mb=usage.rss_mb,
            browser_memory_mb=usage.browser_pss_mb,
            clock_offset_ms=self._offset_ms,
            clock_error_ms=self._offset_error_ms,
            relay_memory_mb=self.sampler.last.get("memory_rss_mb"),
            relay_connections=self.sampler.last.get("connections"),
        )

    def _sample_relay(self, order: Order) -> None:
        if self._sampling:
            self._sampling.cancel()
            self._sampling = None
        if self.config.worker in order.relay_samplers:
            before = order.relay_samplers[: order.relay_samplers.index(self.config.worker)]
            self._sampling = asyncio.create_task(self._sample_when_due(before))

    async def _sample_when_due(self, before: list[str]) -> None:
        """Sample the relay once every worker that comes before us is silent."""
        beats: dict[str, tuple[int, float]] = {}
        while before:
            await asyncio.sleep(2.0)
            for worker in list(before):
                key = self.layout.status(self.config.attempt, worker)
                try:
                    status = await asyncio.to_thread(self.store.get_message, key, Status)
                except StoreError:
                    continue
                beat = status.beat if status else -1
                last, since = beats.get(worker, (None, time.monotonic()))
                if beat != last:
                    beats[worker] = (beat, time.monotonic())
                elif time.monotonic() - since > FOLLOW_AFTER_S:
                    before.remove(worker)
        await self.sampler.run()

    def _relay_row(self, row: dict[str, Any]) -> None:
        if self.recording.phase:
            self.recording.row("relay", **row)

    async def _heartbeat(self) -> None:
        while True:
            await self._beat()
            await asyncio.sleep(self.config.heartbeat_s)

    async def _beat(self) -> None:
        status = self.status
        status.beat += 1
        status.at_us = self.clock.now_us()
        status.counts = self.recording.counts
        status.errors = dict(self.recording.errors.most_common(20))
        status.acknowledgement = self.recording.acknowledgement
        status.delivery = self.recording.delivery
        status.parts = {phase: self.spool.numbers(phase) for phase in self.spool.phases()}
        status.unshipped = self.spool.unshipped()
        key = self.layout.status(self.config.attempt, self.config.worker)
        try:
            await asyncio.to_thread(self.store.put_message, key, status.model_copy(deep=True))
        except StoreError as error:
            log.warning("no heartbeat was written: %s", error)


def versions() -> dict[str, str]:
    """Return the versions that a report names."""
    found = {"python": platform.python_version()}
    for package in ("relay-load", "playwright", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def host_facts() -> dict[str, str | int | float]:
    """Return what a report says of this machine."""
    return {
        "cpus": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "machine": platform.machine(),
    }
