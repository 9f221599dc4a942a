"""One user of a journey, who comes, makes edits, comes back after a fault, and leaves."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from run_store.errors import BrowserError
from worker_agent.browsers import Browsers
from worker_agent.clock import RunClock
from worker_agent.journey import Journey, User
from worker_agent.row_buffer import RowBuffer
from worker_agent.visit import LEAVING_TIMEOUT_S, Outcome, Visit, said

log = logging.getLogger(__name__)

OPERATION_TIMEOUT_S = 30.0
"""How long each call of a journey's function may take."""
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 15.0
PLANNED = "dropped_on_purpose"
"""Why a page is gone that the plan has cut."""


@dataclass(frozen=True)
class Made:
    """An edit on its way: what a delivery of it has to say."""

    edit: int
    writer: int
    intended_us: int
    sent_us: int


@dataclass(frozen=True)
class _Due:
    edit: int
    intended_us: int
    held: bool


Named = Callable[["UserSession", Made, str], list[asyncio.Task[None]]]
"""Told of an edit's token; returns the tasks in which other users look for it."""


class UserSession:
    """Opens at once, comes back with a fresh context after a fault, and leaves when told to."""

    def __init__(
        self,
        *,
        user: User,
        journey: Journey,
        browsers: Browsers,
        rows: RowBuffer,
        clock: RunClock,
        named: Named,
        timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        self.user = user
        self.tries = 0
        self.is_in = False  # the setup is done and the page is there
        self.not_shown: set[int] = set()
        self.changed_us: int | None = None
        self._journey = journey
        self._browsers = browsers
        self._rows = rows
        self._clock = clock
        self._named = named
        self._timeout_s = timeout_s
        self._due: deque[_Due] = deque()
        self._wake = asyncio.Event()
        self._visit: Visit | None = None
        self._leaving = False
        self._to_drop = False
        self._busy_since: float | None = None
        self._retries = 0
        self._looking: set[asyncio.Task[None]] = set()
        self._life = asyncio.create_task(self._live())

    @property
    def is_busy(self) -> bool:
        """An edit is being made."""
        return self._busy_since is not None

    @property
    def busy_s(self) -> float:
        """How long the edit that is being made has taken; 0 if none is."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    @property
    def is_looking(self) -> bool:
        """This user's page is being watched for others' edits."""
        return bool(self._looking)

    def edit(self, number: int, intended_us: int) -> None:
        """Make an edit now, or as soon as the user's page is there and has done the last one."""
        held = not self.is_in or self.is_busy or bool(self._due)
        self._due.append(_Due(number, intended_us, held))
        self._wake.set()

    def look(self, made: Made, token: str, weight: float) -> asyncio.Task[None]:
        """Wait in the background until this user's page shows another's edit, and record when."""
        task = asyncio.create_task(self._look(made, token, weight))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)
        return task

    def drop(self) -> None:
        """Have the page go away, as soon as no edit is being made; the user comes back."""
        self._to_drop = self.is_in
        self._wake.set()

    def give_up_edit(self, message: str) -> None:
        """End the edit that is being made as timed out; the user comes back to a fresh page."""
        if self.is_busy and self._visit is not None:
            self._visit.lose("journey_timeout", message)

    def give_up_unstarted(self) -> None:
        """End a phase: edits that were not begun are missed, or failed if the user is not in."""
        error = "missed" if self.is_in else "not_connected"
        while self._due:
            self._finish(self._due.popleft(), None, None, error)

    async def state(self) -> str | None:
        """Return what the user's page shows, in the journey's own words; None if it cannot say."""
        visit = self._visit
        if not self.is_in or visit is None or self._journey.state is None:
            return None
        outcome = await visit.call("state", self._journey.state, self.user)
        if outcome.fault and not visit.gone.is_set():
            self._error(outcome)
        return None if outcome.fault else str(outcome.value)

    async def leave(self) -> None:
        """Leave in order: after the edit that is being made, and with the journey's teardown."""
        self._leaving = True
        self._wake.set()
        if not self.is_in:
            self._life.cancel()
        await asyncio.wait({self._life})

    async def _live(self) -> None:
        try:
            while not self._leaving:
                self.tries += 1
                began = time.monotonic()
                self._event("opening", 0.0)
                outcome = await self._enter()
                if outcome.fault:
                    self._event("failed", _ms_since(began), outcome.fault)
                else:
                    self._event("synced", _ms_since(began))
                    await self._stay()
                await self._let_go()
                if not self._leaving:
                    await self._back_off()
        except Exception as error:
            log.exception("a user's session failed")
            self._error(Outcome(fault="agent_error", message=said(error)))
        finally:
            await self._let_go()
            self.give_up_unstarted()

    async def _enter(self) -> Outcome:
        try:
            self._visit = visit = await Visit.begin(
                self._browsers, timeout_s=self._timeout_s, on_lost=self._lost
            )
        except BrowserError as error:
            outcome = Outcome(fault="browser_lost", message=str(error))
            self._error(outcome)
            return outcome
        if self._journey.setup is None:
            return Outcome()
        outcome = await visit.call("setup", self._journey.setup, self.user)
        if outcome.fault and not visit.gone.is_set():
            self._error(outcome)
        return outcome

    async def _stay(self) -> None:
        """Make edits as they come, until the user leaves or the visit is over by a fault."""
        visit, began = self._visit, time.monotonic()
        if visit is None:
            return
        self.is_in, self._to_drop, self._retries = True, False, 0
        while not visit.gone.is_set():
            if self._to_drop:
                visit.lose(PLANNED, "the plan cut this connection")
            elif self._due:
                await self._make(visit, self._due.popleft())
            elif self._leaving:
                break
            else:
                self._wake.clear()
                await self._wake.wait()
        self.is_in = False
        if visit.gone.is_set():
            self._event("dropped", _ms_since(began), visit.why.fault)
            return
        for task in self._looking:
            task.cancel()
        if self._journey.teardown is not None:
            limit_s = min(LEAVING_TIMEOUT_S, self._timeout_s)
            outcome = await visit.call(
                "teardown", self._journey.teardown, self.user, timeout_s=limit_s
            )
            if outcome.fault and not visit.gone.is_set():
                self._error(outcome)
        self._event("closed", _ms_since(began))

    async def _make(self, visit: Visit, due: _Due) -> None:
        user = replace(self.user, edit=due.edit)
        self._busy_since = time.monotonic()
        made = Made(due.edit, user.connection, due.intended_us, self._clock.now_us())
        watchers: list[asyncio.Task[None]] = []
        outcome, token = self._token(user)
        if not outcome.fault:
            if token is not None:
                watchers = self._named(self, made, token)
            outcome = await visit.call("journey", self._journey.edit, user)
        ended_us = self._clock.from_monotonic(outcome.ended)
        acknowledged_us = None if outcome.fault else ended_us
        self._finish(due, made.sent_us, acknowledged_us, outcome.fault or None)
        self._busy_since = None
        if not outcome.fault:
            self.changed_us = ended_us
            if token is None and outcome.value is not None:
                self._named(self, made, str(outcome.value))
            return
        for task in watchers:
            task.cancel()
        if outcome.fault == "journey_timeout":
            # Nobody knows what state the page is in: the user comes back to a fresh one.
            visit.lose(outcome.fault, outcome.message)
        elif not visit.gone.is_set():
            self._error(outcome)

    def _token(self, user: User) -> tuple[Outcome, str | None]:
        if self._journey.token is None:
            return Outcome(), None
        try:
            return Outcome(), str(self._journey.token(user))
        except Exception as error:  # noqa: BLE001 - whatever it raises fails this edit only
            return Outcome(fault="journey_error", message=f"token: {said(error)}"), None

    async def _look(self, made: Made, token: str, weight: float) -> None:
        visit, observe = self._visit, self._journey.observe
        if visit is None or observe is None:
            return
        outcome = await visit.call("observe", observe, replace(self.user, edit=made.edit), token)
        if outcome.fault:
            # A page that is gone shows nothing; that is no news of the edit.
            if not visit.gone.is_set():
                self.not_shown.add(made.edit)
                self._error(outcome)
            return
        self.changed_us = seen_us = self._clock.from_monotonic(outcome.ended)
        self._rows.add(
            "deliveries",
            edit=made.edit,
            document=self.user.document,
            generation=0,
            writer=made.writer,
            observer=self.user.connection,
            intended_us=made.intended_us,
            sent_us=made.sent_us,
            seen_us=seen_us,
            same_worker=True,
            repeat=1,
            weight=weight,
        )

    def _lost(self, why: Outcome) -> None:
        # What the plan does is no error.
        if why.fault != PLANNED:
            self._error(why)
        self._wake.set()

    async def _let_go(self) -> None:
        visit, self._visit = self._visit, None
        self.is_in = False
        for task in self._looking:
            task.cancel()
        if visit is not None:
            await visit.end()

    async def _back_off(self) -> None:
        """Wait with full jitter over an exponential back-off, as the load's own client does."""
        longest_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2**self._retries)
        self._retries += 1
        await asyncio.sleep(longest_s * random.uniform(0.2, 1.0))  # noqa: S311 - a stagger

    def _finish(
        self, due: _Due, started_us: int | None, acknowledged_us: int | None, error: str | None
    ) -> None:
        self._rows.add(
            "edits",
            edit=due.edit,
            document=self.user.document,
            generation=0,
            connection=self.user.connection,
            intended_us=due.intended_us,
            started_us=started_us,
            acknowledged_us=acknowledged_us,
            error=error,
            held=due.held,
        )

    def _event(self, event: str, duration_ms: float, cause: str | None = None) -> None:
        self._rows.add(
            "connections",
            at_us=self._clock.now_us(),
            connection=self.user.connection,
            document=self.user.document,
            generation=0,
            event=event,
            duration_ms=duration_ms,
            tries=self.tries,
            cause=cause,
        )

    def _error(self, outcome: Outcome) -> None:
        self._rows.error(outcome.fault, outcome.message, self.user.connection, self.user.document)


def _ms_since(began: float) -> float:
    return (time.monotonic() - began) * 1000
