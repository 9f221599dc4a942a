"""An order's load, carried out by users of a journey: each on their own page, in their own context.

The agent itself plays the schedule here, since a page that is not ours cannot: an edit begins
when its call is made and is acknowledged when that call returns, both on the agent's clock.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from run_store.agent_config import AgentConfig
from run_store.messages import Order
from run_store.schedule import plan_of
from scenarios.model import Scenario
from worker_agent.agenda import Event
from worker_agent.base_load import CONVERGE_AT_MOST_S, SETTLE_AT_MOST_S, BaseLoad
from worker_agent.browsers import Browsers
from worker_agent.clock import RunClock
from worker_agent.document_ids import document_id
from worker_agent.journey import Journey, User, load_journey
from worker_agent.late import TakesUpLate
from worker_agent.load import Load
from worker_agent.page_client import PageState
from worker_agent.recording import Recording
from worker_agent.row_buffer import RowBuffer
from worker_agent.user_session import OPERATION_TIMEOUT_S, Made, UserSession

HEALTHY_S = 1.0
"""A user whose edit takes longer than this is not healthy."""
_LAST_ROWS_S = 2.0


async def open_load(
    *,
    config: AgentConfig,
    scenario: Scenario,
    browsers: Browsers,
    recording: Recording,
    clock: RunClock,
) -> TakesUpLate:
    """Return the load that a scenario asks for, with its pages open or a browser that starts.

    Raises ScenarioError if the scenario's journey cannot be run, and BrowserError if Chromium
    does not start.
    """
    if scenario.journey:
        journey = load_journey(scenario.journey)
        context = await browsers.new_context()
        await context.close()
        return _Users(
            config=config,
            scenario=scenario,
            browsers=browsers,
            recording=recording,
            clock=clock,
            journey=journey,
        )
    share = -(-scenario.peak_connections // scenario.fleet.workers)
    await browsers.house(max(1, share))
    return _Pages(
        config=config, scenario=scenario, browsers=browsers, recording=recording, clock=clock
    )


class JourneyLoad(BaseLoad):
    """Keeps this worker's users on the plan of the order in force."""

    def __init__(
        self,
        *,
        config: AgentConfig,
        scenario: Scenario,
        browsers: Browsers,
        recording: Recording,
        clock: RunClock,
        journey: Journey,
        timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        # A user's page stays on its document: no generation follows the first.
        plan = replace(plan_of(scenario), edits_per_document=sys.maxsize)
        super().__init__(config=config, plan=plan, recording=recording, clock=clock)
        self._browsers = browsers
        self._journey = journey
        self._timeout_s = timeout_s
        self._rows = RowBuffer(clock, scenario.deliveries_recorded_per_s)
        self._users: dict[int, UserSession] = {}
        self._parting: set[UserSession] = set()
        self._player: asyncio.Task[None] | None = None

    async def prepare(self, order: Order) -> None:
        """Compute an order's agenda and begin to play it; returns before it begins."""
        agenda = await self._take(order)
        self._player = self._start(self._play(order, agenda.events))

    async def tick(self) -> list[PageState]:
        """Record the samples since the last call; return one state for all users together."""
        self._recording.take(self._rows.drain())
        users = list(self._users.values())
        inside = [user for user in users if user.is_in]
        state = PageState(
            atUs=self._clock.now_us(),
            lagMs=0.0,
            wanted=len(users),
            open=len(inside),
            synced=len(inside),
            healthy=sum(user.busy_s < HEALTHY_S for user in inside),
            attempted=sum(user.tries > 0 for user in users),
            pending=sum(user.is_busy for user in self._everyone()),
            heapBytes=0,
            memoryBytes=0,
        )
        return [state]

    async def settle(self) -> None:
        """End a phase: what was not begun is missed, what is being made has a little time left."""
        if self._player is not None:
            self._player.cancel()
        for user in self._everyone():
            user.give_up_unstarted()
        await self._idle_within(SETTLE_AT_MOST_S)
        for user in self._everyone():
            user.give_up_edit(f"it had not returned {SETTLE_AT_MOST_S:g} s after its phase's end")
        await self._idle_within(_LAST_ROWS_S)
        await self.tick()
        self._recording.missed()

    async def check_replicas(self) -> None:
        """Compare what all users' pages show, if the journey has a `state` that says it."""
        if self._journey.state is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONVERGE_AT_MOST_S
        while True:
            users = [user for user in self._users.values() if user.is_in]
            states = await asyncio.gather(*(user.state() for user in users))
            shown = {(user.user.document, state) for user, state in zip(users, states, strict=True)}
            agreed = None not in states and len(shown) == len({document for document, _ in shown})
            waiting = any(user.is_looking for user in users)
            if (agreed and not waiting) or loop.time() > deadline:
                break
            await asyncio.sleep(0.2)
        for user, state in zip(users, states, strict=True):
            if state is None:
                continue
            self._rows.add(
                "replicas",
                at_us=self._clock.now_us(),
                connection=user.user.connection,
                document=user.user.document,
                generation=0,
                in_sync=not user.is_looking,
                heads=state,
                edits=None,
                missing=sorted(user.not_shown)[:1000],
                changed_us=user.changed_us,
            )
        await self.tick()

    async def close(self) -> None:
        """Have all users leave, each with the journey's teardown; record the last samples."""
        if self._player is not None:
            self._player.cancel()
        await asyncio.gather(*(user.leave() for user in self._everyone()))
        self._users.clear()
        await self.tick()

    async def _play(self, order: Order, events: list[Event]) -> None:
        for event in events:
            at_us = order.starts_at_us + round(event.at_s * 1e6)
            await self._clock.sleep_until(at_us)
            user = self._users.get(event.connection)
            if event.kind == "open" and user is None:
                self._users[event.connection] = self._open(event)
            elif user is None:
                continue
            elif event.kind == "edit":
                user.edit(event.edit, at_us)
            elif event.kind == "drop":
                user.drop()
            elif event.kind == "close":
                self._start(self._part(self._users.pop(event.connection)))

    def _open(self, event: Event) -> UserSession:
        config = self._config
        return UserSession(
            user=User(
                connection=event.connection,
                document=event.document,
                worker=config.worker,
                relay_url=config.relay_url,
                run_id=config.run_id,
                document_id=document_id(config.run_id, config.attempt, event.document, 0),
            ),
            journey=self._journey,
            browsers=self._browsers,
            rows=self._rows,
            clock=self._clock,
            named=self._named,
            timeout_s=self._timeout_s,
        )

    def _named(self, writer: UserSession, made: Made, token: str) -> list[asyncio.Task[None]]:
        """Have every other user of the writer's document look for an edit."""
        tasks = []
        for user in self._users.values():
            if user is writer or not user.is_in or self._journey.observe is None:
                continue
            if user.user.document != writer.user.document:
                continue
            weight = self._rows.delivery_weight()
            if weight is not None:
                tasks.append(user.look(made, token, weight))
        return tasks

    async def _part(self, user: UserSession) -> None:
        self._parting.add(user)
        try:
            await user.leave()
        finally:
            self._parting.discard(user)

    def _everyone(self) -> list[UserSession]:
        return [*self._users.values(), *self._parting]

    async def _idle_within(self, limit_s: float) -> None:
        """Wait until no user makes an edit, but no longer than that."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while True:
            if not any(user.is_busy for user in self._everyone()) or loop.time() > deadline:
                return
            await asyncio.sleep(0.05)


class _Pages(TakesUpLate, Load):
    """The load of connections in pages of ours, which can be taken up late."""


class _Users(TakesUpLate, JourneyLoad):
    """The load of users on pages of their own, which can be taken up late."""
