"""Which workers are there: their heartbeats, and who of them is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Sequence

from run_store.errors import StoreError
from run_store.messages import LostWorker, Order, Status
from run_store.schedule import connections_planned, slot_of
from tasks.beats import Beats
from tasks.fleets.base import Fleet, Worker
from tasks.instants import now_us
from tasks.observation import current_observer
from tasks.readings import counting_on
from tasks.run_context import RunContext

log = logging.getLogger(__name__)

SILENT_AFTER_S = 10.0
"""A worker whose heartbeat has not risen for so long is lost."""

ASKED_WITHIN_S = 10.0


class RollCall:
    """The workers of an attempt. A worker that is lost stays lost, whatever it says later.

    `is_blind` says that the last look could not read every heartbeat; `stop_asked` why the run
    shall end, if somebody asked for it. Whoever orders the stop sets `stop_is_ordered`: an
    agent that stops before is lost. `restarted` counts how often a worker's agent took the place
    of one that died; what that one had counted stays in its `statuses`.
    """

    def __init__(self, context: RunContext, fleet: Fleet, workers: Sequence[Worker]) -> None:
        self.statuses: dict[str, Status] = {}
        self.lost: dict[str, LostWorker] = {}
        self.restarted: Counter[str] = Counter()
        self.stop_asked = ""
        self.stop_is_ordered = False
        self.is_blind = False
        self.phase = ""
        self.order: Order | None = None
        self._context = context
        self._fleet = fleet
        self._workers = {worker.name: worker for worker in workers}
        self._store = context.store()
        self._beats = Beats()
        self._earlier: dict[str, Status] = {}

    @property
    def names(self) -> list[str]:
        """All workers, in order."""
        return list(self._workers)

    @property
    def alive(self) -> list[str]:
        """The workers that are not lost, in order."""
        return [name for name in self._workers if name not in self.lost]

    def state(self, name: str) -> str:
        """Return a worker's state; nothing before its first heartbeat."""
        status = self.statuses.get(name)
        return status.state if status else ""

    def has_done(self, name: str, order: int) -> bool:
        """Say whether a worker has done an order, or will do no more."""
        status = self.statuses.get(name)
        if status is None:
            return False
        return status.state == "stopped" or any(done.order == order for done in status.done)

    async def look(self) -> None:
        """Read every worker's heartbeat, and whether somebody asked for the run's end."""
        reading = asyncio.gather(
            *(self._read(name) for name in self._workers), return_exceptions=True
        )
        with contextlib.suppress(StoreError):
            if await asyncio.to_thread(self._store.get, self._context.layout.stop) is not None:
                self.stop_asked = "asked to stop"
        heard = await reading
        self.is_blind = any(isinstance(answer, StoreError) for answer in heard)
        for name, answer in zip(self._workers, heard, strict=True):
            if isinstance(answer, StoreError):
                log.warning("the heartbeat of %s could not be read: %s", name, answer)
                self._beats.store_silent(name)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                await self._heard(name, *answer)

    def lose(self, name: str, reason: str) -> None:
        """Take a worker for lost from now on."""
        status = self.statuses.get(name)
        # A heartbeat is a second or two old: in a ramp the plan has gone on since.
        connections = max(status.vitals.connections_open if status else 0, self._due(name))
        self.lost[name] = LostWorker(
            worker=name,
            phase=self.phase,
            last_seen_us=status.at_us if status else 0,
            noticed_us=now_us(),
            connections=connections,
            reason=reason,
        )
        log.warning("%s %s", name, reason)
        current_observer().warn(f"{name} {reason}; {connections} connections were on it")

    def worker(self, name: str) -> Worker:
        """Return a worker as its fleet gave it."""
        return self._workers[name]

    def replace(self, lost: str, worker: Worker, phase: str) -> None:
        """Take in a worker that has a lost one's place from a phase on."""
        self._workers[worker.name] = worker
        update = {"replaced_by": worker.name, "replaced_from": phase}
        self.lost[lost] = self.lost[lost].model_copy(update=update)
        current_observer().warn(f"{lost} is replaced by {worker.name} from {phase} on")

    async def _read(self, name: str) -> tuple[Status | None, float]:
        """Return a worker's heartbeat, if it wrote one, and how long the store took in seconds."""
        began = time.monotonic()
        key = self._context.layout.status(self._context.attempt, name)
        status = await asyncio.to_thread(self._store.get_message, key, Status)
        return status, time.monotonic() - began

    def _due(self, name: str) -> int:
        """Return how many connections a worker should have now, by the order in force."""
        order = self.order
        if order is None or not order.duration_s:
            return 0
        due = connections_planned(order, (now_us() - order.starts_at_us) / 1e6)
        return sum(slot_of(connection, order) == name for connection in range(due))

    async def _heard(self, name: str, status: Status | None, took_s: float) -> None:
        if name in self.lost:
            if status is not None and status.leaving is not None:
                self._keep(name, status)  # it still ships, and says what
            return
        silent_s = 0.0
        if status is not None:
            self._keep(name, status)
            silent_s = self._beats.heard(name, status.beat, took_s=took_s)
            if status.leaving is not None:
                self.lose(name, f"leaves: {status.leaving.reason}")
                return
            if status.state == "failed":
                self.lose(name, f"failed: {status.message}")
                return
            if status.state == "stopped":
                self._has_stopped(name, status)
                return
        if not await self._is_alive(name):
            # It may have said its last word between our look and its end.
            await self._last_word(name)
        elif silent_s > SILENT_AFTER_S:
            self.lose(name, f"has not been heard for {silent_s:.0f} s")

    def _keep(self, name: str, status: Status) -> None:
        """Take a worker's heartbeat for its last, on top of what an agent before it counted."""
        before = self.statuses.get(name)
        if before is not None and before.began_us != status.began_us:
            self._earlier[name] = before
            self.restarted[name] += 1
            log.warning("the agent of %s was restarted", name)
            current_observer().warn(f"the agent of {name} died and was restarted")
        earlier = self._earlier.get(name)
        self.statuses[name] = counting_on(earlier, status) if earlier else status

    async def _is_alive(self, name: str) -> bool:
        """Ask the fleet for a worker; one of which nothing can be learnt is judged by its beat."""
        try:
            async with asyncio.timeout(ASKED_WITHIN_S):
                return await self._fleet.is_alive(self._context, self._workers[name])
        except TimeoutError:
            return True

    def _has_stopped(self, name: str, status: Status) -> None:
        if not self.stop_is_ordered:
            self.lose(name, f"stopped by itself: {status.message or 'it did not say why'}")

    async def _last_word(self, name: str) -> None:
        key = self._context.layout.status(self._context.attempt, name)
        try:
            status = await asyncio.to_thread(self._store.get_message, key, Status)
        except StoreError:
            return
        if status is not None:
            self._keep(name, status)
        if status is not None and status.state == "stopped":
            self._has_stopped(name, status)
        elif status is not None and status.state == "failed":
            self.lose(name, f"failed: {status.message}")
        else:
            self.lose(name, "is gone: its agent ended without saying why")
