"""An order that is taken up late: by an agent that was restarted, or had not been ready."""

from __future__ import annotations

from dataclasses import replace

from run_store.messages import Order
from worker_agent.agenda import Agenda, Event
from worker_agent.base_load import BaseLoad


def left_of(agenda: Agenda, now_s: float) -> list[Event]:
    """Return what is left of an agenda at `now_s`; a page can be given it as it is.

    What was due before is over, but for connections that should be open by now: each opens
    with the document that its members hold at `now_s`, and joins those that it had fetched for
    later. Those that should be closed by now are closed: an agent that stood still, and whose
    connections are another's since, has them yet.
    """
    current: dict[int, int] = {}
    for move in agenda.moves:
        if move.at_s <= now_s:
            current[move.document] = max(move.to, current.get(move.document, 0))
    opens: dict[int, Event] = {}
    closes: dict[int, Event] = {}
    joins: list[Event] = []
    rest: list[Event] = []
    for event in agenda.events:
        if event.at_s > now_s:
            rest.append(event)
        elif event.kind == "open":
            generation = max(event.generation, current.get(event.document, 0))
            opens[event.connection] = replace(event, generation=generation)
            closes.pop(event.connection, None)
        elif event.kind == "join":
            joins.append(event)
        elif event.kind == "close":
            opens.pop(event.connection, None)
            closes[event.connection] = event
    ahead = [
        join
        for join in joins
        if join.connection in opens and join.generation > opens[join.connection].generation
    ]
    return [*closes.values(), *opens.values(), *ahead, *rest]


class TakesUpLate(BaseLoad):
    """Gives any kind of load the memory of an earlier agent's orders."""

    _late = False
    _begun_before = False

    async def learn(self, order: Order) -> None:
        """Take note of an order that is over, so that later ones find what it left.

        Its connections are known (those beyond a later plan are closed), and its edits are
        expected in the documents; nothing is done and nothing is owed.
        """
        await super()._take(order)
        self._recording.outstanding = {}

    async def take_up(self, order: Order, *, begun_before: bool) -> None:
        """Prepare an order whose instant has passed: only with what is left of it.

        If an earlier agent had begun it (`begun_before`), what it owes for the time before now
        is not known here, and is left to be derived from the schedule. If none had, those
        edits are owed, and will be written as missed.
        """
        self._late, self._begun_before = True, begun_before
        try:
            await self.prepare(order)
        finally:
            self._late = False

    async def _take(self, order: Order) -> Agenda:
        agenda = await super()._take(order)
        if not self._late:
            return agenda
        now_us = self._clock.now_us()
        if self._begun_before:
            self._recording.outstanding = {
                edit: row
                for edit, row in self._recording.outstanding.items()
                if row["intended_us"] > now_us
            }
        events = left_of(agenda, (now_us - order.starts_at_us) / 1e6)
        self._agenda = Agenda(events, agenda.moves, agenda.edits)
        return self._agenda
