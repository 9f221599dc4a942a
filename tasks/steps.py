"""Carrying out a stress phase: one order a step, each judged and kept in the bucket."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from run_store.messages import Order
from run_store.steps import Step
from scenarios.model import Phase, Scenario
from tasks.instants import soon_us
from tasks.observation import current_observer
from tasks.order_book import OrderBook
from tasks.plan import step_order
from tasks.roll_call import RollCall
from tasks.run_context import RunContext
from tasks.step_verdict import Held, judge_step
from tasks.stress import (
    Halt,
    Level,
    course_of,
    next_level,
    no_time_left,
    stop_objectives,
)
from tasks.watch import LoadWatch

Chooser = Callable[[Scenario, Phase, Sequence[Step]], Level | Halt]
"""Says which level comes next after these steps, or why none does."""
STILL_S = 2.0
"""How long the connections are held of a phase in which nothing is left to try."""
WATCHED_BEHIND_S = 180.0
"""Readings of a step are kept so much longer than it lasts: its last edits are waited for."""


class Conducts(Protocol):
    """What carries out the orders."""

    context: RunContext
    roll: RollCall
    book: OrderBook
    watch: LoadWatch

    @property
    def why_ending(self) -> str:
        """Why the load is ending; empty while it goes on."""

    def slots(self) -> list[str]:
        """Return who holds which slot of the next order."""

    async def take_in(self, label: str) -> None:
        """Have substitutes that stand ready join with the next order."""

    async def until_done(self, order: Order) -> bool:
        """Wait until it is done; False if it was cut short."""


class Steps:
    """The steps of one stress phase. `done` are those that were judged, of earlier attempts too."""

    def __init__(
        self, conductor: Conducts, index: int, label: str, chooses: Chooser = next_level
    ) -> None:
        self.done: list[Step] = []
        self.orders: list[Order] = []
        self._conductor = conductor
        self._context = conductor.context
        self._index = index
        self._label = label
        self._chooses = chooses
        self._phase = conductor.context.scenario.phases[index]
        self._in_force: tuple[Level, Order] | None = None
        self._read = False
        self._rested_after = 0
        self._lost_before: set[str] = set()
        self._restarted_before: Counter[str] = Counter()

    async def run(self) -> Halt:
        """Carry out steps until there is no further one; return why.

        May be called again after a StoreError: a step whose order is written goes on.
        """
        if not self._read:
            kept = await asyncio.to_thread(kept_steps, self._context, self._label)
            self.done, self._read = kept, True
        while True:
            if self._in_force is None:
                halt = await self._begin()
                if halt is not None:
                    return await self._ended(halt)
            step = await self._carry_out()
            if step is None:
                return Halt(self._conductor.why_ending or "every worker was lost")
            current_observer().step(
                self._label, f"step {step.number}, {_level_of(step)}: {step.outcome}; {step.why}"
            )

    async def _ended(self, halt: Halt) -> Halt:
        """Return why there is no further step, once this attempt has an order in the phase.

        It has none if an earlier one died between its last step and the phase's record. Then the
        connections that were brought back are held for a moment, so that there is one to record.
        """
        open_now = self._conductor.book.progress.connections
        if self.done and not self.orders and not self._conductor.why_ending:
            order = await self._without_edits(Level(open_now, 0.0), STILL_S, halt.reason)
            await self._conductor.until_done(order)
        return halt

    async def _begin(self) -> Halt | None:
        """Order the next step, unless there is none."""
        conductor, scenario, phase = self._conductor, self._context.scenario, self._phase
        if conductor.why_ending:
            await self._end_unheard()
            return Halt(conductor.why_ending)
        # In a thread: who waits for a relay that died does not hold up the rest.
        level = await asyncio.to_thread(self._chooses, scenario, phase, list(self.done))
        if isinstance(level, Halt):
            return level
        await conductor.take_in(self._label)
        if not await self._rested(level):
            return Halt(conductor.why_ending or "every worker was lost")
        course = course_of(scenario, phase, level, connections=conductor.book.progress.connections)
        begins_us = soon_us()
        ends_us = begins_us + round(course.duration_s * 1e6)
        first_us = self.orders[0].starts_at_us if self.orders else begins_us
        too_late = self.orders and ends_us > first_us + round(phase.duration_s * 1e6)
        # One that was ordered in time goes on, though no answer told so.
        if too_late and await conductor.book.next_written() is None:
            return no_time_left(phase, course)
        order = step_order(
            scenario,
            self._index,
            level=level,
            course=course,
            progress=conductor.book.progress,
            slots=conductor.slots(),
            starts_at_us=begins_us,
            polls_relay=self._context.has_metrics,
        )
        order = await self._issue(order)
        self._in_force = (level, order)
        self._lost_before = set(conductor.roll.lost)
        self._restarted_before = conductor.roll.restarted.copy()
        conductor.watch.phase_begins(
            phase.name, judges=False, lasts_s=order.duration_s + WATCHED_BEHIND_S
        )
        current_observer().phase_began(order, self._label)
        return None

    async def _issue(self, order: Order) -> Order:
        """Write an order of this phase; return the one in force."""
        order = await self._conductor.book.issue(order)
        self.orders.append(order)
        self._conductor.roll.phase, self._conductor.roll.order = self._label, order
        return order

    async def _end_unheard(self) -> None:
        """Have a step come to its end that was ordered though no answer told so."""
        conductor = self._conductor
        there = await conductor.book.next_written()
        if there is None or there.phase is None or there.phase.index != self._index:
            return
        await conductor.until_done(await self._issue(there))

    async def _rested(self, level: Level) -> bool:
        """Let the relay work off what an overload left behind; False if that was cut short.

        A step at up to twice what the relay serves leaves at most its own length of work: so
        long nothing is edited, at the connections of the next step. Else that one would be
        judged by the backlog of the one before.
        """
        last = self.done[-1] if self.done else None
        if last is None or self._rested_after == last.number:
            return True
        if last.outcome not in ("bad", "generator_saturated") or last.relay != "ok":
            return True
        seconds = (last.ended_us - last.started_us) / 1e6
        order = await self._without_edits(level, seconds, "no edits, until the relay has caught up")
        self._rested_after = last.number
        return await self._conductor.until_done(order)

    async def _without_edits(self, level: Level, seconds: float, why: str) -> Order:
        """Order a level's connections to be held for so long; return the order."""
        conductor, scenario = self._conductor, self._context.scenario
        open_now = conductor.book.progress.connections
        course = course_of(scenario, scenario.phases[self._index], level, connections=open_now)
        order = step_order(
            scenario,
            self._index,
            level=Level(level.connections, 0.0),
            course=replace(course, settle_s=0.0, hold_s=seconds),
            progress=conductor.book.progress,
            slots=conductor.slots(),
            starts_at_us=soon_us(),
            polls_relay=self._context.has_metrics,
        )
        order = await self._issue(order)
        current_observer().step(self._label, why)
        return order

    async def _carry_out(self) -> Step | None:
        """Wait until the step in force is done, judge and keep it; None if it was cut short."""
        if self._in_force is None:
            return None
        level, order = self._in_force
        conductor, scenario, phase = self._conductor, self._context.scenario, self._phase
        whole = await conductor.until_done(order)
        if not whole:
            self._in_force = None
            return None
        ended_us = conductor.book.ends_us(order)
        course = course_of(scenario, phase, level, connections=int(order.connections.start))
        judged_from_us = order.starts_at_us + round((course.ramp_s + course.settle_s) * 1e6)
        step = judge_step(
            Held(
                number=max((step.number for step in self.done), default=0) + 1,
                attempt=self._context.attempt,
                order=order.number,
                phase=self._label,
                level=level,
                started_us=order.starts_at_us,
                judged_from_us=judged_from_us,
                ended_us=ended_us,
                readings=[
                    reading
                    for reading in conductor.watch.readings
                    if reading.at_us >= order.starts_at_us
                ],
                lost=sorted(set(conductor.roll.lost) - self._lost_before),
                restarted=sorted(conductor.roll.restarted - self._restarted_before),
            ),
            stop_objectives(scenario, phase, has_metrics=self._context.has_metrics),
        )
        key = self._context.layout.step(self._label, step.number)
        await asyncio.to_thread(self._context.store().put_message, key, step)
        self.done.append(step)
        self._in_force = None
        return step


def kept_steps(context: RunContext, label: str) -> list[Step]:
    """Return the steps of a phase that are in the bucket, of all attempts, in their order."""
    store = context.store()
    found = (store.get_message(key, Step) for key in store.keys(context.layout.steps(label)))
    return sorted((step for step in found if step is not None), key=lambda step: step.number)


def _level_of(step: Step) -> Level:
    return Level(step.connections, step.edits_per_second)
