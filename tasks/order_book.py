"""The orders of one attempt: what was issued for each phase, what was cut, where things stand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from run_store.errors import DeadlineError
from run_store.messages import LostWorker, Order, PhaseRecord, Status
from run_store.schedule import plan_of
from tasks.phase_record import Course, record_of
from tasks.plan import Progress, stop_order
from tasks.run_context import RunContext


class OrderBook:
    """Writes orders to the bucket, each once. `progress` is where the next one begins."""

    def __init__(self, context: RunContext) -> None:
        self.progress = Progress.of_attempt(context.attempt)
        self._context = context
        self._store = context.store()
        self._plan = plan_of(context.scenario)
        self._issued: dict[int, list[Order]] = {}
        self._before: dict[int, Progress] = {}
        self._cuts: dict[int, tuple[int, str]] = {}

    def of_phase(self, index: int) -> list[Order]:
        """Return the orders of a phase, by its place in the scenario."""
        return self._issued.get(index, [])

    def planned_s(self, index: int) -> float:
        """Return how long a phase of the scenario lasts, in seconds."""
        return self._context.scenario.phases[index].duration_s

    async def issue(self, order: Order, *, as_phase: bool = True) -> Order:
        """Write an order; return the one in force, which an earlier try may have written."""
        key = self._context.layout.order(order.attempt, order.number)
        # A try before this one may have reached the bucket though its answer did not reach us.
        there = await asyncio.to_thread(self._store.get_message, key, Order)
        if there is None:
            await asyncio.to_thread(self._store.put_message, key, order)
        order = there or order
        if order.phase is not None and as_phase:
            self._issued.setdefault(order.phase.index, []).append(order)
        self._before[order.number] = self.progress
        self.progress = await asyncio.to_thread(self.progress.after, order, self._plan)
        return order

    async def next_written(self) -> Order | None:
        """Return the next order if an earlier try has written it, though no answer reached us."""
        key = self._context.layout.order(self._context.attempt, self.progress.next_order)
        return await asyncio.to_thread(self._store.get_message, key, Order)

    async def stop(self, at_us: int, reason: str) -> None:
        """Write the order that ends all, behind any that was written though no answer told so."""
        order = stop_order(self.progress, starts_at_us=at_us, reason=reason)
        while True:
            key = self._context.layout.order(order.attempt, order.number)
            there = await asyncio.to_thread(self._store.get_message, key, Order)
            if there is None or there.action == "stop":
                break
            order = order.model_copy(update={"number": order.number + 1})
        await asyncio.to_thread(self._store.put_message, key, order)

    def part_done(self, order: Order, at_us: int) -> None:
        """Take an order to end at an instant before its own: progress is as it is by then."""
        done_s = (at_us - order.starts_at_us) / 1e6
        self.progress = self._before[order.number].after_part(order, self._plan, done_s)

    def cut(self, order: Order, at_us: int, why: str = "") -> None:
        """Note that an order ended early, and why; without a reason another one goes on with it."""
        self._cuts[order.number] = (at_us, why)

    def is_cut(self, order: Order) -> bool:
        """Say whether an order ended early."""
        return order.number in self._cuts

    def ends_us(self, order: Order) -> int:
        """Return when an order ends, by its plan or because it was cut."""
        planned_us = order.starts_at_us + round(order.duration_s * 1e6)
        cut_us, _ = self._cuts.get(order.number, (planned_us, ""))
        return min(planned_us, cut_us)

    def record(
        self,
        index: int,
        *,
        halt: str,
        stopped: str = "",
        statuses: Mapping[str, Status],
        lost: Mapping[str, LostWorker],
    ) -> PhaseRecord:
        """Return the record of a phase whose orders are done; `halt` says why steps ended.

        `stopped` says why the load ended before its time, where no order was cut for it.
        """
        orders = self._issued[index]
        phase = orders[0].phase
        if phase is None:
            raise DeadlineError("An order without a phase cannot be recorded.")
        courses = [
            Course(order, self.ends_us(order), self._before[order.number]) for order in orders
        ]
        planned_s = sum(course.within_s for course in courses[:-1]) + orders[-1].duration_s
        return record_of(
            phase,
            courses,
            plan=self._plan,
            planned_s=self.planned_s(index) if halt else planned_s,
            statuses=statuses,
            lost=lost,
            stopped_early=self._cuts.get(orders[-1].number, (0, ""))[1] or stopped,
            ended_because=halt,
        )
