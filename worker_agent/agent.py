"""The agent: follows the orders of one attempt of a run, from the bucket and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from run_store.agent_config import AgentConfig
from run_store.errors import BrowserError, RelayLoadError
from run_store.layout import RunLayout, phase_label
from run_store.messages import Leaving, Order, PhaseDone, Status
from run_store.store import Store
from scenarios.model import Scenario
from worker_agent.browsers import Browsers, Housing
from worker_agent.chromium import find_chromium
from worker_agent.clock import RunClock
from worker_agent.heartbeat import Heartbeat, host_facts, versions
from worker_agent.journey_load import open_load
from worker_agent.late import TakesUpLate
from worker_agent.load import page_settings
from worker_agent.notice import next_notice
from worker_agent.orders import OrderFeed
from worker_agent.power import power_off
from worker_agent.progress import Progress
from worker_agent.recording import Recording
from worker_agent.relay_duty import RelayDuty
from worker_agent.relay_sampler import RelaySampler
from worker_agent.self_watch import SelfWatch
from worker_agent.shipping import Shipper, spool_of
from worker_agent.ticking import TICK_S, Ticking

log = logging.getLogger(__name__)

SHIP_LAST_S = 60.0
"""How long an agent that is told to stop tries to ship what it has."""
LATE_AFTER_S = 2.0
"""An order that is taken up so long after its instant is joined as it is by then."""
LIFELESS_AFTER_S = 30.0
"""An agent none of whose pages answers for so long makes no load, and says that it failed."""
SPARE_S = 5.0
"""How long before its machine is taken an agent has shipped what it can."""
THREADS = 16
"""Calls to S3 may each hang for seconds; none may keep the others waiting for a thread."""


class Agent:
    """One worker. `run()` returns when it was told to stop, or has reason to."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.scenario = Scenario.model_validate(config.scenario)
        self.layout = RunLayout(config.run_id)
        self.clock = RunClock()
        self.store = Store(config.store, timeout_s=5.0, tries=2)
        self.spool = spool_of(config)
        self.recording = Recording(self.spool, self.clock.now_us)
        self.shipper = Shipper(
            self.spool, self.recording, self.clock.now_us, every_s=config.ship_every_s
        )
        self.feed = OrderFeed(self.store, self.layout, config.attempt, poll_s=config.order_poll_s)
        self.sampler = RelaySampler(config.relay_url, self.clock, self._relay_row)
        self.duty = RelayDuty(self.sampler, config.worker, self._status_of)
        self.watch = SelfWatch(
            clock=self.clock, recording=self.recording, spool=self.spool, relay=self.sampler
        )
        self._progress_file = self.spool.folder / "progress.json"
        self.progress = Progress.from_file(self._progress_file)
        self.status = Status(
            worker=config.worker,
            attempt=config.attempt,
            beat=0,
            at_us=self.clock.now_us(),
            began_us=self.clock.now_us(),
            state="starting",
            versions=versions(),
            host=host_facts(),
        )
        self.heartbeat = Heartbeat(
            store=self.store,
            key=self.layout.status(config.attempt, config.worker),
            status=self.status,
            fill=self._fill,
            every_s=config.heartbeat_s,
        )
        self._born = time.monotonic()
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._ship_until = float("inf")
        self._abandoned = False
        self._signals = 0
        self._failure: RelayLoadError | None = None

    async def run(self) -> int:
        """Follow orders until the end; return the process's exit code.

        0: stopped as told, or with reason, and nothing is left in the spool. 1: could not run,
        or samples stay in the spool. 130: told twice to stop.
        """
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="agent"))
        me = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number.name, me)
        beating = asyncio.create_task(self._always("heartbeat", self.heartbeat.run))
        try:
            code = await self._run()
        except asyncio.CancelledError:
            code = self._failed("told twice to stop", 130)
        except RelayLoadError as error:
            log.error("%s", error)  # noqa: TRY400 - its message says all
            code = self._failed(str(error), 1)
        except Exception as error:
            log.exception("the agent failed")
            code = self._failed(f"{type(error).__name__}: {error}", 1)
        finally:
            self.heartbeat.end()
            await beating
            await self.heartbeat.beat()
            self.spool.close()
        if self._abandoned and self.config.power_off:
            power_off()
        return code

    def stop(self, reason: str, *, abandoned: bool = False) -> None:
        """End the load in order and ship what there is, as soon as possible.

        An `abandoned` agent, whose orchestrator or store is gone, has nobody who would fetch
        its spool: it tries to ship for as long as it lives.
        """
        if not self._stop.is_set():
            log.info("stopping: %s", reason)
            self._stop_reason = self._stop_reason or reason
            self._abandoned = abandoned
        if not abandoned:
            self._ship_until = min(self._ship_until, time.monotonic() + SHIP_LAST_S)
        self._stop.set()

    def _signalled(self, name: str, me: asyncio.Task[Any] | None) -> None:
        self._signals += 1
        log.info("told to by %s", name)
        self.stop(f"told to by {name}")
        # Somebody is here who takes care of the machine, and fetches what cannot be shipped.
        self._abandoned = False
        if self._signals > 1 and me is not None:
            # What is not in the bucket by now is on the disk: one try, then the end.
            self._ship_until = time.monotonic()
            me.cancel()

    def _failed(self, message: str, code: int) -> int:
        self.status.state, self.status.message = "failed", message
        return code

    async def _run(self) -> int:
        shipping = asyncio.create_task(self._always("shipping", self.shipper.run))
        try:
            await self._load()
        finally:
            shipping.cancel()
            self.status.state = "stopping"
            if not self._abandoned:
                self._ship_until = min(self._ship_until, time.monotonic() + SHIP_LAST_S)
            left = not await self.shipper.ship_all(self._patience_s)
        self.status.state, self.status.message = "stopped", self._stop_reason
        return int(left)

    async def _load(self) -> None:
        """Have browsers, follow orders in them, and close all connections."""
        chosen = self.config.chromium
        chromium = Path(chosen) if chosen else await asyncio.to_thread(find_chromium)
        if chromium is None:
            raise BrowserError(
                "There is no Chromium on this worker.",
                hint="Install chromium-headless-shell, or run `playwright install chromium`.",
            )
        browsers = Browsers(
            housing=Housing(self.scenario.isolation, self.scenario.connections_per_page),
            chromium=chromium,
            clock=self.clock,
            settings=page_settings(self.config, self.scenario),
        )
        async with browsers:
            load = await open_load(
                config=self.config,
                scenario=self.scenario,
                browsers=browsers,
                recording=self.recording,
                clock=self.clock,
            )
            self.status.state = "ready"
            await self.heartbeat.beat()
            ticking = Ticking(load, self.watch, self.clock.now_us)
            background = [
                asyncio.create_task(self._always(name, work))
                for name, work in (
                    ("orders", self.feed.run),
                    ("clock", self.watch.keep_clock),
                    ("lag", self.watch.watch_lag),
                    ("samples", ticking.fetch),
                    ("resources", ticking.sample),
                    ("disk", self.shipper.watch_disk),
                    ("life", lambda: self._watch_life(ticking)),
                    ("notice", self._leave_on_notice),
                )
            ]
            try:
                await self._follow(load)
                if self._failure is not None:
                    raise self._failure
            finally:
                self.status.state = "stopping"
                self.duty.end()
                await ticking.rest()
                for task in background:
                    task.cancel()
                await load.close()

    async def _always(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something until it is done; what it raises is a sample, and it begins again."""
        while True:
            try:
                return await work()
            except Exception as error:
                log.exception("%s failed, and begins again", name)
                message = f"{name}: {type(error).__name__}: {error}"
                self.recording.error(self.clock.now_us(), "agent_error", message)
                await asyncio.sleep(TICK_S)

    async def _follow(self, load: TakesUpLate) -> None:
        """Carry out orders one after another, until one says stop or something ends us."""
        await self._or_stop(self.feed.caught_up.wait())
        number = 1
        while (order := await self._or_stop(self.feed.order(number))) is not None:
            if order.action == "stop" or order.phase is None:
                # Whoever gave the word has no login to this machine, by which it could fetch.
                is_alone = order.is_last_word and self.config.power_off
                self.stop(order.reason or "ordered to stop", abandoned=is_alone)
                return
            label = phase_label(order.phase.index, order.phase.name)
            if self.progress.is_done(number):
                await self._learn(order, load)
            elif self.feed.is_over(order, self.clock.now_us()):
                await self._learn(order, load)
                await self._finish(label, order)
            else:
                await self._carry_out(order, label, load)
            number += 1

    async def _learn(self, order: Order, load: TakesUpLate) -> None:
        """Take note of an order that is over; what follows it may have cut it short."""
        await load.learn(order)
        following = self.feed.orders.get(order.number + 1)
        if following is not None:
            load.cut(following.starts_at_us)

    async def _carry_out(self, order: Order, label: str, load: TakesUpLate) -> None:
        begun_before = order.number in self.progress.begun
        if self.clock.now_us() > order.starts_at_us + LATE_AFTER_S * 1e6:
            await load.take_up(order, begun_before=begun_before)
        else:
            await load.prepare(order)
        await self._until(order.starts_at_us)
        if self._stop.is_set():
            return
        self.recording.phase = label
        self.status.state, self.status.order, self.status.phase = "running", order.number, label
        if begun_before:
            message = f"an earlier agent of this worker had begun order {order.number}"
            self.recording.error(self.clock.now_us(), "agent_restarted", message)
        else:
            self.progress.begun.append(order.number)
            self.progress.to_file(self._progress_file)
        self.duty.follow(order)
        end_us = order.starts_at_us + round(order.duration_s * 1e6)
        following = await self._or_stop(self.feed.order(order.number + 1), until_us=end_us)
        if following is not None:
            end_us = min(end_us, max(following.starts_at_us, self.clock.now_us()))
            await self._until(end_us)
        ended = self.clock.now_us() >= end_us
        load.cut(self.clock.now_us())
        await load.settle()
        # An agent that is ended from outside ships its part; it has not done the order.
        if ended:
            if order.check_replicas:
                await load.check_replicas()
            await self._finish(label, order)

    async def _finish(self, label: str, order: Order) -> None:
        """Ship all samples of a phase that is over, and say so."""
        if await self.shipper.finish(label, give_up=self._stop.is_set):
            self.progress.done.append(
                PhaseDone(phase=label, order=order.number, parts=self.spool.numbers(label))
            )
            self.progress.to_file(self._progress_file)
            await self.heartbeat.beat()

    async def _or_stop(self, wanted: Awaitable[Any], *, until_us: int | None = None) -> Any:
        """Wait for something, until an instant; None if it did not come or we must stop."""
        waits = [asyncio.ensure_future(wanted), asyncio.create_task(self._stop.wait())]
        if until_us is not None:
            waits.append(asyncio.create_task(self.clock.sleep_until(until_us)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[0].result() if waits[0].done() and not self._stop.is_set() else None
        finally:
            for task in waits:
                task.cancel()

    async def _until(self, at_us: int) -> None:
        """Wait for an instant, or until we must stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, (at_us - self.clock.now_us()) / 1e6)):
                await self._stop.wait()

    def _patience_s(self) -> float:
        end_of_life = self._born + self.config.lives_at_most_s
        return min(self._ship_until, end_of_life) - time.monotonic()

    async def _watch_life(self, ticking: Ticking) -> None:
        """End the load when nobody is there to end it, or nothing is left that makes it."""
        while True:
            await asyncio.sleep(TICK_S)
            if ticking.silent_s > LIFELESS_AFTER_S and self._failure is None:
                self._failure = BrowserError(
                    f"No page of this worker has answered for {ticking.silent_s:.0f} s.",
                    hint="Its Chromium or Playwright's driver may have been killed: see its log.",
                )
                self.stop(str(self._failure))
            if self.feed.lease.is_over:
                self.stop("the orchestrator's lease is over", abandoned=True)
            elif self.feed.silent_s > self.config.store_grace_s:
                silent_s = self.feed.silent_s
                self.stop(f"the store has not answered for {silent_s:.0f} s", abandoned=True)
            elif time.monotonic() - self._born > self.config.lives_at_most_s:
                self.stop("this agent's time limit is reached", abandoned=True)

    async def _leave_on_notice(self) -> None:
        """End the load in order when this machine is about to be taken away."""
        notice = await next_notice(self.config.metadata_url, every_s=self.config.notice_poll_s)
        now_us = self.clock.now_us()
        self.status.leaving = Leaving(
            reason=notice.reason, noticed_us=now_us, deadline_us=notice.at_us
        )
        self.recording.error(now_us, "machine_taken", notice.reason)
        left_s = (notice.at_us - now_us) / 1e6 - SPARE_S
        self._ship_until = min(self._ship_until, time.monotonic() + left_s)
        # Whoever can take the connections over should know before they are closed.
        await self.heartbeat.beat()
        self.stop(notice.reason)

    def _relay_row(self, row: dict[str, Any]) -> None:
        if self.recording.phase:
            self.recording.row("relay", **row)

    async def _status_of(self, worker: str) -> Status | None:
        key = self.layout.status(self.config.attempt, worker)
        return await asyncio.to_thread(self.store.get_message, key, Status)

    def _fill(self, status: Status) -> None:
        """Bring the status up to date for a beat."""
        status.at_us = self.clock.now_us()
        status.counts = self.recording.counts
        status.vitals = self.watch.vitals
        status.errors = dict(self.recording.errors.most_common(20))
        status.acknowledgement = self.recording.acknowledgement
        status.delivery = self.recording.delivery
        status.lateness = self.recording.lateness
        status.parts = {phase: self.spool.numbers(phase) for phase in self.spool.phases()}
        status.done = self.progress.done
        status.unshipped = self.spool.unshipped()
        if status.state == "running":
            status.message = self.spool.trouble
