"""What a capacity search asks of a run: a scenario derived from the user's. Pure functions.

It warms up at the load that it begins with, searches in one stress phase, and cools down. The
objectives are the scenario's, as lines that end a step: they bound the capacity, and say nothing
about the run as a whole, which is meant to reach what the relay cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from run_store.capacity import Calibration, Over, Subject
from run_store.errors import UsageError
from scenarios.durations import format_duration, parse_duration_s
from scenarios.model import MOST_CONNECTIONS, FleetSpec, Scenario
from scenarios.objectives import Objective, parse_objective
from tasks.cost import members_of_document
from tasks.search import FACTOR
from tasks.search_answer import Quest
from tasks.stop_rule import samples_needed
from tasks.stress import CONNECTIONS_PER_S, SHORTEST_RAMP_S, Level
from tasks.workers_needed import workers_needed

PHASE = "search"
DEFAULT_OBJECTIVES = ("delivery_ms.p95 < 1000", "edits.error_rate < 0.05")
"""What a relay must hold where neither the caller nor the scenario says."""
LIMIT_FACTOR = 32
"""How far above its start a search goes if no limit is given."""
REPEATS = 4
"""So many steps may be taken again: doubtful ones, and the first that was missed."""
AROUND_A_STEP_S = 5.0
"""From a step's end to the next one's beginning: its last samples, and the next instant."""
WARM_UP_S = 5.0
COOL_DOWN_AT_MOST_S = 30.0
MOST_WORKERS = 200
MARGIN = 1.25
"""A step is planned with so many times the samples that its objectives need."""
LONGEST_HOLD_S = 300.0
"""A step that had to be held for longer, to be judged at all, is refused."""
_JUDGED = ("delivery_ms.", "acknowledgement_ms.", "edits.error_rate", "connections.health_score")
"""Metrics that mean the same in a step as in a run: no totals, no growth."""


@dataclass(frozen=True)
class Search:
    """What the caller of a search asked for; what is None comes from the scenario.

    `start` and `limit` are connections, or edits a second where `over` is `edits`. `connections`
    and `edits_per_s` are what stays the same: the connections of a search over edits, the edits
    of one over connections. `both` keeps the edits of each connection the same:
    the scenario's, unless `edits_per_s` says how many the first step has.
    """

    over: Over = "connections"
    start: float | None = None
    limit: float | None = None
    precision: float = 0.05
    connections: int | None = None
    edits_per_s: float | None = None
    hold_s: float = 20.0
    settle_s: float = 5.0
    objectives: tuple[str, ...] = ()
    subject: Subject = "relay"


@dataclass(frozen=True)
class SearchPlan:
    """A search, settled: the scenario that carries it out, and where its loads begin and end.

    `connections` and `edits_per_s` are those of its first step. `note` says what of it is not as
    the caller asked.
    """

    scenario: Scenario
    quest: Quest
    over: Over
    subject: Subject
    connections: int
    edits_per_s: float
    note: str = ""

    @property
    def index(self) -> int:
        """The place of the searching phase in the scenario."""
        return [phase.name for phase in self.scenario.phases].index(PHASE)

    def level(self, load: float) -> Level:
        """Return what a step at a load asks of the relay."""
        if self.over == "edits":
            return Level(self.connections, load)
        if self.over == "both":
            return Level(round(load), self.edits_per_s * load / self.connections)
        return Level(round(load), self.edits_per_s)


def planned_search(
    scenario: Scenario, search: Search, *, calibration: Calibration | None = None
) -> SearchPlan:
    """Return the plan of a search on a scenario.

    By a calibration a rented fleet is made as large as the limit asks for. Raises UsageError for
    a search that has nowhere to go, ScenarioError for objectives that no step can be judged by.
    """
    if scenario.journey:
        raise UsageError(
            "A capacity search needs the load's own client, and this scenario has a journey.",
            hint="Search on a scenario without one; run a journey with `relay-load run`.",
        )
    given = {"start": search.start, "limit": search.limit, "edits-per-s": search.edits_per_s}
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise UsageError(f"--{name} {value} is no load.", hint="Give a finite number.")
    connections = search.connections or scenario.peak_connections
    rate = search.edits_per_s
    if rate is None:
        rate = max(phase.edits_per_minute for phase in scenario.phases) / 60
    start = (
        search.start
        if search.start is not None
        else _start(search, connections, rate, workers=scenario.fleet.workers)
    )
    if search.over == "both" and search.edits_per_s is None:
        # Each connection edits as in the scenario.
        rate *= start / max(scenario.peak_connections, 1)
    quest = Quest(
        start=start,
        limit=search.limit if search.limit is not None else _limit(search.over, start),
        precision=search.precision,
        is_whole=search.over != "edits",
    )
    if search.over == "edits":
        rate = start
    elif quest.limit > MOST_CONNECTIONS or start != round(start):
        raise UsageError(
            f"A search over connections goes in whole steps up to {MOST_CONNECTIONS:,}.",
            hint="Give a whole --start, and a --limit below that.",
        )
    else:
        connections = round(start)
    if connections < 1 or rate <= 0:
        raise UsageError(
            f"With {connections:g} connections and {rate:g} edits/s nothing can be measured.",
            hint="Give --connections and --edits-per-s above zero, or a scenario that has them.",
        )
    most = connections if search.over == "edits" else round(quest.limit)
    asked_s = search.hold_s
    search = replace(search, hold_s=_long_enough_s(scenario, search, connections, rate))
    objectives = objectives_of(scenario, search)
    derived = {
        **scenario.model_dump(mode="json", by_alias=True),
        "connections": connections,
        "objectives": [],
        "phases": _phases(
            scenario,
            search,
            quest=quest,
            connections=connections,
            rate=rate,
            most=most,
            objectives=objectives,
        ),
    }
    carried_out = Scenario.model_validate(derived)
    return SearchPlan(
        scenario=carried_out.model_copy(update={"fleet": _fleet(carried_out, search, calibration)}),
        quest=quest,
        over=search.over,
        subject=search.subject,
        connections=connections,
        edits_per_s=rate,
        note=(
            f"each step is held for {format_duration(search.hold_s)} in place of "
            f"{format_duration(asked_s)}: at {rate:.3g} edits/s less cannot be judged"
            if search.hold_s > asked_s
            else ""
        ),
    )


def _long_enough_s(scenario: Scenario, search: Search, connections: int, rate: float) -> float:
    """Return how long a step is held: as asked, or until its objectives can be judged.

    The first step has the fewest edits, and while the load goes on only what a worker delivers to
    its own connections is known. Raises UsageError where that would take too long, or where
    nothing is delivered at all.
    """
    workers = scenario.fleet.workers if search.subject == "relay" else 1
    members = round(members_of_document(scenario, connections))
    delivered = rate * _others_beside(members, workers)
    needed_s = search.hold_s
    for one in map(parse_objective, objectives_of(scenario, search)):
        per_second = delivered if one.metric.startswith("delivery_ms.") else rate
        if per_second <= 0:
            raise UsageError(
                f"{members} connections on a document, over {workers} workers, show no worker an "
                f"edit of its own connections, and {one.metric} is to be judged by that.",
                hint="Give a larger --start, fewer workers, or objectives on acknowledgements.",
            )
        # A window of the objective's own is what it is judged in, however long a step is held.
        if one.window_s == search.hold_s:
            needed_s = max(needed_s, MARGIN * samples_needed(one.metric) / per_second)
    if needed_s > max(LONGEST_HOLD_S, search.hold_s):
        raise UsageError(
            f"At {rate:.3g} edits/s a step would have to be held for "
            f"{format_duration(needed_s)} until its objectives can be judged.",
            hint="Ask for more edits: --edits-per-s, or a scenario that has more.",
        )
    return float(math.ceil(needed_s)) if needed_s > search.hold_s else search.hold_s


def _others_beside(members: int, workers: int) -> float:
    """Return how many other members of a document are on the writer's own worker, on average.

    A document's connections follow one another, and go round the workers.
    """
    each, more = divmod(members, workers)
    pairs = more * (each + 1) * each + (workers - more) * each * (each - 1)
    return pairs / members


def search_from(*, hold: str = "20s", settle: str = "5s", **given: Any) -> Search:
    """Return the search that a flow's parameters ask for: durations are text. Raises UsageError."""
    objectives = tuple(given.pop("objectives", None) or ())
    hold_s, settle_s = _seconds("hold", hold), _seconds("settle", settle)
    return Search(hold_s=hold_s, settle_s=settle_s, objectives=objectives, **given)


