"""What a capacity search found, and what a calibration did: messages in the bucket."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from run_store.messages import Message

Over = Literal["connections", "edits", "both"]
Subject = Literal["relay", "generator"]
Kind = Literal["between", "at_least", "below", "died", "unknown"]
LETS_IN, LIVES = "the relay lets every connection in", "the relay lives"
KEEPS_TIME = "the worker keeps its schedule"
"""What gives way where a relay refuses or dies, or a worker is late; else it is an objective."""
HISTORY = "history/capacity/"
CALIBRATIONS = "calibrations/"


class CapacityResult(Message):
    """`capacity.json`: the answer of a search, with what it rests on.

    Loads are connections, or edits a second for the whole fleet where `over` is `edits`. Where
    it is `both`, edits grow in proportion with the connections, which are the load.

    `between`: the capacity lies from `low` to `high`, most likely at `capacity`. `at_least`: it
    is `low` or more. `below`: it is less than `high`. `died`: the relay died at `high`; it had
    held `low`, if that is given, and `came_back` is False if it was waited for in vain.
    `unknown`: nothing could be believed.
    `last_good` and `first_bad` are numbers of steps; `sentence` says all of it. With the
    `generator` as its subject it is about one worker, and not about the relay. `members` is how
    many connections share a document; 0: all of them.
    """

    kind: Kind
    over: Over
    subject: Subject = "relay"
    members: int = 0
    capacity: float | None = None
    low: float | None = None
    high: float | None = None
    objective: str = ""
    why: str = ""
    explanation: str = ""
    sentence: str = ""
    is_precise: bool = True
    precision: float = 0.05
    start: float = 0.0
    limit: float = 0.0
    connections: int = 0
    edits_per_s: float = 0.0
    phase: str = ""
    steps: int = 0
    last_good: int | None = None
    first_bad: int | None = None
    started_us: int = 0
    ended_us: int = 0
    died_us: int | None = None
    came_back: bool | None = None

    @property
    def title(self) -> str:
        """What it is called: a worker's is a calibration."""
        return "Capacity" if self.subject == "relay" else "Calibration"

    @property
    def unit(self) -> str:
        """What its loads count, in the plural."""
        return "edits/s" if self.over == "edits" else "connections"


class Calibration(Message):
    """`calibrations/<scenario>/<worker kind>.json`: what one worker holds before it is late.

    `connections` held, with the edits and the documents of the scenario named; `is_at_least`
    says that something else than the worker ended the search. `load` are the scenario's fields
    that change what a connection costs a worker.
    """

    scenario: str
    worker_kind: str
    connections: int
    edits_per_s: float
    is_at_least: bool = False
    why: str = ""
    measured_us: int = 0
    run_id: str = ""
    load: dict[str, Any] = Field(default_factory=dict)
    connections_per_document: int = 0
    sentence: str = ""


def calibration_key(scenario: str, worker_kind: str) -> str:
    """Return where the calibration of a kind of worker on a scenario stands."""
    return f"{CALIBRATIONS}{_plain(scenario)}/{_plain(worker_kind)}.json"


def history_key(run_id: str) -> str:
    """Return where the line that a run adds to the history stands."""
    return f"{HISTORY}{run_id}.parquet"


def _plain(name: str) -> str:
    """Return a name that can be part of a key."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name) or "unnamed"
