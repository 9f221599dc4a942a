"""An order's load, carried out by the pages of this worker."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from run_store.agent_config import AgentConfig
from run_store.errors import BrowserError
from run_store.messages import Order
from run_store.schedule import plan_of, slot_of
from scenarios.model import Scenario
from worker_agent.agenda import Event
from worker_agent.base_load import CONVERGE_AT_MOST_S, SETTLE_AT_MOST_S, BaseLoad
from worker_agent.browsers import Browsers
from worker_agent.clock import RunClock
from worker_agent.document_ids import document_id
from worker_agent.late import left_of
from worker_agent.page_client import PageClient, PageLostError, PageState
from worker_agent.recording import Recording

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_MS = 10_000
DOCUMENT_TIMEOUT_MS = 20_000
REHOUSE_AFTER_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""When pages are tried for connections that lost theirs: a killed browser takes time to go."""
RETIRE_AFTER_S = 10.0
"""How long after its members have moved on a document is compared and left."""


def page_settings(config: AgentConfig, scenario: Scenario) -> dict[str, Any]:
    """Return what every page is started with."""
    scheme, _, rest = config.relay_url.partition("://")
    http = f"{'https' if scheme == 'wss' else 'http'}://{rest.rstrip('/')}"
    share = -(-scenario.peak_connections // scenario.fleet.workers)
    pages = max(1, -(-share // scenario.connections_per_page))
    network = scenario.network
    return {
        "worker": config.worker,
        "relay_url": config.relay_url,
        "manifest_url": f"{http}/.manifest.tonk",
        "bootstrap": scenario.bootstrap,
        "edit": scenario.edit,
        "payload_bytes": scenario.payload_bytes,
        "history": scenario.history,
        "handshake_timeout_ms": HANDSHAKE_TIMEOUT_MS,
        "document_timeout_ms": DOCUMENT_TIMEOUT_MS,
        "deliveries_per_s": scenario.deliveries_recorded_per_s / pages,
        "network": network
        and {
            "share": network.share,
            "latency_ms": network.latency_ms,
            "kilobits_per_s": network.kilobits_per_s,
            "offline_ms": network.offline_s * 1000,
        },
    }


class Load(BaseLoad):
    """Keeps this worker's pages on the plan of the order in force."""

    def __init__(
        self,
        *,
        config: AgentConfig,
        scenario: Scenario,
        browsers: Browsers,
        recording: Recording,
        clock: RunClock,
    ) -> None:
        super().__init__(config=config, plan=plan_of(scenario), recording=recording, clock=clock)
        self._browsers = browsers
        self._unhoused: set[int] = set()
        self._bringing_back = asyncio.Lock()
        browsers.on_lost = self._page_lost
        browsers.on_browser_lost = self._browser_lost

    async def prepare(self, order: Order) -> None:
        """Compute an order's agenda and give each page its part; returns before it begins."""
        await self._recycle()
        agenda = await self._take(order)
        await self._make_room(order)
        await self._give(agenda.events)
        if self._unhoused:
            self._start(self._bring_back())
        for move in agenda.moves:
            old = f"{move.document}:{move.to - 1}"
            at_us = order.starts_at_us + round((move.at_s + RETIRE_AFTER_S) * 1e6)
            self._start(self._retire(old, at_us))

    async def tick(self) -> list[PageState]:
        """Fetch and record every page's samples; return the pages' states."""
        pages = self._alive()
        answers = await asyncio.gather(*(page.drain() for page in pages), return_exceptions=True)
        states = []
        for page, answer in zip(pages, answers, strict=True):
            if isinstance(answer, BaseException):
                log.warning("a page gave no samples: %s", answer)
                if page.lost:
                    self._start(self._browsers.give_up(page))
                continue
            rows, state = answer
            page.memory_mb = state.memoryBytes / 2**20
            self._recording.take(rows)
            states.append(state)
        return states

    async def settle(self) -> None:
        """End a phase: wait for what is on its way, then write down what did not come."""
        deadline = asyncio.get_running_loop().time() + SETTLE_AT_MOST_S
        while True:
            pending = await self._sum(lambda page: page.settle(give_up=False))
            if pending == 0 or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.1)
        await self._sum(lambda page: page.settle(give_up=True))
        await self.tick()
        self._recording.missed()

    async def check_replicas(self) -> None:
        """Compare all replicas, once they are in sync with the relay or have had their time."""
        deadline = asyncio.get_running_loop().time() + CONVERGE_AT_MOST_S
        while asyncio.get_running_loop().time() < deadline:
            if await self._sum(PageClient.behind) == 0:
                break
            await asyncio.sleep(0.2)
        await self._each(lambda page: page.check(self._expected, leave=False))
        await self.tick()

    async def close(self) -> None:
        """Close all connections in order and record the last samples."""
        for task in self._tasks:
            task.cancel()
        await self._each(PageClient.close_all)
        await self.tick()

    async def _recycle(self) -> None:
        """Replace pages that have grown; their connections open again with the next order."""
        for page in self._alive():
            if page.memory_mb <= self._config.page_memory_mb:
                continue
            log.warning("%s holds %.0f MiB and is replaced", page.name, page.memory_mb)
            await page.close_all()
            rows, _ = await page.drain()
            self._recording.take(rows)
            housed = sum(len(other.connections) for other in self._alive())
            await self._browsers.retire(page)
            await self._browsers.house(housed)

    async def _make_room(self, order: Order) -> None:
        """Open the pages that an order's connections need beyond those that there are."""
        most = int(max(order.connections.start, order.connections.end))
        mine = sum(slot_of(connection, order) == self._config.worker for connection in range(most))
        try:
            await self._browsers.house(mine)
        except BrowserError as error:
            # Those that are there are shared by more then; the lateness says what that costs.
            self._recording.error(self._clock.now_us(), "browser_lost", str(error))

    async def _retire(self, document: str, at_us: int) -> None:
        await self._clock.sleep_until(at_us)
        expected = {document: self._expected.get(document, [])}
        await self._each(lambda page: page.check(expected, leave=True))

    async def _give(self, events: list[Event]) -> None:
        """Give each page the events of the connections that it houses."""
        order = self._order
        if order is None:
            return
        for_page: dict[int, tuple[PageClient, list[Event]]] = {}
        for event in events:
            if event.kind == "close" and not self._browsers.houses(event.connection):
                continue  # nothing to close, and no room to be taken for it
            page = self._browsers.page_of(event.connection)
            if page is None:  # every page is lost; the next that opens is given this
                self._unhoused.add(event.connection)
                continue
            for_page.setdefault(id(page), (page, []))[1].append(event)
        names = sorted({(event.document, event.generation) for event in events})
        documents = [
            (f"{document}:{generation}", *self._document(document, generation))
            for document, generation in names
        ]
        for page, its_events in for_page.values():
            try:
                await page.plan(order.starts_at_us, its_events, documents)
            except PageLostError as error:
                log.warning("a page was lost as it was given its plan: %s", error)

    def _document(self, document: int, generation: int) -> tuple[str, int]:
        name = document_id(self._config.run_id, self._config.attempt, document, generation)
        return name, document * self._plan.connections_per_document

    def _browser_lost(self) -> None:
        """Record that a browser ended, which may have had no page yet; its pages tell their own."""
        self._recording.error(self._clock.now_us(), "browser_lost", "a browser ended by itself")

    def _page_lost(self, page: PageClient) -> None:
        log.warning("%s %s, with %d connections", page.name, page.lost, len(page.connections))
        at_us = self._clock.now_us()
        self._recording.error(at_us, "page_lost", f"{page.name} {page.lost}")
        self._start(self._rehouse(page, at_us))

    async def _rehouse(self, lost: PageClient, at_us: int) -> None:
        """Bring a lost page's connections back on another, with what is left of the plan."""
        order = self._order
        if order is None:
            return
        for connection in sorted(lost.connections):
            self._recording.row(
                "connections",
                at_us=at_us,
                connection=connection,
                document=None,
                generation=None,
                event="dropped",
                duration_ms=None,
                tries=None,
                cause="page_lost",
            )
        self._unhoused |= lost.connections
        await self._bring_back()

    async def _bring_back(self) -> None:
        """Give the connections that have no page what is left of the order in force."""
        async with self._bringing_back:
            if not self._unhoused or not await self._house_again() or self._order is None:
                return
            connections, self._unhoused = self._unhoused, set()
            now_s = (self._clock.now_us() - self._order.starts_at_us) / 1e6
            left = left_of(self._agenda, now_s)
            await self._give([event for event in left if event.connection in connections])

    async def _house_again(self) -> bool:
        """Open pages for the connections that have none, until they have room or it is hopeless."""
        for wait_s in REHOUSE_AFTER_S:
            await asyncio.sleep(wait_s)
            alive = sum(len(page.connections) for page in self._alive())
            try:
                await self._browsers.house(alive + len(self._unhoused))
            except BrowserError as error:
                self._recording.error(self._clock.now_us(), "browser_lost", str(error))
            else:
                return True
        return False

    def _alive(self) -> list[PageClient]:
        return [page for page in self._browsers.pages if not page.lost]

    async def _each(self, action: Any) -> list[Any]:
        """Do something with each live page at once; a page that is lost meanwhile gives none."""
        answers = await asyncio.gather(
            *(action(page) for page in self._alive()), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, PageLostError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _sum(self, action: Any) -> int:
        return sum(await self._each(action))
