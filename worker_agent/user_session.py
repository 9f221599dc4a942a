"""One user of a journey: a browser context and page of their own, and the edits made there."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from playwright.async_api import BrowserContext, Page
from playwright.async_api import Error as PlaywrightError

from run_store.errors import BrowserError
from worker_agent.browsers import Browsers
from worker_agent.clock import RunClock
from worker_agent.journey import Journey, Step, User
from worker_agent.row_buffer import RowBuffer

log = logging.getLogger(__name__)

OPERATION_TIMEOUT_S = 30.0
"""How long each call of a journey's function may take."""
LEAVING_TIMEOUT_S = 10.0
"""How long a teardown, and the closing of a context, may take."""
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 15.0


@dataclass(frozen=True)
class Outcome:
    """How a call of a journey's function ended; `fault` is a short word, empty if it went well."""

    value: Any = None
    fault: str = ""
    message: str = ""
    ended: float = 0.0  # on time.monotonic(), if the function returned


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


@dataclass
class _Visit:
    """One stay on the user's page; `cause` says why it is over before the user left."""

    context: BrowserContext
    page: Page
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    cause: str = ""
    message: str = ""


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
        self._visit: _Visit | None = None
        self._is_in = False
        self._leaving = False
        self._busy_since: float | None = None
        self._retries = 0
        self._looking: set[asyncio.Task[None]] = set()
        self._life = asyncio.create_task(self._live())

    @property
    def is_in(self) -> bool:
        """The user's setup is done and their page is there."""
        return self._is_in

    @property
    def busy_s(self) -> float:
        """How long the edit that is being made has taken; 0 if none is."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    @property
    def is_busy(self) -> bool:
        """An edit is being made."""
        return self._busy_since is not None

    @property
    def is_looking(self) -> bool:
        """This user's page is being watched for others' edits."""
        return bool(self._looking)

    def edit(self, number: int, intended_us: int) -> None:
        """Make an edit now, or as soon as the user's page is there and has done the last one."""
        held = not self._is_in or self.is_busy or bool(self._due)
        self._due.append(_Due(number, intended_us, held))
        self._wake.set()

    def look(self, made: Made, token: str, weight: float) -> asyncio.Task[None]:
        """Wait in the background until this user's page shows another's edit, and record when."""
        task = asyncio.create_task(self._look(made, token, weight))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)
        return task

    def interrupt(self, cause: str, message: str) -> None:
        """End this visit, and what goes on in it, by a fault; the user comes back."""
        if self._visit is not None:
            self._lose(self._visit, cause, message)

    def give_up_unstarted(self) -> None:
        """End a phase: edits that were not begun are missed, or failed if the user is not in."""
        error = "missed" if self._is_in else "not_connected"
        while self._due:
            self._finish(self._due.popleft(), None, None, error)

    async def state(self) -> str | None:
        """Return what the user's page shows, in the journey's own words; None if it cannot say."""
        if not self._is_in or self._visit is None or self._journey.state is None:
            return None
        visit = self._visit
        outcome = await self._call("state", visit, self._journey.state, self.user)
        if outcome.fault and not visit.gone.is_set():
            self._error(outcome)
        return None if outcome.fault else str(outcome.value)

    async def leave(self) -> None:
        """Leave in order: after the edit that is being made, and with the journey's teardown."""
        self._leaving = True
        self._wake.set()
        if not self._is_in:
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
                    if self._visit is None or not self._visit.gone.is_set():
                        self._error(outcome)
                    self._event("failed", _ms_since(began), outcome.fault)
                else:
                    self._event("synced", _ms_since(began))
                    await self._stay()
                await self._let_go()
                if not self._leaving:
                    await self._back_off()
        except Exception as error:
            log.exception("a user's session failed")
            self._error(Outcome(fault="agent_error", message=_said(error)))
        finally:
            await self._let_go()
            self.give_up_unstarted()

    async def _enter(self) -> Outcome:
        try:
            context = await self._browsers.new_context()
        except BrowserError as error:
            return Outcome(fault="browser_lost", message=str(error))
        try:
            page = await context.new_page()
        except BaseException as error:
            await _close(context)
            if isinstance(error, PlaywrightError):
                return Outcome(fault="browser_lost", message=_said(error))
            raise
        self._visit = visit = _Visit(context, page)
        # What hangs in Playwright ends by the journey's own limit, and is called a time-out.
        page.set_default_timeout((self._timeout_s + LEAVING_TIMEOUT_S) * 1000)
        page.on("close", lambda _: self._lose(visit, "page_closed", "the page was closed"))
        page.on("crash", lambda _: self._lose(visit, "page_crashed", "the page crashed"))
        if self._journey.setup is None:
            return Outcome()
        return await self._call("setup", visit, self._journey.setup, self.user)

    async def _stay(self) -> None:
        """Make edits as they come, until the user leaves or the visit is over by a fault."""
        visit, began = self._visit, time.monotonic()
        if visit is None:
            return
        self._is_in, self._retries = True, 0
        while not visit.gone.is_set():
            if self._due:
                await self._make(visit, self._due.popleft())
            elif self._leaving:
                break
            else:
                self._wake.clear()
                await self._wake.wait()
        self._is_in = False
        if visit.gone.is_set():
            self._event("dropped", _ms_since(began), visit.cause)
            return
        for task in self._looking:
            task.cancel()
        if self._journey.teardown is not None:
            limit_s = min(LEAVING_TIMEOUT_S, self._timeout_s)
            outcome = await self._call(
                "teardown", visit, self._journey.teardown, self.user, timeout_s=limit_s
            )
            if outcome.fault:
                self._error(outcome)
        self._event("closed", _ms_since(began))

    async def _make(self, visit: _Visit, due: _Due) -> None:
        user = replace(self.user, edit=due.edit)
        self._busy_since = time.monotonic()
        made = Made(due.edit, user.connection, due.intended_us, self._clock.now_us())
        watchers: list[asyncio.Task[None]] = []
        outcome, token = self._token(user)
        if not outcome.fault:
            if token is not None:
                watchers = self._named(self, made, token)
            outcome = await self._call("journey", visit, self._journey.edit, user)
        ended_us = self._clock.from_monotonic(outcome.ended)
        acknowledged_us = None if outcome.fault else ended_us
        self._finish(due, made.sent_us, acknowledged_us, outcome.fault or None)
        self._busy_since = None
        if not outcome.fault:
            self.changed_us = acknowledged_us
            if token is None and outcome.value is not None:
                self._named(self, made, str(outcome.value))
            return
        for task in watchers:
            task.cancel()
        if outcome.fault == "journey_timeout":
            # Nobody knows what state the page is in: the user comes back to a fresh one.
            self._lose(visit, outcome.fault, outcome.message)
        elif not visit.gone.is_set():
            self._error(outcome)

    def _token(self, user: User) -> tuple[Outcome, str | None]:
        if self._journey.token is None:
            return Outcome(), None
        try:
            return Outcome(), str(self._journey.token(user))
        except Exception as error:  # noqa: BLE001 - whatever it raises fails this edit only
            return Outcome(fault="journey_error", message=f"token: {_said(error)}"), None

    async def _look(self, made: Made, token: str, weight: float) -> None:
        visit, observe = self._visit, self._journey.observe
        if visit is None or observe is None:
            return
        outcome = await self._call(
            "observe", visit, observe, replace(self.user, edit=made.edit), token
        )
        if not outcome.fault:
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
        elif not visit.gone.is_set():
            self.not_shown.add(made.edit)
            self._error(outcome)

    async def _call(
        self,
        kind: str,
        visit: _Visit,
        step: Step,
        *arguments: Any,
        timeout_s: float | None = None,
    ) -> Outcome:
        """Call a journey's function; whatever it does, this returns in time.

        A function that does not end when it is cancelled is left behind after a second.
        """
        limit_s = timeout_s or self._timeout_s
        work = asyncio.create_task(_contained(step, visit.page, *arguments))
        gone = asyncio.create_task(visit.gone.wait())
        try:
            await asyncio.wait({work, gone}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not (done := work.done()):
                work.cancel()
                await asyncio.wait({work}, timeout=1.0)
        if done and not work.cancelled():
            value, error, ended = work.result()
            if error is None and not visit.page.is_closed():
                return Outcome(value, ended=ended)
            if visit.page.is_closed():
                self._lose(visit, "page_closed", "the page was closed")
            if error is not None and not visit.gone.is_set():
                return Outcome(fault=f"{kind}_error", message=_said(error))
        if visit.gone.is_set():
            return Outcome(fault=visit.cause, message=visit.message)
        if done:
            return Outcome(fault=f"{kind}_error", message="it cancelled itself")
        name = "edit" if kind == "journey" else kind
        return Outcome(fault=f"{kind}_timeout", message=f"{name} did not return in {limit_s:g} s")

    def _lose(self, visit: _Visit, cause: str, message: str) -> None:
        if visit is not self._visit or visit.gone.is_set():
            return
        visit.cause, visit.message = cause, message
        visit.gone.set()
        self._wake.set()
        self._error(Outcome(fault=cause, message=message))

    async def _let_go(self) -> None:
        visit, self._visit = self._visit, None
        self._is_in = False
        for task in list(self._looking):
            task.cancel()
        if visit is not None:
            visit.cause = visit.cause or "closed"
            visit.gone.set()
            await _close(visit.context)

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


async def _contained(step: Step, *arguments: Any) -> tuple[Any, BaseException | None, float]:
    """Return what a journey's function returned or raised (that ends its call only), and when."""
    try:
        value = await step(*arguments)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too would end the whole agent
        return None, error, time.monotonic()
    return value, None, time.monotonic()


async def _close(context: BrowserContext) -> None:
    try:
        async with asyncio.timeout(LEAVING_TIMEOUT_S):
            await context.close()
    except (TimeoutError, PlaywrightError) as error:
        log.warning("a user's browser context did not close: %s", error)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _ms_since(began: float) -> float:
    return (time.monotonic() - began) * 1000
