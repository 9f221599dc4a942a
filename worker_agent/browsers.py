"""The worker's Chromium processes, their contexts and pages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from playwright.async_api import BrowserContext, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError

from run_store.errors import BrowserError
from scenarios.model import SOCKETS_PER_CONTEXT, Isolation
from worker_agent.assets import Assets
from worker_agent.clock import RunClock
from worker_agent.page_client import PageClient
from worker_agent.tabs import TabBrowser, TabContext, TabGoneError

log = logging.getLogger(__name__)

CONNECTIONS_PER_BROWSER = 600
"""All sockets of a browser go through its one network process; another browser shares them."""
LAUNCH_TIMEOUT_MS = 60_000
CLOSE_WITHIN_S = 5.0
PAGES_OPENED_AT_ONCE = 4


@dataclass(frozen=True)
class Housing:
    """How connections are housed: pages of so many, contexts of so many pages."""

    isolation: Isolation
    connections_per_page: int

    @property
    def page_capacity(self) -> int:
        """Connections in one page."""
        return self.connections_per_page if self.isolation == "shared" else 1

    @property
    def pages_per_context(self) -> int:
        """Pages in one context."""
        return (
            1 if self.isolation == "context" else max(1, SOCKETS_PER_CONTEXT // self.page_capacity)
        )

    def pages_for(self, connections: int) -> int:
        """Return how many pages so many connections need."""
        return math.ceil(connections / self.page_capacity)


def launch_arguments(*, own_page: bool = False) -> list[str]:
    """Return Chromium's switches, beyond those that Playwright gives.

    A user's own page is run as any browser runs it.
    """
    arguments = [
        "--enable-precise-memory-info",
        "--disable-quic",
        "--disable-features=Translate,OptimizationHints,MediaRouter",
        "--disable-dev-shm-usage",
    ]
    if not own_page:
        # The manifest is fetched from the relay's origin whatever its CORS headers say.
        arguments.append("--disable-web-security")
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    return arguments


class Browsers:
    """A context manager over all pages; `settings` is what each page is started with."""

    def __init__(
        self, *, housing: Housing, chromium: Path, clock: RunClock, settings: dict[str, Any]
    ) -> None:
        self.housing = housing
        self.pages: list[PageClient] = []
        self.on_lost: Callable[[PageClient], None] = lambda _page: None
        self.on_browser_lost: Callable[[], None] = lambda: None
        self._chromium = chromium
        self._clock = clock
        self._settings = settings
        self._stack = AsyncExitStack()
        self._browsers: list[TabBrowser] = []
        self._contexts: list[TabContext] = []
        self._gone: list[PageClient] = []
        self._closing = False
        self._opened = 0
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._assets = self._stack.enter_context(Assets())
        self._playwright: Playwright = await self._stack.enter_async_context(async_playwright())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        for browser in self._browsers:
            try:
                async with asyncio.timeout(10):
                    await browser.playwright.close()
            except (TimeoutError, PlaywrightError) as problem:
                log.warning("a browser did not close: %s", problem)
        await self._stack.aclose()

    async def house(self, connections: int) -> None:
        """Open pages until so many connections have room.

        Raises BrowserError if Chromium does not start or a page does not load.
        """
        while (room := sum(page.capacity for page in self._alive())) < connections:
            wanted = self.housing.pages_for(connections - room)
            await asyncio.gather(*(self._open() for _ in range(min(wanted, PAGES_OPENED_AT_ONCE))))

    def houses(self, connection: int) -> bool:
        """Say whether a connection has a page."""
        return any(connection in page.connections for page in self._alive())

    def page_of(self, connection: int) -> PageClient | None:
        """Return the page that houses a connection: its own, or else the emptiest, if any lives."""
        alive = list(self._alive())
        for page in alive:
            if connection in page.connections:
                return page
        if not alive:
            return None
        page = min(alive, key=lambda one: len(one.connections) / one.capacity)
        page.connections.add(connection)
        return page

    async def new_context(self) -> BrowserContext:
        """Return a browser context of its own, for a page that is a user's and not ours.

        The caller closes it. Raises BrowserError if Chromium does not start or is gone.
        """
        async with self._lock:
            browser = await self._browser(own_page=True)
        try:
            return await browser.playwright.new_context()
        except PlaywrightError as error:
            raise BrowserError(f"No browser context: {error.message.splitlines()[0]}") from error

    async def retire(self, page: PageClient) -> None:
        """Close a page for good, on purpose: nobody is told that it was lost."""
        self.pages.remove(page)
        page.lost = "was retired"
        page.home.tabs -= 1
        await page.tab.close()

    def _alive(self) -> Iterator[PageClient]:
        return (page for page in self.pages if not page.lost)

    async def _open(self) -> PageClient:
        self._opened += 1
        name = f"page {self._opened}"
        home = await self._context()
        tab = None
        try:
            async with asyncio.timeout(LAUNCH_TIMEOUT_MS / 1000):
                tab = await home.open()
                client = PageClient(tab, home, self.housing.page_capacity, name)
                tab.on_lost = lambda how: self._lose(client, how)
                tab.on_error = lambda error: log.warning("%s: %s", name, error)
                await tab.load(self._assets.url)
            await client.start(
                self._settings,
                f"{self._assets.url}automerge.wasm",
                timeout_s=LAUNCH_TIMEOUT_MS / 1000,
            )
            await client.calibrate(self._clock)
        except (BrowserError, TimeoutError) as error:
            home.tabs -= 1
            if tab is not None:
                await tab.close()
            why = f"nothing came within {LAUNCH_TIMEOUT_MS / 1000:g} s"
            raise BrowserError(f"{name} did not load: {str(error) or why}") from error
        self.pages.append(client)
        return client

    async def give_up(self, client: PageClient) -> None:
        """Take a page that does not answer for lost, and end it."""
        self._lose(client, client.lost)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await client.tab.close()

    def _lose(self, client: PageClient, how: str) -> None:
        if client in self.pages and client not in self._gone and not self._closing:
            self._gone.append(client)
            client.home.tabs -= 1
            client.lost = client.lost or how
            self.on_lost(client)

    def _browser_ended(self) -> None:
        if not self._closing:
            self.on_browser_lost()

    async def _context(self) -> TabContext:
        """Return a context with room for one more tab, which is taken at once."""
        async with self._lock:
            self._contexts = [one for one in self._contexts if one.browser.is_connected]
            for context in self._contexts:
                if context.tabs < self.housing.pages_per_context:
                    break
            else:
                browser = await self._browser()
                try:
                    context = await browser.new_context()
                except TabGoneError as error:
                    raise BrowserError(f"No browser context: the browser {error}") from error
                self._contexts.append(context)
            context.tabs += 1
            return context

    async def _browser(self, *, own_page: bool = False) -> TabBrowser:
        alive = [browser for browser in self._browsers if browser.is_connected]
        sockets = self.housing.page_capacity * self.housing.pages_per_context
        room = max(1, CONNECTIONS_PER_BROWSER // sockets)
        for browser in alive:
            if browser.contexts + len(browser.playwright.contexts) < room:
                return browser
        try:
            started = await self._playwright.chromium.launch(
                executable_path=self._chromium,
                args=launch_arguments(own_page=own_page),
                timeout=LAUNCH_TIMEOUT_MS,
                # Signals reach the agent, and the agent closes its browsers.
                handle_sigint=False,
                handle_sigterm=False,
                handle_sighup=False,
            )
            browser = await TabBrowser.over(started)
        except PlaywrightError as error:
            said = error.message.strip().splitlines()
            raise BrowserError(
                f"Chromium at {self._chromium} does not start: {said[0] if said else 'no reason'}",
                hint="Run it by hand with --headless --dump-dom about:blank to see why.",
            ) from error
        started.on("disconnected", lambda _browser: self._browser_ended())
        self._browsers.append(browser)
        return browser