def _seconds(name: str, text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no duration for {name}: {error}.", hint="Say 20s, or 1m30s."
        ) from None


def objectives_of(scenario: Scenario, search: Search) -> list[str]:
    """Return the lines that each step is judged by.

    The caller's; else those of the scenario that end a stress phase; else all of its own that a
    step can be judged by; else the project's.
    """
    if search.objectives:
        return _lines(map(parse_objective, search.objectives), search.hold_s)
    stress = {phase.name for phase in scenario.phases if phase.kind == "stress"}
    own = [one for one in scenario.parsed_objectives if one.metric.startswith(_JUDGED)]
    stopping = [one for one in own if one.stop and (one.phase is None or one.phase in stress)]
    found = _lines(stopping or own, search.hold_s)
    return found or _lines(map(parse_objective, DEFAULT_OBJECTIVES), search.hold_s)


def _lines(objectives: Iterable[Objective], hold_s: float) -> list[str]:
    """Return objectives as lines of the searching phase: the strictest of each metric."""
    strictest: dict[tuple[str, str], Objective] = {}
    for one in objectives:
        before = strictest.setdefault((one.metric, one.operator), one)
        below, above = sorted((before, one), key=lambda objective: objective.value)
        if one.operator in ("<", "<="):
            strictest[one.metric, one.operator] = below
        elif one.operator in (">", ">="):
            strictest[one.metric, one.operator] = above
    return [
        f"{one.metric} {one.operator} {_plain(one.value)} for {window} stop"
        for one in strictest.values()
        for window in [_length(one.window_s or hold_s)]
    ]


