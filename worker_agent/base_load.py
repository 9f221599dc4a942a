"""What every kind of load is to the agent, and the order in force, which is the same for all."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any

from run_store.agent_config import AgentConfig
from run_store.messages import Order
from run_store.schedule import Plan, connections_planned, slot_of
from worker_agent.agenda import Agenda, agenda_of
from worker_agent.clock import RunClock
from worker_agent.page_client import PageState
from worker_agent.recording import Recording

log = logging.getLogger(__name__)

SETTLE_AT_MOST_S = 10.0
"""How long a phase that is over waits for the acknowledgements of its last edits."""
CONVERGE_AT_MOST_S = 15.0
"""How long replicas may take to be in sync before they are compared as they are."""


class BaseLoad(ABC):
    """Holds the order in force and its agenda; how that is carried out is each kind's own."""

    def __init__(
        self, *, config: AgentConfig, plan: Plan, recording: Recording, clock: RunClock
    ) -> None:
        self._config = config
        self._plan = plan
        self._recording = recording
        self._clock = clock
        self._order: Order | None = None
        self._agenda = Agenda([], [], [])
        self._highest = 0
        self._expected: dict[str, list[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def prepare(self, order: Order) -> None:
        """Get ready for an order; returns before it begins."""

    @abstractmethod
    async def tick(self) -> list[PageState]:
        """Record the samples since the last call; return the pages' states."""

    @abstractmethod
    async def settle(self) -> None:
        """End a phase: wait for what is on its way, then write down what did not come."""

    @abstractmethod
    async def check_replicas(self) -> None:
        """Compare what all connections show, once they agree or have had their time."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections in order and record the last samples."""

    def cut(self, at_us: int) -> None:
        """Take the order in force to end at `at_us`: later edits were never offered."""
        self._recording.outstanding = {
            edit: row
            for edit, row in self._recording.outstanding.items()
            if row["intended_us"] <= at_us
        }
        order = self._order
        if order is None:
            return
        end_s = (at_us - order.starts_at_us) / 1e6
        never = {edit.edit for edit in self._agenda.edits if edit.at_s > end_s}
        self._expected = {
            document: [edit for edit in edits if edit not in never]
            for document, edits in self._expected.items()
        }

    def target(self, at_us: int) -> int:
        """Return how many connections this worker should have at an instant."""
        order = self._order
        if order is None or order.action != "run" or not order.duration_s:
            return 0
        planned = connections_planned(order, (at_us - order.starts_at_us) / 1e6)
        return sum(slot_of(c, order) == self._config.worker for c in range(planned))

    async def _take(self, order: Order) -> Agenda:
        """Put an order in force: its agenda, and the edits that this worker owes rows for."""
        before, self._order = self._order, order
        self._agenda = agenda = await asyncio.to_thread(
            agenda_of, order, self._plan, self._config.worker, self._highest, before
        )
        self._highest = max(self._highest, int(max(order.connections.start, order.connections.end)))
        for edit in agenda.edits:
            key = f"{edit.document}:{edit.generation}"
            self._expected.setdefault(key, []).append(edit.edit)
        self._recording.outstanding = {
            event.edit: {
                "document": event.document,
                "generation": event.generation,
                "connection": event.connection,
                "intended_us": order.starts_at_us + round(event.at_s * 1e6),
            }
            for event in agenda.events
            if event.kind == "edit"
        }
        return agenda

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something in the background; what it raises becomes an error sample."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work failed", exc_info=error)
            self._recording.error(
                self._clock.now_us(), "agent_error", f"{type(error).__name__}: {error}"
            )
