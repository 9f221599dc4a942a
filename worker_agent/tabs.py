"""Pages of the load, opened over Chromium's DevTools protocol in contexts that Playwright ignores.

Playwright watches the network of every page that it knows: each WebSocket message then goes
through the DevTools protocol in base64, which costs the browser about as much as the message
itself. A target in a browser context that it did not make it lets go of at once, so the tabs of
the load live in such contexts, and are spoken to over a session of the browser that is ours.
Playwright starts the browser and carries that session.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from playwright.async_api import Browser, CDPSession
from playwright.async_api import Error as PlaywrightError

from run_store.errors import BrowserError

log = logging.getLogger(__name__)


NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
"""Chromium gives up what it loads, be it from loopback, when the machine gets or loses a network
interface: a VPN, a container."""
AGAIN_AFTER_S = (0.5, 1.0, 2.0)
"""By then the page that says so has loaded, and is not taken for ours."""


class TabGoneError(BrowserError):
    """The tab crashed, was closed, or its browser is gone."""


class Tab:
    """One page. `on_lost` is told once how it was lost, `on_error` what its script threw."""

    def __init__(self, browser: TabBrowser, target: str, session: str) -> None:
        self.on_lost: Callable[[str], None] = lambda _how: None
        self.on_error: Callable[[str], None] = lambda _message: None
        self.gone = ""
        self._browser = browser
        self._target = target
        self._session = session
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def load(self, url: str) -> None:
        """Go to an address and wait until its scripts have run.

        Raises BrowserError if it cannot be loaded; the caller bounds the time.
        """
        for domain in ("Inspector", "Runtime", "Page"):
            await self._ask(f"{domain}.enable")
        for wait_s in (*AGAIN_AFTER_S, None):
            self._loaded.clear()
            answer = await self._ask("Page.navigate", url=url)
            why = answer.get("errorText")
            if not why:
                break
            if wait_s is None or why != NETWORK_CHANGED:
                raise BrowserError(f"{url} did not load: {why}")
            await asyncio.sleep(wait_s)
        await self._loaded.wait()
        if self.gone:
            raise TabGoneError(self.gone)

    async def evaluate(self, expression: str) -> Any:
        """Return an expression's value, or what its promise comes to, by way of JSON.

        Raises TabGoneError, or BrowserError with what the expression threw.
        """
        answer = await self._ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if details := answer.get("exceptionDetails"):
            raise BrowserError(_thrown(details))
        return answer["result"].get("value")

    async def close(self) -> None:
        """Close the tab, without its leave; one that is gone already is as good."""
        with contextlib.suppress(TabGoneError):
            await self._browser.send("Target.closeTarget", targetId=self._target)

    def lose(self, how: str) -> None:
        """Take the tab for gone: nothing that was asked of it is answered any more."""
        if self.gone:
            return
        self.gone = how
        self._loaded.set()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(TabGoneError(how))
        self.on_lost(how)

    def hear(self, message: dict[str, Any]) -> None:
        """Take what the tab says over its session: an answer or an event."""
        if (future := self._asked.get(message.get("id", 0))) is not None:
            if not future.done():
                future.set_result(message)
        elif message.get("method") == "Inspector.targetCrashed":
            self.lose("crashed")
        elif message.get("method") == "Page.loadEventFired":
            self._loaded.set()
        elif message.get("method") == "Runtime.exceptionThrown":
            self.on_error(_thrown(message["params"]["exceptionDetails"]))

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        if self.gone:
            raise TabGoneError(self.gone)
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        text = json.dumps({"id": number, "method": method, "params": parameters})
        try:
            await self._browser.send(
                "Target.sendMessageToTarget", sessionId=self._session, message=text
            )
            answer = await future
        finally:
            del self._asked[number]
            if future.done() and not future.cancelled():
                future.exception()  # so that one which nobody waited for is no complaint
        if error := answer.get("error"):
            raise BrowserError(f"Chromium refused {method}: {error.get('message')}")
        result: dict[str, Any] = answer["result"]
        return result


@dataclass(eq=False)
class TabContext:
    """A browser context of the load's own, with so many tabs in it or about to be."""

    browser: TabBrowser
    name: str
    tabs: int = 0

    async def open(self) -> Tab:
        """Open an empty tab in this context."""
        return await self.browser.open(self.name)


class TabBrowser:
    """A browser that Playwright started, with a session of its own to open tabs over."""

    def __init__(self, browser: Browser, session: CDPSession) -> None:
        self.playwright = browser
        self.contexts = 0
        self._session = session
        self._tabs: dict[str, Tab] = {}
        session.on("Target.receivedMessageFromTarget", self._hear)
        session.on("Target.detachedFromTarget", self._detached)
        browser.on("disconnected", lambda _browser: self._disconnected())

    @classmethod
    async def over(cls, browser: Browser) -> Self:
        """Attach to a browser that has just been started."""
        return cls(browser, await browser.new_browser_cdp_session())

    @property
    def is_connected(self) -> bool:
        """Whether the browser lives."""
        return self.playwright.is_connected()

    async def new_context(self) -> TabContext:
        """Make a context that Playwright does not know; it ends with the browser."""
        self.contexts += 1
        made = await self.send("Target.createBrowserContext", disposeOnDetach=True)
        return TabContext(self, made["browserContextId"])

    async def open(self, context: str) -> Tab:
        """Open an empty tab in a context."""
        made = await self.send("Target.createTarget", url="about:blank", browserContextId=context)
        target = made["targetId"]
        # A flat session's messages would not reach us: Playwright knows none but its own.
        attached = await self.send("Target.attachToTarget", targetId=target, flatten=False)
        session = attached["sessionId"]
        tab = self._tabs[session] = Tab(self, target, session)
        return tab

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send the browser a command; raises TabGoneError if it refuses or is gone."""
        try:
            answer: dict[str, Any] = await self._session.send(method, parameters)
        except PlaywrightError as error:
            raise TabGoneError(f"is gone: {error.message.splitlines()[0]}") from error
        return answer

    def _hear(self, event: dict[str, Any]) -> None:
        if (tab := self._tabs.get(event["sessionId"])) is not None:
            tab.hear(json.loads(event["message"]))

    def _detached(self, event: dict[str, Any]) -> None:
        if (tab := self._tabs.pop(event["sessionId"], None)) is not None:
            tab.lose("was closed")

    def _disconnected(self) -> None:
        tabs, self._tabs = self._tabs, {}
        for tab in tabs.values():
            tab.lose("lost its browser")


def _thrown(details: dict[str, Any]) -> str:
    """Return what a script threw, in one line."""
    said = details.get("exception", {}).get("description") or details.get("text", "")
    return str(said).splitlines()[0] if said else "an exception without a message"
