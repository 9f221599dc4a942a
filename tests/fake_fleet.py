"""A fleet whose agents speak the bucket's protocol and make no load: for tests of conducting."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from run_store.errors import StoreError
from run_store.layout import phase_label
from run_store.messages import Order, PhaseDone, Status, Vitals
from tasks.fleets.base import Worker
from tasks.run_context import RunContext

POLL_S = 0.05


class FakeAgent:
    """One worker. `silent` keeps it from beating; `refuses` makes it fail at its start."""

    def __init__(self, context: RunContext, name: str) -> None:
        self.name = name
        self.silent = False
        self.orders: list[Order] = []
        self.has_order = asyncio.Event()
        self.beats_since_order = 0
        self._is_over = asyncio.Event()
        self._context = context
        self._store = context.store()
        self._status = Status(worker=name, attempt=context.attempt, beat=0, at_us=0, state="ready")

    async def run(self, refuses: str = "") -> None:
        """Follow orders until one says stop."""
        if refuses:
            self._status.state, self._status.message = "failed", refuses
            await self._beat()
            return
        beating = asyncio.create_task(self._keep_beating())
        try:
            order = await self._order(1)
            while order is not None and order.action == "run" and order.phase is not None:
                order = await self._carry_out(order)
        finally:
            # A beat that is on its way to the store must not come there behind the last word.
            self._is_over.set()
            await beating
        self._status.state = "stopped"
        await self._surely(self._beat)

    async def _carry_out(self, order: Order) -> Order | None:
        assert order.phase is not None
        label = phase_label(order.phase.index, order.phase.name)
        self._status.state, self._status.order, self._status.phase = "running", order.number, label
        self._status.vitals = Vitals(connections_open=int(order.connections.end))
        self.orders.append(order)
        self.beats_since_order = 0
        self.has_order.set()
        ends_us = order.starts_at_us + round(order.duration_s * 1e6)
        following = await self._order(order.number + 1, until_us=ends_us)
        if following is not None:
            await asyncio.sleep(max(0.0, following.starts_at_us / 1e6 - time.time()))
        self._status.done.append(PhaseDone(phase=label, order=order.number, parts={"edits": 1}))
        await self._surely(self._beat)
        return following or await self._order(order.number + 1)

    async def _order(self, number: int, *, until_us: int | None = None) -> Order | None:
        key = self._context.layout.order(self._context.attempt, number)
        while until_us is None or time.time() * 1e6 < until_us:
            with contextlib.suppress(StoreError):
                order = await asyncio.to_thread(self._store.get_message, key, Order)
                if order is not None:
                    return order
            await asyncio.sleep(POLL_S)
        return None

    async def _keep_beating(self) -> None:
        while not self._is_over.is_set():
            if not self.silent:
                with contextlib.suppress(StoreError):
                    await self._beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._is_over.wait()

    async def _beat(self) -> None:
        self._status.beat += 1
        self.beats_since_order += 1
        self._status.at_us = time.time_ns() // 1000
        key = self._context.layout.status(self._context.attempt, self.name)
        await asyncio.to_thread(self._store.put_message, key, self._status)

    async def _surely(self, write: Callable[[], Awaitable[None]]) -> None:
        while not self.silent:
            with contextlib.suppress(StoreError):
                await write()
                return
            await asyncio.sleep(POLL_S)
        await asyncio.Event().wait()


class FakeFleet:
    """Workers that are tasks of the test."""

    def __init__(self, refuses: dict[str, str] | None = None) -> None:
        self.agents: dict[str, FakeAgent] = {}
        self.asked: list[str] = []
        self.has_spares = True
        self.may_give = asyncio.Event()
        self.may_give.set()
        self._refuses = refuses or {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._killed: set[str] = set()

    async def acquire(self, context: RunContext) -> list[Worker]:
        """Give the scenario's workers."""
        return [Worker(name=name, where="here") for name in context.workers]

    async def deploy(self, context: RunContext, worker: Worker) -> None:
        """Start an agent."""
        agent = self.agents[worker.name] = FakeAgent(context, worker.name)
        refuses = self._refuses.get(worker.name, "")
        self._tasks[worker.name] = asyncio.create_task(agent.run(refuses))

    async def substitute(self, context: RunContext, name: str, lost: Worker) -> Worker | None:  # noqa: ARG002
        """Give another task, unless the test has none to give."""
        self.asked.append(name)
        await self.may_give.wait()
        return Worker(name=name, where="here") if self.has_spares else None

    async def is_alive(self, context: RunContext, worker: Worker) -> bool:  # noqa: ARG002
        """Say whether the agent's task still runs."""
        return worker.name not in self._killed and not self._tasks[worker.name].done()

    async def release(self, context: RunContext) -> list[str]:  # noqa: ARG002
        """End every agent."""
        for name in self._tasks:
            self.kill(name)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        return []

    def kill(self, name: str) -> None:
        """End an agent without a last word."""
        self._killed.add(name)
        self._tasks[name].cancel()
