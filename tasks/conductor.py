"""Conducting the load: orders to the workers, heartbeats back, until every phase is complete."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from run_store.errors import DeadlineError, FleetError, InterruptedRunError, StoreError
from run_store.layout import phase_label
from run_store.messages import Order, PhaseRecord
from run_store.schedule import connections_planned
from tasks.beats import PROMPT_S
from tasks.cuts import Cuts
from tasks.deadlines import load_lasts_at_most_s
from tasks.fleets.base import Fleet, Worker
from tasks.instants import now_us, soon_us
from tasks.observation import current_observer
from tasks.order_book import OrderBook
from tasks.plan import (
    connections_before,
    plan_order,
    reconnect_order,
    slots_of,
)
from tasks.readings import reading_of
from tasks.roll_call import RollCall
from tasks.run_context import RunContext
from tasks.snapshots import Snapshots
from tasks.steps import Chooser, Steps, kept_steps
from tasks.stress import held_by, next_level
from tasks.substitution import READY_WITHIN_S, Substitutes
from tasks.watch import LoadWatch

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LOOK_AT_END_EVERY_S = 0.25
"""Between two phases nothing is measured, so that time is kept short."""
FINISH_WITHIN_S = 90.0
"""What a phase's workers may need behind its end, to settle, compare and ship."""
STORE_AWAY_AT_MOST_S = 900.0
"""How much longer they are waited for while the store does not answer."""
STOP_WITHIN_S = 60.0


