"""Conducting the load: orders to the workers, heartbeats back, until every phase is complete."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from run_store.errors import DeadlineError, FleetError, StoreError
from run_store.layout import phase_label
from run_store.messages import Order, PhaseRecord
from run_store.schedule import connections_planned, plan_of, planned_edits
from tasks.fleets.base import Fleet, Worker
from tasks.observation import Snapshot, current_observer, snapshot_of
from tasks.plan import (
    Progress,
    connections_before,
    plan_order,
    reconnect_order,
    slots_of,
    stop_order,
    wind_down_order,
)
from tasks.roll_call import RollCall, now_us
from tasks.run_context import RunContext

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LOOK_AT_END_EVERY_S = 0.25
"""Between two phases nothing is measured, so that time is kept short."""
BEGINS_AFTER_S = 2.0
"""How far ahead an order's instant lies, so that every worker has read it by then."""
READY_WITHIN_S = 180.0
FINISH_WITHIN_S = 90.0
"""What a phase's workers may need behind its end, to settle, compare and ship."""
STORE_AWAY_AT_MOST_S = 900.0
"""How much longer they are waited for while the store does not answer."""
STOP_WITHIN_S = 60.0


class Conductor:
    """One attempt's load. Statuses are read by one look at a time; orders are written once."""

    def __init__(self, context: RunContext, fleet: Fleet, workers: Sequence[Worker]) -> None:
        self.context = context
        self.roll = RollCall(context, fleet, workers)
        self.ending = ""
        self.progress = Progress.of_attempt(context.attempt)
        self._plan = plan_of(context.scenario)
        self._store = context.store()
        self._issued: dict[int, Order] = {}
        self._before: dict[int, Progress] = {}
        self._cuts: dict[int, tuple[int, str]] = {}
        self._snapshot: Snapshot | None = None

    def end(self, reason: str) -> None:
        """Have the load end in order: the phase is cut, the cool-down shortened."""
        self.ending = self.ending or reason

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
            progress=self.progress,
            slots=self._slots(),
            starts_at_us=self._soon_us(),
            polls_relay=self.context.has_metrics,
        )
        await self._until_done(await self._issue(order, as_phase=False))

    def is_due(self, index: int) -> bool:
        """Say whether a phase is to be carried out: all are, until the load is ending."""
        return not self.ending or index in self._issued

    @property
    def share_done(self) -> float:
        """How much of the phase in force is over, from 0 to 1."""
        snapshot = self._snapshot
        return snapshot.elapsed_s / snapshot.duration_s if snapshot else 0.0

    async def run_phase(self, index: int) -> PhaseRecord:
        """Carry out one phase of the scenario and mark it complete in the bucket.

        May be called again after a StoreError: an order that is written stays in force. Raises
        FleetError when every worker is lost.
        """
        order = self._issued.get(index)
        if order is None:
            order = plan_order(
                self.context.scenario,
                index,
                progress=self.progress,
                slots=self._slots(),
                starts_at_us=self._soon_us(),
                polls_relay=self.context.has_metrics,
            )
            order = await self._issue(order)
        label = self._label(order)
        self.roll.phase, self.roll.order = label, order
        current_observer().phase_began(order, label)
        await self._until_done(order)
        record = self._record(order, label)
        await asyncio.to_thread(self._store.put_message, self.context.layout.phase(label), record)
        current_observer().phase_ended(record)
        if not self.roll.alive:
            raise FleetError(
                f"Every worker was lost by the end of {label}.",
                hint="The report says when and how.",
            )
        return record

    async def finish(self, reason: str) -> None:
        """Order the stop, and wait until every worker has shipped its last samples.

        Every phase is complete by then: what hinders this is left to the teardown.
        """
        try:
            await self._order_stop(now_us(), reason)
        except StoreError as error:
            log.warning("the stop could not be ordered: %s", error)
            return
        deadline = time.monotonic() + STOP_WITHIN_S
        while time.monotonic() < deadline:
            await self._look()
            if all(self.roll.state(name) in ("stopped", "failed") for name in self.roll.alive):
                return
            await asyncio.sleep(LOOK_EVERY_S / 4)
        log.warning("not every worker said that it stopped within %g s", STOP_WITHIN_S)

    async def _issue(self, order: Order, *, as_phase: bool = True) -> Order:
        key = self.context.layout.order(order.attempt, order.number)
        # A try before this one may have reached the bucket though its answer did not reach us.
        there = await asyncio.to_thread(self._store.get_message, key, Order)
        if there is None:
            await asyncio.to_thread(self._store.put_message, key, order)
        order = there or order
        if order.phase is not None and as_phase:
            self._issued[order.phase.index] = order
        self._before[order.number] = self.progress
        self.progress = await asyncio.to_thread(self.progress.after, order, self._plan)
        return order

    async def _until_done(self, order: Order) -> None:
        """Wait until every live worker has done an order, or none is left."""
        late_s = blind_s = 0.0
        while True:
            await self._look(order)
            over = now_us() >= self._ends_us(order)
            if not self.roll.alive and not over:
                self._cuts[order.number] = (now_us(), "every worker was lost")
            elif self.ending and not self._cuts and not over:
                await self._cut(order)
                continue
            waiting = [
                name for name in self.roll.alive if not self.roll.has_done(name, order.number)
            ]
            if not waiting:
                return
            pause_s = LOOK_AT_END_EVERY_S if over else LOOK_EVERY_S
            if over and self.roll.is_blind:
                blind_s += pause_s
            elif over:
                late_s += pause_s
            if late_s > FINISH_WITHIN_S or blind_s > STORE_AWAY_AT_MOST_S:
                for name in waiting:
                    self.roll.lose(name, f"did not finish within {late_s:.0f} s of the phase's end")
                return
            await asyncio.sleep(pause_s)

    async def _cut(self, order: Order) -> None:
        """End an order before its time: a short cool-down or the stop takes its place."""
        if order.phase is None:
            return
        current_observer().warn(f"{self.ending}: the load ends in order")
        cut_at_us = max(self._soon_us(), order.starts_at_us)
        done_s = (cut_at_us - order.starts_at_us) / 1e6
        self.progress = self._before[order.number].after_part(order, self._plan, done_s)
        following = wind_down_order(
            self.context.scenario,
            order.phase.index,
            progress=self.progress,
            slots=self._slots(),
            starts_at_us=cut_at_us,
            polls_relay=self.context.has_metrics,
        )
        if following is None:
            await self._order_stop(cut_at_us, self.ending)
        else:
            await self._issue(following)
        self._cuts[order.number] = (cut_at_us, self.ending)

    async def _order_stop(self, at_us: int, reason: str) -> None:
        order = stop_order(self.progress, starts_at_us=at_us, reason=reason)
        key = self.context.layout.order(order.attempt, order.number)
        await asyncio.to_thread(self._store.put_message, key, order)
        self.roll.stop_is_ordered = True

    def _ends_us(self, order: Order) -> int:
        planned_us = order.starts_at_us + round(order.duration_s * 1e6)
        cut_us, _ = self._cuts.get(order.number, (planned_us, ""))
        return min(planned_us, cut_us)

    def _soon_us(self) -> int:
        return now_us() + round(BEGINS_AFTER_S * 1e6)

    async def _look(self, order: Order | None = None) -> None:
        await self.roll.look()
        if self.roll.stop_asked:
            self.end(self.roll.stop_asked)
        if order is not None:
            self._show(order)

    def _show(self, order: Order) -> None:
        elapsed_s = (now_us() - order.starts_at_us) / 1e6
        share = elapsed_s / order.duration_s if order.duration_s else 1.0
        self._snapshot = snapshot_of(
            self.roll.statuses,
            label=self._label(order),
            elapsed_s=min(max(elapsed_s, 0.0), order.duration_s),
            duration_s=order.duration_s,
            alive=len(self.roll.alive),
            workers=len(self.roll.names),
            connections_target=connections_planned(order.connections, share),
            before=self._snapshot,
        )
        current_observer().saw(self._snapshot)

    def _record(self, order: Order, label: str) -> PhaseRecord:
        if order.phase is None:
            raise DeadlineError("An order without a phase cannot be recorded.")
        ended_us = self._ends_us(order)
        edits = planned_edits(order, self._plan)
        within_s = (ended_us - order.starts_at_us) / 1e6
        made = self._before[order.number].after_part(order, self._plan, within_s)
        parts = {
            name: done.parts
            for name, status in self.roll.statuses.items()
            for done in status.done
            if done.order == order.number
        }
        for name in self.roll.lost:
            status = self.roll.statuses.get(name)
            if status is not None and name not in parts:
                parts[name] = status.parts.get(label, {})
        return PhaseRecord(
            phase=order.phase,
            label=label,
            attempt=order.attempt,
            order=order.number,
            started_us=order.starts_at_us,
            ended_us=ended_us,
            planned_s=order.duration_s,
            connections=order.connections,
            edits_per_s=order.edits_per_s,
            edits_planned=sum(edit.at_s <= within_s for edit in edits),
            first_edit=order.first_edit,
            document_edits_after=made.document_edits,
            slots=order.slots,
            parts=parts,
            lost=list(self.roll.lost.values()),
            stopped_early=self._cuts.get(order.number, (0, ""))[1],
        )

    def _slots(self) -> list[str]:
        """Return a slot for each worker; a lost worker's is empty."""
        spread = self.context.scenario.fleet.spread_lost_connections
        return slots_of(self.roll.names, self.roll.lost, spread=spread)

    def _label(self, order: Order) -> str:
        if order.phase is None:
            raise DeadlineError("An order without a phase cannot be shown.")
        return phase_label(order.phase.index, order.phase.name)