def _length(seconds: float) -> str:
    """Return a length of time as an objective's line takes it: exact, and without a space."""
    if seconds == round(seconds):
        return format_duration(seconds).replace(" ", "")
    return f"{_plain(seconds)}s"


def _plain(value: float) -> str:
    """Return a number as an objective's line takes it: exact, and without an exponent."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _phases(
    scenario: Scenario,
    search: Search,
    *,
    quest: Quest,
    connections: int,
    rate: float,
    most: int,
    objectives: list[str],
) -> list[dict[str, object]]:
    hold_s = max([search.hold_s, *(parse_objective(one).window_s or 0.0 for one in objectives)])
    steps = math.ceil(math.log(quest.limit / quest.start, FACTOR)) + 1
    steps += quest.steps_to_close + REPEATS
    rests = quest.steps_to_close + 1
    # All ways up and down together: once to the limit, then within ever smaller gaps.
    ramps_s = 4 * most / CONNECTIONS_PER_S
    each_s = SHORTEST_RAMP_S + search.settle_s + hold_s + AROUND_A_STEP_S
    growth: dict[str, object] = {"step_factor": FACTOR, "max_connections": most}
    if search.over == "edits":
        growth = {
            "step_edits_per_minute": rate * 60,
            "max_edits_per_minute": quest.limit * 60,
        }
    elif search.over == "both":
        growth["max_edits_per_minute"] = rate * 60 * quest.limit / quest.start
    cool_s = [phase.duration_s for phase in scenario.phases if phase.kind == "cooldown"]
    return [
        {
            "name": "warm-up",
            "kind": "warmup",
            "duration": max(WARM_UP_S, connections / CONNECTIONS_PER_S),
            "connections": connections,
            "edits_per_minute": rate * 60,
        },
        {
            "name": PHASE,
            "kind": "stress",
            "duration": math.ceil((steps + rests) * each_s + ramps_s),
            "connections": connections,
            "edits_per_minute": rate * 60,
            "step_hold": hold_s,
            "step_settle": search.settle_s,
            "objectives": objectives,
            **growth,
        },
        {
            "name": "cool-down",
            "kind": "cooldown",
            "duration": min([*cool_s, COOL_DOWN_AT_MOST_S]),
            # Without a number it keeps what the last good step held.
            "edits_per_minute": 0,
        },
    ]


def _fleet(scenario: Scenario, search: Search, calibration: Calibration | None) -> FleetSpec:
    workers = scenario.fleet.workers
    if search.subject == "generator":
        workers = 1
    elif calibration and scenario.fleet.kind == "ec2":
        workers = min(workers_needed(scenario, "ec2", calibration).needed, MOST_WORKERS)
    return scenario.fleet.model_copy(update={"workers": workers})


def _start(search: Search, connections: int, rate: float, *, workers: int) -> float:
    """Return where a search begins if nobody says: a calibration at one worker's share."""
    if search.over == "edits":
        return rate
    share = workers if search.subject == "generator" else 1
    return float(math.ceil(connections / share))


def _limit(over: Over, start: float) -> float:
    most = start * LIMIT_FACTOR
    return most if over == "edits" else min(most, MOST_CONNECTIONS)
