"""One stay of a user on their page: its browser context, and calls that always end in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from playwright.async_api import BrowserContext, Page
from playwright.async_api import Error as PlaywrightError

from run_store.errors import BrowserError
from worker_agent.browsers import Browsers
from worker_agent.journey import Step

log = logging.getLogger(__name__)

CANCELLING_S = 0.25
"""How long a function that is cancelled may take to end; after that it is left behind."""
NEWS_WITHIN_S = 0.5
"""A call may fail because of the page a little before the page is known to be gone."""
LEAVING_TIMEOUT_S = 10.0
"""How long a teardown, and the closing of a context, may take."""


@dataclass(frozen=True)
class Outcome:
    """How a call of a journey's function ended; `fault` is a short word, empty if it went well.

    `ended` is the instant on time.monotonic() at which the function returned.
    """

    value: Any = None
    fault: str = ""
    message: str = ""
    ended: float = 0.0


class Visit:
    """A context and a page. `gone` is set once the page is, or is to be given up."""

    def __init__(
        self,
        context: BrowserContext,
        page: Page,
        *,
        timeout_s: float,
        on_lost: Callable[[Outcome], None],
    ) -> None:
        self.page = page
        self.gone = asyncio.Event()
        self.why = Outcome()
        self._context = context
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        # What hangs in Playwright shall end by our own limit, and be called a time-out.
        page.set_default_timeout((timeout_s + LEAVING_TIMEOUT_S) * 1000)
        page.on("close", lambda _: self.lose("page_closed", "the page was closed"))
        page.on("crash", lambda _: self.lose("page_crashed", "the page crashed"))

    @classmethod
    async def begin(
        cls, browsers: Browsers, *, timeout_s: float, on_lost: Callable[[Outcome], None]
    ) -> Self:
        """Open a fresh context and page.

        Raises BrowserError if there is no browser to open them in.
        """
        context = await browsers.new_context()
        try:
            page = await context.new_page()
        except BaseException as error:
            await _close(context)
            if isinstance(error, PlaywrightError):
                raise BrowserError(f"No page: {error.message.splitlines()[0]}") from error
            raise
        return cls(context, page, timeout_s=timeout_s, on_lost=on_lost)

    async def call(
        self, kind: str, step: Step, *arguments: Any, timeout_s: float | None = None
    ) -> Outcome:
        """Call a journey's function with the page; whatever it does, this returns in time.

        A fault is `<kind>_error`, `<kind>_timeout`, or the reason why the page is gone. A
        function that does not end when it is cancelled is left behind.
        """
        limit_s = timeout_s or self._timeout_s
        work = asyncio.create_task(contained(step, self.page, *arguments))
        gone = asyncio.create_task(self.gone.wait())
        try:
            await asyncio.wait({work, gone}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not (done := work.done()):
                work.cancel()
                await asyncio.wait({work}, timeout=CANCELLING_S)
        if self.page.is_closed():
            self.lose("page_closed", "the page was closed")
        if done and not work.cancelled():
            outcome = work.result()
            if not outcome.fault and not self.page.is_closed():
                return outcome
            if outcome.fault and not await self._is_why(outcome):
                return Outcome(fault=f"{kind}_error", message=outcome.message)
        if self.gone.is_set():
            return self.why
        if done:
            return Outcome(fault=f"{kind}_error", message="it cancelled itself")
        return Outcome(fault=f"{kind}_timeout", message=f"it did not return within {limit_s:g} s")

    async def _is_why(self, outcome: Outcome) -> bool:
        """Say whether a call failed because the page is gone."""
        if not self.gone.is_set() and any(word in outcome.message for word in ("crash", "closed")):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NEWS_WITHIN_S):
                    await self.gone.wait()
        return self.gone.is_set()

    def lose(self, fault: str, message: str) -> None:
        """End the visit, and what goes on in it, by a fault; only the first one counts."""
        if not self.gone.is_set():
            self.why = Outcome(fault=fault, message=message)
            self.gone.set()
            self._on_lost(self.why)

    async def end(self) -> None:
        """Close the context; what still goes on in it ends, and nobody is told."""
        if not self.gone.is_set():
            self.why = Outcome(fault="closed", message="the user left")
            self.gone.set()
        await _close(self._context)


async def contained(step: Step, *arguments: Any) -> Outcome:
    """Await a journey's function; what it raises ends its call only, and is the fault `error`."""
    try:
        value = await step(*arguments)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too would end the whole agent
        return Outcome(fault="error", message=said(error))
    return Outcome(value, ended=time.monotonic())


def said(error: BaseException) -> str:
    """Return an exception's type and message in one line of text."""
    return f"{type(error).__name__}: {error}"


async def _close(context: BrowserContext) -> None:
    try:
        async with asyncio.timeout(LEAVING_TIMEOUT_S):
            await context.close()
    except (TimeoutError, PlaywrightError) as error:
        log.warning("a user's browser context did not close: %s", error)
