"""Plays one phase of a journey in a real browser, and gives back the samples in the bucket."""

import asyncio
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from run_store.agent_config import AgentConfig
from run_store.messages import Line, Order, PhaseRef
from run_store.store import Store
from scenarios.model import Scenario
from worker_agent.browsers import Browsers
from worker_agent.clock import RunClock
from worker_agent.journey import load_journey
from worker_agent.journey_load import JourneyLoad
from worker_agent.recording import Recording
from worker_agent.spool import Spool

HERE = Path(__file__).parent
Row = dict[str, Any]


@dataclass
class Played:
    """What one phase left in the bucket, by kind, and how long after its end it was settled."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    settled_s: float = 0.0

    def of(self, kind: str) -> list[Row]:
        """Give the rows of a kind."""
        return self.rows.get(kind, [])

    def events(self, connection: int = 0) -> list[str]:
        """Give a connection's events in their order, `cause` behind a hyphen."""
        return [
            "-".join(filter(None, (row["event"], row["cause"])))
            for row in self.of("connections")
            if row["connection"] == connection
        ]

    def errors(self) -> set[str]:
        """Give the types of all errors."""
        return {row["type"] for row in self.of("errors")}


def looks_for_edits(load: JourneyLoad) -> bool:
    """Say whether any user is still watched for the others' edits."""
    return any(user.is_looking for user in load._users.values())  # noqa: SLF001 - nobody tells


@dataclass(frozen=True)
class Stage:
    """Where journeys are played: a browser, a spool, its store and a relay's address."""

    browsers: Browsers
    spool: Spool
    store: Store
    run_id: str
    relay_url: str = "ws://127.0.0.1:9"

    async def play(
        self,
        journey: str,
        *,
        users: int = 1,
        edits_per_s: float = 2.0,
        duration_s: float = 1.0,
        timeout_s: float = 1.0,
        drop_share: float = 0.0,
        wait: bool = True,
        patient: bool = True,
    ) -> Played:
        """Have all users enter, make the edits of one phase, and leave.

        Without `wait` the phase begins when the users begin to enter. It is ended once its time is
        over and, where the play is `patient`, everything is made and seen and all users are back:
        on a busy machine that comes later.
        """
        clock = RunClock()
        recording = Recording(self.spool, clock.now_us)
        scenario = self._scenario(journey, users)
        load = JourneyLoad(
            config=AgentConfig(
                run_id=self.run_id,
                attempt=1,
                worker="w",
                store=self.store.address,
                relay_url=self.relay_url,
                scenario=scenario.model_dump(mode="json", by_alias=True),
                spool=self.spool.folder,
            ),
            scenario=scenario,
            browsers=self.browsers,
            recording=recording,
            clock=clock,
            journey=load_journey(scenario.journey),
            timeout_s=timeout_s,
        )
        order = Order(
            number=1,
            attempt=1,
            action="run",
            starts_at_us=clock.now_us(),
            duration_s=duration_s,
            phase=PhaseRef(index=0, name="phase", kind="sustained"),
            connections=Line(start=users, end=users),
            edits_per_s=Line(start=edits_per_s, end=edits_per_s),
            slots=["w"],
            drop_share=drop_share,
        )
        recording.phase = "00-phase"
        if wait:
            idle = {"edits_per_s": Line(start=0, end=0), "drop_share": 0.0, "duration_s": 60.0}
            await load.prepare(order.model_copy(update=idle))
            async with asyncio.timeout(120):
                while True:
                    (state,) = await load.tick()
                    if state.open == users:
                        break
                    await asyncio.sleep(0.05)
            await load.settle()
        now_us = clock.now_us()
        await load.prepare(order.model_copy(update={"number": 2, "starts_at_us": now_us}))
        end_us = now_us + round(duration_s * 1e6)
        deadline_us = end_us + round(30e6 if patient else 0)
        while clock.now_us() < end_us or (
            clock.now_us() < deadline_us
            and (recording.outstanding or state.open < users or looks_for_edits(load))
        ):
            await asyncio.sleep(0.1)
            (state,) = await load.tick()
        settling_us = clock.now_us()
        await load.settle()
        settled_s = (clock.now_us() - settling_us) / 1e6
        await load.check_replicas()
        await load.close()
        return Played(await asyncio.to_thread(self._shipped), settled_s)

    def _scenario(self, journey: str, users: int) -> Scenario:
        return Scenario.model_validate(
            {
                "name": "journey",
                "journey": journey,
                "isolation": "context",
                "connections": users,
                "phases": {"phase": {"kind": "sustained", "duration": 1}},
            }
        )

    def _shipped(self) -> dict[str, list[Row]]:
        self.spool.freeze()
        self.spool.ship()
        rows: dict[str, list[Row]] = {}
        for key in self.store.keys(f"runs/{self.run_id}/samples/"):
            body = self.store.get(key)
            assert body is not None
            kind = key.split("/")[3]
            rows.setdefault(kind, []).extend(pq.read_table(io.BytesIO(body)).to_pylist())
        return rows
