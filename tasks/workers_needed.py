"""How many workers a load needs, by what one of them was seen to hold: pure functions.

A worker is never asked for more connections, edits or deliveries a second than the calibrated
one held: which of the three made that one late is not known, so all three bound it. A scenario
needs as many workers as its most demanding phase.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

from run_store.capacity import Calibration
from scenarios.model import Phase, Scenario
from tasks.cost import members_of_document

_OF_A_CONNECTION = (
    "isolation",
    "connections_per_page",
    "edit",
    "payload_bytes",
    "edits_per_document",
    "history",
    "pacing",
    "bootstrap",
    "network",
    "deliveries_recorded_per_s",
)
"""What changes what a connection costs a worker, beside how many share its document."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Demand:
    """What is asked of workers together: connections, and edits and deliveries a second."""

    connections: float
    edits_per_s: float
    deliveries_per_s: float

    @classmethod
    def of(cls, scenario: Scenario, connections: float, edits_per_s: float) -> Demand:
        """Return what so many connections with so many edits ask for, on a scenario's documents."""
        others = max(members_of_document(scenario, connections) - 1, 0)
        return cls(connections, edits_per_s, edits_per_s * others)

    @classmethod
    def of_phase(cls, scenario: Scenario, phase: Phase) -> Demand:
        """Return the most that a phase is known to ask for."""
        connections = scenario.most_connections_in(phase)
        return cls.of(scenario, connections, phase.most_edits_per_minute / 60)

    def workers(self, held: Demand) -> int:
        """Return how many workers make this, if one makes what is `held`."""
        pairs = (
            (self.connections, held.connections),
            (self.edits_per_s, held.edits_per_s),
            (self.deliveries_per_s, held.deliveries_per_s),
        )
        # What was not measured bounds nothing.
        times = [asked / one for asked, one in pairs if one > 0]
        return max(1, math.ceil(max(times, default=1.0) - _ROUNDING))


@dataclass(frozen=True)
class WorkersNeeded:
    """How many workers a scenario asks for, and how many it needs by a calibration.

    `goes_on`: its load rises above what could be counted. `shares_machine`: its workers are
    processes of one machine, where a further one brings no further cores. `is_search`: a search
    that saturates its workers has an answer all the same.
    """

    asked: int
    needed: int
    calibration: Calibration
    goes_on: bool = False
    shares_machine: bool = False
    is_search: bool = False

    @property
    def is_too_few(self) -> bool:
        """Whether the scenario asks for fewer than the calibration says that it needs.

        One that says "at least" shows what is enough, and never that less is too little.
        """
        return self.asked < self.needed and not self.calibration.is_at_least and not self.is_search

    @property
    def date(self) -> str:
        """The day of the calibration, in UTC."""
        return f"{dt.datetime.fromtimestamp(self.calibration.measured_us / 1e6, dt.UTC):%Y-%m-%d}"

    @property
    def sentence(self) -> str:
        """Both numbers, the calibration that they rest on, and what to do if they differ."""
        known = self.calibration
        bound = "at least " if known.is_at_least else ""
        step = " for the first step of its load" if self.goes_on else ""
        text = (
            f"{self.needed} worker{'' if self.needed == 1 else 's'}{step} by the calibration of "
            f"{self.date} on {known.worker_kind}, of which one holds {bound}"
            f"{known.connections:,} connections at {known.edits_per_s:.3g} edits/s; "
        )
        if self.is_search:
            text += f"the search has {self.asked}"
            if self.asked < self.needed:
                text += ', and says "at least" if they are at their end before the relay'
            return text
        text += f"the scenario asks for {self.asked}"
        if self.asked >= self.needed:
            return text
        if not self.is_too_few:
            return f"{text}, which may be enough"
        if self.shares_machine:
            return f"{text}, which is too few, and more would share this machine's cores"
        return f"{text}, which is too few: --set fleet.workers={self.needed}"


def workers_needed(
    scenario: Scenario, kind: str, known: Calibration, *, is_search: bool = False
) -> WorkersNeeded:
    """Return how many workers a scenario needs by a calibration, on a kind of fleet."""
    held = held_by_one(scenario, known)
    return WorkersNeeded(
        asked=scenario.fleet.workers,
        needed=max(Demand.of_phase(scenario, phase).workers(held) for phase in scenario.phases),
        calibration=known,
        goes_on=any(map(_goes_on, scenario.phases)),
        shares_machine=kind == "local",
        is_search=is_search,
    )


def held_by_one(scenario: Scenario, known: Calibration) -> Demand:
    """Return what the worker of a calibration held: it had its scenario's documents to itself."""
    then = scenario.model_copy(update={"connections_per_document": known.connections_per_document})
    return Demand.of(then, known.connections, known.edits_per_s)


def load_of(scenario: Scenario) -> dict[str, Any]:
    """Return what two scenarios must have in common for one's calibration to hold for the other."""
    given = scenario.model_dump(mode="json")
    return {name: given[name] for name in _OF_A_CONNECTION}


def why_unlike(scenario: Scenario, known: Calibration) -> str:
    """Return what a calibration was made with that this scenario has not; empty if it fits."""
    now = load_of(scenario)
    unlike = [
        f"{name} {_shown(then)} and not {_shown(now[name])}"
        for name, then in known.load.items()
        if name in now and now[name] != then
    ]
    return ", ".join(unlike)


def _goes_on(phase: Phase) -> bool:
    """Say whether a phase's steps go on to where nobody said."""
    connections = phase.step_connections > 0 or phase.step_factor > 1
    return phase.kind == "stress" and (
        (connections and phase.max_connections is None)
        or (phase.step_edits_per_minute > 0 and phase.max_edits_per_minute is None)
    )


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={entry}" for key, entry in value.items())
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
