"""Orders that end before their time: for the load's end, or for a worker that was lost."""

from __future__ import annotations

import math
from collections.abc import Callable

from run_store.errors import StoreError
from run_store.messages import RECONNECT, Order
from tasks.instants import soon_us
from tasks.observation import current_observer
from tasks.order_book import OrderBook
from tasks.plan import rest_of_order, wind_down_order
from tasks.roll_call import RollCall
from tasks.run_context import RunContext
from tasks.spreading import extra_connections, why_no_room

SPREAD_FOR_AT_LEAST_S = 10.0
"""With less than that left of an order a lost worker's connections wait for the next one."""


class Cuts:
    """Puts another order in the place of the rest of one. `slots` says who has each by now.

    Another try after a StoreError keeps to what the first one may have written.
    """

    def __init__(
        self, context: RunContext, roll: RollCall, book: OrderBook, slots: Callable[[], list[str]]
    ) -> None:
        self._context = context
        self._roll = roll
        self._book = book
        self._slots = slots
        self._unspread: set[str] = set()

    async def end_load(self, order: Order, why: str, *, soon: bool) -> bool:
        """Have the cool-down take an order's place, or the stop where there is none.

        Whoever wants the load's end wants it `soon`; behind a missed objective the cool-down has
        its whole length. Returns False where another order was written already, though no answer
        told so: it takes this one's place, and is to be ended in its turn.
        """
        if order.phase is None:
            return True
        there = await self._book.next_written()
        cut_at_us = self._part_done(order, there)
        if there is not None and there.phase == order.phase:
            await self._book.issue(there)
            self._book.cut(order, cut_at_us)
            return False
        current_observer().warn(f"{why}: the load ends in order")
        following = wind_down_order(
            self._context.scenario,
            order.phase.index,
            progress=self._book.progress,
            slots=self._slots(),
            starts_at_us=cut_at_us,
            polls_relay=self._context.has_metrics,
            **({} if soon else {"at_most_s": math.inf}),
        )
        is_as_wanted = True
        if following is None:
            await self.stop_at(cut_at_us, why)
        else:
            # A longer one may have been written by a try before, unheard.
            issued = await self._book.issue(following)
            is_as_wanted = issued.duration_s <= following.duration_s
        self._book.cut(order, cut_at_us, why)
        return is_as_wanted

    async def stop_at(self, at_us: int, why: str) -> None:
        """Order the end of all."""
        await self._book.stop(at_us, why)
        self._roll.stop_is_ordered = True

    async def spread(self, order: Order) -> None:
        """Give the connections of workers that are lost to the others at once, if they have room.

        A step of load is not touched: it is judged as doubtful, and tried again.
        """
        gone = {name for name in order.slots if name in self._roll.lost} - self._unspread
        if not gone or not self._may_spread(order):
            return
        self._unspread |= gone
        slots = self._slots()
        open_now = math.ceil(max(order.connections.start, order.connections.end))
        more = extra_connections(order.slots, slots, open_now)
        why_not = why_no_room(self._roll.statuses, more)
        names = ", ".join(sorted(gone))
        if why_not:
            current_observer().warn(f"the connections of {names} are not spread: {why_not}")
            return
        before = self._book.progress
        try:
            cut_at_us = self._part_done(order, await self._book.next_written())
            at_s = (cut_at_us - order.starts_at_us) / 1e6
            rest = rest_of_order(order, at_s=at_s, progress=self._book.progress, slots=slots)
            await self._book.issue(rest)
        except StoreError:
            # Nothing has changed then, and the next try begins anew.
            self._book.progress, self._unspread = before, self._unspread - gone
            raise
        self._book.cut(order, cut_at_us)
        current_observer().warn(f"the connections of {names} are spread over the others")

    def _may_spread(self, order: Order) -> bool:
        """Say whether another order may go on with this one, and lasts long enough for it."""
        scenario, phase = self._context.scenario, order.phase
        if phase is None or phase.kind == "cooldown" or phase.name == RECONNECT:
            return False
        if scenario.phases[phase.index].has_steps or not scenario.fleet.spread_lost_connections:
            return False
        left_s = order.duration_s - (soon_us() - order.starts_at_us) / 1e6
        return left_s >= SPREAD_FOR_AT_LEAST_S

    def _part_done(self, order: Order, there: Order | None) -> int:
        """Take an order to end soon, or when the one begins that is there already; return when."""
        soonest_us = max(soon_us(), order.starts_at_us)
        cut_at_us = soonest_us if there is None else there.starts_at_us
        self._book.part_done(order, cut_at_us)
        return cut_at_us