class Conductor:
    """One attempt's load. Statuses are read by one look at a time; orders are written once.

    `ending` says who or what wants the load's end before its time, `missed` which stop objective
    has ended it. `chooses` says which level of load comes next in a stress phase.
    """

    def __init__(
        self,
        context: RunContext,
        fleet: Fleet,
        workers: Sequence[Worker],
        *,
        chooses: Chooser = next_level,
    ) -> None:
        scenario = context.scenario
        self.context = context
        self.roll = RollCall(context, fleet, workers)
        self.substitutes = Substitutes(context, fleet, workers)
        self.ending = ""
        self.missed = ""
        self._ended_by = ""
        self.book = OrderBook(context)
        self.watch = LoadWatch(scenario, has_metrics=context.has_metrics)
        self.snapshots = Snapshots()
        self._deadline = time.monotonic() + load_lasts_at_most_s(scenario)
        self._chooses = chooses
        self._steps: dict[int, Steps] = {}
        self._cuts = Cuts(context, self.roll, self.book, self.slots)

    def end(self, reason: str) -> None:
        """Have the load end in order: the phase is cut, the cool-down shortened."""
        self.ending = self.ending or reason

    @property
    def why_ending(self) -> str:
        """Why the load ends before its time; empty while it goes on."""
        return self.ending or self.missed

    def drop(self, worker: str, reason: str) -> None:
        """Take a worker out of the load, for good."""
        self.roll.lose(worker, reason)

    def require_enough(self) -> None:
        """Raise FleetError unless the scenario's `min_healthy` of the workers are left."""
        left, all_of = len(self.roll.alive), len(self.roll.names)
        if left < all_of * self.context.scenario.fleet.min_healthy:
            reasons = "; ".join(f"{lost.worker} {lost.reason}" for lost in self.roll.lost.values())
            raise FleetError(
                f"Only {left} of {all_of} workers became ready: {reasons}.",
                hint=f"Their logs are under {self.context.folder}.",
            )

    async def wait_until_ready(self) -> None:
        """Wait until every agent holds its browsers ready; FleetError if too few become so."""
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            await self._look()
            waiting = [n for n in self.roll.alive if self.roll.state(n) not in ("ready", "running")]
            if not waiting:
                break
            if time.monotonic() > deadline:
                for name in waiting:
                    self.drop(name, f"was not ready within {READY_WITHIN_S:g} s")
                break
            await asyncio.sleep(LOOK_EVERY_S / 2)
        self.require_enough()

    async def reconnect(self, index: int) -> None:
        """Bring a retried run's connections back to where phase `index` goes on from."""
        connections = connections_before(self.context.scenario, index)
        if not connections or self.ending:
            return
        order = reconnect_order(
            index,
            connections=connections,
            progress=self.book.progress,
            slots=self.slots(),
            starts_at_us=soon_us(),
            polls_relay=self.context.has_metrics,
        )
        await self.until_done(await self.book.issue(order, as_phase=False))

    def is_due(self, index: int) -> bool:
        """Say whether a phase is to be carried out: all are, until the load is ending."""
        return not self.why_ending or bool(self.book.of_phase(index))

    async def run_phase(self, index: int) -> PhaseRecord:
        """Carry out one phase of the scenario and mark it complete in the bucket.

        May be called again after a StoreError: an order that is written stays in force. Raises
        FleetError when every worker is lost, InterruptedRunError if the load's end is wanted
        before the phase has begun.
        """
        halt = ""
        if self.context.scenario.phases[index].has_steps:
            halt = await self._climb(index)
        else:
            await self._hold(index)
        record = self.book.record(
            index,
            halt=halt,
            # A load that ends between two steps has cut no order, and the phase is not done.
            stopped=halt if halt == self.why_ending else "",
            statuses=self.roll.statuses,
            lost=self.roll.lost,
        )
        key = self.context.layout.phase(record.label)
        await asyncio.to_thread(self.context.store().put_message, key, record)
        current_observer().phase_ended(record)
        if not self.roll.alive:
            raise FleetError(
                f"Every worker was lost by the end of {record.label}.",
                hint="The report says when and how.",
            )
        return record

    async def _hold(self, index: int) -> None:
        """Carry out a phase whose course is fixed beforehand."""
        label = phase_label(index, self.context.scenario.phases[index].name)
        orders = self.book.of_phase(index)
        if not orders:
            await self.take_in(label)
            order = plan_order(
                self.context.scenario,
                index,
                progress=self.book.progress,
                slots=self.slots(),
                starts_at_us=soon_us(),
                polls_relay=self.context.has_metrics,
                held=await self._held_before(index),
            )
            await self.book.issue(order)
            orders = self.book.of_phase(index)
        if len(orders) == 1:
            self._begins(orders[0], label)
        order = orders[0]
        while True:
            await self.until_done(order)
            if order is orders[-1]:
                return
            order = orders[orders.index(order) + 1]
            self.roll.order = order

    async def take_in(self, label: str) -> None:
        """Have the substitutes that stand ready hold the slots of those that they replace.

        Nobody is waited for: one that is not ready joins with the next phase or step. Where a
        slot's connections were spread, their heirs close them as the substitute opens them.
        """
        joined = self.substitutes.join()
        for lost, worker in joined.items():
            self.roll.replace(lost, worker, label)
        if joined:
            await self._look()  # what became of them since they stood ready

    async def _held_before(self, index: int) -> int | None:
        """Return what the last steps of load before a phase held; None if there were none."""
        phases = self.context.scenario.phases[:index]
        climbed = [at for at, phase in enumerate(phases) if phase.has_steps]
        if not climbed:
            return None
        label = phase_label(climbed[-1], phases[climbed[-1]].name)
        return held_by(await asyncio.to_thread(kept_steps, self.context, label))

    def _begins(self, order: Order, label: str) -> None:
        self.roll.phase, self.roll.order = label, order
        if order.phase is not None:
            self.watch.phase_begins(order.phase.name, judges=order.phase.kind != "cooldown")
        current_observer().phase_began(order, label)

    async def _climb(self, index: int) -> str:
        """Carry out a phase whose load goes up in steps; return why it ended."""
        phase = self.context.scenario.phases[index]
        label = phase_label(index, phase.name)
        steps = self._steps.setdefault(index, Steps(self, index, label, self._chooses))
        halt = await steps.run()
        if not self.book.of_phase(index):
            if self.why_ending:
                raise InterruptedRunError(f"{label} did not begin: {self.why_ending}.")
            raise DeadlineError(f"{label} could not begin: {halt.reason}.")
        current_observer().step(label, f"no further step: {halt.reason}")
        return halt.reason

    async def finish(self, reason: str) -> None:
        """Order the stop, and wait until every worker has shipped its last samples.

        Every phase is complete by then: what hinders this is left to the teardown.
        """
        try:
            await self._cuts.stop_at(now_us(), reason)
        except StoreError as error:
            log.warning("the stop could not be ordered: %s", error)
            return
        await self.substitutes.end()
        deadline = time.monotonic() + STOP_WITHIN_S
        while time.monotonic() < deadline:
            await self._look()
            if all(self.roll.state(name) in ("stopped", "failed") for name in self.roll.alive):
                return
            await asyncio.sleep(LOOK_EVERY_S / 4)
        log.warning("not every worker said that it stopped within %g s", STOP_WITHIN_S)

    async def until_done(self, order: Order) -> bool:
        """Wait until every live worker has done an order, or none is left; False if it was cut."""
        late_s = blind_s = 0.0
        looked_at = time.monotonic()
        while True:
            await self._look(order)
            looked_at, before = time.monotonic(), looked_at
            over = now_us() >= self.book.ends_us(order)
            if not self.roll.alive and not over:
                self.book.cut(order, now_us(), "every worker was lost")
            elif not over and not self.book.is_cut(order):
                if self.why_ending != self._ended_by:
                    await self._end_load(order)
                    continue
                await self._cuts.spread(order)
            waiting = [
                name for name in self.roll.alive if not self.roll.has_done(name, order.number)
            ]
            if not waiting:
                return not self.book.is_cut(order)
            pause_s = LOOK_AT_END_EVERY_S if over else LOOK_EVERY_S
            if over:
                # What a look took beyond a moment the store did not answer in: time that passed.
                passed_s = looked_at - before
                prompt_s = 0.0 if self.roll.is_blind else min(passed_s, pause_s + PROMPT_S)
                late_s, blind_s = late_s + prompt_s, blind_s + passed_s - prompt_s
            if late_s > FINISH_WITHIN_S or blind_s > STORE_AWAY_AT_MOST_S:
                waited_s = late_s + blind_s
                for name in waiting:
                    self.roll.lose(
                        name, f"did not finish within {waited_s:.0f} s of the phase's end"
                    )
                return not self.book.is_cut(order)
            await asyncio.sleep(pause_s)

    async def _end_load(self, order: Order) -> None:
        """Act on what wants the load's end: once, and once more where a user wants it sooner."""
        why = self.why_ending
        if await self._cuts.end_load(order, why, soon=bool(self.ending)):
            self._ended_by = why

    async def _look(self, order: Order | None = None) -> None:
        await self.roll.look()
        if self.roll.stop_asked:
            self.end(self.roll.stop_asked)
        if time.monotonic() > self._deadline:
            self.end("its deadline has passed")
        if order is not None:
            self._replace(order)
            self._take(order)
            self.snapshots.show(order, self.book, self.roll, workers=len(self.substitutes.holders))

    def _replace(self, order: Order) -> None:
        """Have another worker sought for each that is lost, while the load is to go on."""
        if order.phase is not None and not self.why_ending:
            for name in self.roll.lost:
                self.substitutes.want(self.roll.worker(name), order.phase.index)

    def _take(self, order: Order) -> None:
        """Read the fleet, and see whether a stop objective is missed by that."""
        if self.roll.is_blind:
            return
        at_us = now_us()
        reading = reading_of(
            self.roll.statuses,
            alive=self.roll.alive,
            at_us=at_us,
            target=connections_planned(order, (at_us - order.starts_at_us) / 1e6),
        )
        if at_us < order.starts_at_us:
            return
        self.watch.take(reading)
        if not self.why_ending and at_us < self.book.ends_us(order):
            judged = self.watch.missed(at_us)
            if judged is not None:
                self.missed = f"a stop objective was missed: {judged.sentence}"

    def slots(self) -> list[str]:
        """Return who has each slot; a lost worker's is empty until another has its place."""
        spread = self.context.scenario.fleet.spread_lost_connections
        return slots_of(self.substitutes.holders, self.roll.lost, spread=spread)
