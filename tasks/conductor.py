"""Conducting the load: orders to the workers, heartbeats back, until every phase is complete."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from run_store.errors import DeadlineError, FleetError, StoreError
from run_store.layout import phase_label
from run_store.messages import LostWorker, Order, PhaseRecord, Status
from run_store.schedule import connections_planned, plan_of, planned_edits
from tasks.fleets.base import Fleet, Worker
from tasks.observation import Snapshot, current_observer, snapshot_of
from tasks.plan import (
    Progress,
    connections_before,
    plan_order,
    reconnect_order,
    stop_order,
    wind_down_phase,
)
from tasks.run_context import RunContext

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
BEGINS_AFTER_S = 2.0
"""How far ahead an order's instant lies, so that every worker has read it by then."""
SILENT_AFTER_S = 10.0
"""A worker whose heartbeat has not risen for so long is lost."""
READY_WITHIN_S = 180.0
FINISH_WITHIN_S = 90.0
"""What a phase's workers may need behind its end, to settle, compare and ship."""
STOP_WITHIN_S = 60.0


def now_us() -> int:
    """Return the wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


class Conductor:
    """One attempt's load. Statuses are read by one look at a time; orders are written once."""

    def __init__(self, context: RunContext, fleet: Fleet, workers: Sequence[Worker]) -> None:
        self.context = context
        self.statuses: dict[str, Status] = {}
        self.lost: dict[str, LostWorker] = {}
        self.ending = ""
        self.progress = Progress.of_attempt(context.attempt)
        self._fleet = fleet
        self._workers = {worker.name: worker for worker in workers}
        self._plan = plan_of(context.scenario)
        self._store = context.store()
        self._issued: dict[int, Order] = {}
        self._beats: dict[str, tuple[int, float]] = {}
        self._snapshot: Snapshot | None = None
        self._phase = ""

    @property
    def alive(self) -> list[str]:
        """The workers that are not lost, in order."""
        return [name for name in self._workers if name not in self.lost]

    def end(self, reason: str) -> None:
        """Have the load end in order: the phase is cut, the cool-down shortened."""
        self.ending = self.ending or reason

    async def wait_until_ready(self) -> None:
        """Wait until every agent holds its browsers ready.

        Raises FleetError if fewer than the scenario's `min_healthy` become so.
        """
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            await self._look()
            waiting = [n for n in self.alive if self._state(n) not in ("ready", "running")]
            if not waiting:
                break
            await asyncio.sleep(LOOK_EVERY_S / 2)
        else:
            for name in waiting:
                self._lose(name, f"was not ready within {READY_WITHIN_S:g} s")
        share = len(self.alive) / len(self._workers)
        if share < self.context.scenario.fleet.min_healthy:
            reasons = "; ".join(f"{lost.worker} {lost.reason}" for lost in self.lost.values())
            raise FleetError(
                f"Only {len(self.alive)} of {len(self._workers)} workers became ready: {reasons}.",
                hint=f"Their logs are under {self.context.folder}.",
            )

    async def reconnect(self, index: int) -> None:
        """Bring a retried run's connections back to where phase `index` goes on from."""
        connections = connections_before(self.context.scenario, index)
        if not connections:
            return
        order = reconnect_order(
            index,
            connections=connections,
            progress=self.progress,
            slots=self._slots(),
            starts_at_us=now_us() + round(BEGINS_AFTER_S * 1e6),
        )
        await self._issue(order, index=-1)
        await self._until_done(order)

    async def run_phase(self, index: int) -> PhaseRecord:
        """Carry out one phase of the scenario and mark it complete in the bucket.

        Raises FleetError when every worker is lost.
        """
        order = self._issued.get(index) or await self._begin(index)
        label = self._label(order)
        self._phase = label
        current_observer().phase_began(order, label)
        cut_at_us = await self._until_done(order, cuttable=True)
        record = self._record(order, label, cut_at_us)
        await asyncio.to_thread(self._store.put_message, self.context.layout.phase(label), record)
        current_observer().phase_ended(record)
        if not self.alive:
            raise FleetError(
                f"Every worker was lost by the end of {label}.",
                hint="The report says when and how.",
            )
        return record

    async def finish(self, reason: str) -> None:
        """Order the stop, and wait until every worker has shipped its last samples."""
        order = stop_order(self.progress, starts_at_us=now_us(), reason=reason)
        key = self.context.layout.order(self.context.attempt, order.number)
        await asyncio.to_thread(self._store.put_message, key, order)
        deadline = time.monotonic() + STOP_WITHIN_S
        while time.monotonic() < deadline:
            await self._look()
            if all(self._state(name) in ("stopped", "failed") for name in self.alive):
                return
            await asyncio.sleep(LOOK_EVERY_S / 4)
        log.warning("not every worker said that it stopped within %g s", STOP_WITHIN_S)

    async def _begin(self, index: int, duration_s: float | None = None) -> Order:
        order = plan_order(
            self.context.scenario,
            index,
            progress=self.progress,
            slots=self._slots(),
            starts_at_us=now_us() + round(BEGINS_AFTER_S * 1e6),
            duration_s=duration_s,
        )
        await self._issue(order, index=index)
        return order

    async def _issue(self, order: Order, *, index: int) -> None:
        key = self.context.layout.order(order.attempt, order.number)
        await asyncio.to_thread(self._store.put_message, key, order)
        self._issued[index] = order
        self.progress = await asyncio.to_thread(self.progress.after, order, self._plan)

    async def _until_done(self, order: Order, *, cuttable: bool = False) -> int | None:
        """Wait until every live worker has done an order; return when it was cut, if it was."""
        cut_at_us: int | None = None
        ends_us = order.starts_at_us + round(order.duration_s * 1e6)
        deadline_us = ends_us + round(FINISH_WITHIN_S * 1e6)
        while True:
            await self._look(order)
            if self.ending and cuttable and cut_at_us is None and now_us() < ends_us:
                cut_at_us = await self._cut(order)
                deadline_us = cut_at_us + round(FINISH_WITHIN_S * 1e6)
            waiting = [name for name in self.alive if not self._has_done(name, order.number)]
            if not waiting:
                return cut_at_us
            if now_us() > deadline_us:
                for name in waiting:
                    self._lose(
                        name, f"did not finish the phase within {FINISH_WITHIN_S:g} s of its end"
                    )
                return cut_at_us
            await asyncio.sleep(LOOK_EVERY_S)

    async def _cut(self, order: Order) -> int:
        """End an order before its time: the next begins at once. Return when."""
        assert order.phase is not None  # noqa: S101 - only orders with a phase are cut
        current_observer().warn(f"{self.ending}: the load ends in order")
        following = wind_down_phase(self.context.scenario, order.phase.index)
        cut_at_us = now_us() + round(BEGINS_AFTER_S * 1e6)
        level = connections_planned(
            order.connections, (cut_at_us - order.starts_at_us) / 1e6 / order.duration_s
        )
        self.progress = Progress(
            attempt=self.progress.attempt,
            next_order=self.progress.next_order,
            connections=level,
            next_edit=self.progress.next_edit,
            document_edits=self.progress.document_edits,
        )
        if following is None:
            stop = stop_order(self.progress, starts_at_us=cut_at_us, reason=self.ending)
            key = self.context.layout.order(stop.attempt, stop.number)
            await asyncio.to_thread(self._store.put_message, key, stop)
            return cut_at_us
        index, duration_s = following
        cooldown = plan_order(
            self.context.scenario,
            index,
            progress=self.progress,
            slots=self._slots(),
            starts_at_us=cut_at_us,
            duration_s=duration_s,
        )
        # The connections stay as they are: nothing is opened for a cool-down that was not there.
        cooldown = cooldown.model_copy(
            update={"connections": cooldown.connections.model_copy(update={"end": float(level)})}
        )
        await self._issue(cooldown, index=index)
        return cut_at_us

    async def _look(self, order: Order | None = None) -> None:
        """Read every worker's heartbeat, and whether somebody asked for the end."""
        layout, attempt = self.context.layout, self.context.attempt
        names = list(self._workers)
        answers = await asyncio.gather(
            *(
                asyncio.to_thread(self._store.get_message, layout.status(attempt, name), Status)
                for name in names
            ),
            asyncio.to_thread(self._store.get, layout.stop),
            return_exceptions=True,
        )
        *statuses, stop = answers
        if isinstance(stop, bytes):
            self.end("asked to stop")
        for name, status in zip(names, statuses, strict=True):
            if isinstance(status, StoreError):
                log.warning("the heartbeat of %s could not be read: %s", name, status)
                # Nothing is known of it, so its silence does not count.
                if name in self._beats:
                    self._beats[name] = (self._beats[name][0], time.monotonic())
            elif isinstance(status, BaseException):
                raise status
            else:
                await self._heard(name, status if isinstance(status, Status) else None)
        if order is not None:
            self._show(order)

    async def _heard(self, name: str, status: Status | None) -> None:
        if name in self.lost:
            return
        now = time.monotonic()
        if status is not None:
            self.statuses[name] = status
            beat, _ = self._beats.get(name, (-1, now))
            if status.beat != beat:
                self._beats[name] = (status.beat, now)
            if status.state == "failed":
                self._lose(name, f"failed: {status.message}")
                return
            if status.state == "stopped":
                return
        gone = not await self._fleet.is_alive(self.context, self._workers[name])
        silent_s = now - self._beats.get(name, (0, now))[1]
        if gone:
            self._lose(name, "is gone: its agent ended without saying why")
        elif status is not None and silent_s > SILENT_AFTER_S:
            self._lose(name, f"has not been heard for {silent_s:.0f} s")

    def _lose(self, name: str, reason: str) -> None:
        status = self.statuses.get(name)
        self.lost[name] = LostWorker(
            worker=name,
            phase=self._phase,
            last_seen_us=status.at_us if status else 0,
            noticed_us=now_us(),
            connections=status.vitals.connections_open if status else 0,
            reason=reason,
        )
        log.warning("%s %s", name, reason)
        current_observer().warn(
            f"{name} {reason}; {self.lost[name].connections} connections were on it"
        )

    def _show(self, order: Order) -> None:
        elapsed_s = (now_us() - order.starts_at_us) / 1e6
        share = elapsed_s / order.duration_s if order.duration_s else 1.0
        self._snapshot = snapshot_of(
            self.statuses,
            label=self._label(order),
            elapsed_s=min(max(elapsed_s, 0.0), order.duration_s),
            duration_s=order.duration_s,
            alive=len(self.alive),
            workers=len(self._workers),
            connections_target=connections_planned(order.connections, share),
            before=self._snapshot,
        )
        current_observer().saw(self._snapshot)

    def _record(self, order: Order, label: str, cut_at_us: int | None) -> PhaseRecord:
        assert order.phase is not None  # noqa: S101 - only orders with a phase are recorded
        ended_us = cut_at_us or order.starts_at_us + round(order.duration_s * 1e6)
        edits = planned_edits(order, self._plan)
        within_s = (ended_us - order.starts_at_us) / 1e6
        parts = {
            name: done.parts
            for name, status in self.statuses.items()
            for done in status.done
            if done.order == order.number
        }
        for name in self.lost:
            status = self.statuses.get(name)
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
            document_edits_after=self.progress.document_edits,
            slots=order.slots,
            parts=parts,
            lost=list(self.lost.values()),
            stopped_early=self.ending if cut_at_us else "",
        )

    def _slots(self) -> list[str]:
        """Return a slot for each worker; a lost worker's is empty."""
        return ["" if name in self.lost else name for name in self._workers]

    def _state(self, name: str) -> str:
        status = self.statuses.get(name)
        return status.state if status else ""

    def _has_done(self, name: str, number: int) -> bool:
        status = self.statuses.get(name)
        if status is None:
            return False
        return status.state == "stopped" or any(done.order == number for done in status.done)

    def _label(self, order: Order) -> str:
        if order.phase is None:
            raise DeadlineError("An order without a phase cannot be shown.")
        return phase_label(order.phase.index, order.phase.name)
