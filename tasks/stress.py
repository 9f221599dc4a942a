"""Stress: which step of load comes next. Pure functions of the steps so far.

A step asks for a level: so many connections and edits a second. It is held until every stop
objective of its phase has had its window, and then judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from run_store.steps import Step
from scenarios.durations import format_duration
from scenarios.model import Phase, Scenario
from scenarios.objectives import Objective

CONNECTIONS_PER_S = 20.0
"""How fast a step adds its connections, unless the scenario says otherwise."""
SHORTEST_RAMP_S = 1.0
DOUBTS_ALLOWED = 1
"""How often a level that could not be judged is tried again."""


@dataclass(frozen=True)
class Level:
    """What a step asks of the relay, from the whole fleet."""

    connections: int
    edits_per_second: float

    def __str__(self) -> str:
        return f"{self.connections:,} connections at {self.edits_per_second:.3g} edits/s"


@dataclass(frozen=True)
class Course:
    """A step's course in time, in seconds from its beginning."""

    ramp_s: float
    settle_s: float
    hold_s: float

    @property
    def duration_s(self) -> float:
        """From its beginning to its end."""
        return self.ramp_s + self.settle_s + self.hold_s


@dataclass(frozen=True)
class Halt:
    """No further step, and why."""

    reason: str


def stop_objectives(scenario: Scenario, phase: Phase, *, has_metrics: bool) -> list[Objective]:
    """Return the objectives that bound a phase's steps: its own that stop, and the run's.

    Of a relay without `/metrics` those that only these could tell are left out.
    """
    return [
        objective
        for objective in scenario.parsed_objectives
        if objective.stop
        and objective.phase in (None, phase.name)
        and (has_metrics or not objective.metric.startswith("relay."))
    ]


def first_level(scenario: Scenario, phase: Phase) -> Level:
    """Return the level that a stress phase begins with."""
    return Level(scenario.connections_at_end_of(phase), phase.edits_per_minute / 60)


def course_of(scenario: Scenario, phase: Phase, level: Level, *, connections: int) -> Course:
    """Return the course of a step to `level` from so many connections."""
    windows = [o.window_s or 0.0 for o in stop_objectives(scenario, phase, has_metrics=True)]
    moved = abs(level.connections - connections)
    ramp_s = phase.step_ramp_s or max(SHORTEST_RAMP_S, moved / CONNECTIONS_PER_S)
    return Course(ramp_s, phase.step_settle_s, max([phase.step_hold_s, *windows]))


def next_level(scenario: Scenario, phase: Phase, steps: Sequence[Step]) -> Level | Halt:
    """Return the next step's level, or why there is none, after these steps."""
    if not steps:
        return first_level(scenario, phase)
    last = steps[-1]
    level = Level(last.connections, last.edits_per_second)
    if last.outcome == "bad":
        return Halt(f"the relay did not hold {level}: {last.why}")
    if last.outcome == "generator_saturated":
        return Halt(f"the workers could not make {level}: {last.why}")
    if last.outcome == "doubtful":
        tries = [step for step in steps if Level(step.connections, step.edits_per_second) == level]
        if len(tries) > DOUBTS_ALLOWED:
            return Halt(f"{level} could not be judged, {len(tries)} times: {last.why}")
        return level
    return _above(phase, level)


def held_by(steps: Sequence[Step]) -> int | None:
    """Return how many connections the relay was seen to hold; None if no step was judged.

    Those of the last good step; without one, what was open when the last step ended.
    """
    if not steps:
        return None
    last = steps[-1]
    good = [step.connections for step in steps if step.is_good]
    return good[-1] if good else last.figures.connections_open or last.connections


def _above(phase: Phase, level: Level) -> Level | Halt:
    more = Level(
        round(level.connections * phase.step_factor) + phase.step_connections,
        level.edits_per_second + phase.step_edits_per_minute / 60,
    )
    most_edits = phase.max_edits_per_minute
    capped = Level(
        min(more.connections, phase.max_connections or more.connections),
        more.edits_per_second
        if most_edits is None
        else min(more.edits_per_second, max(most_edits / 60, level.edits_per_second)),
    )
    if capped == level:
        if more == level:
            return Halt("the scenario asks for no more")
        limits = [
            f"{phase.max_connections:,} connections" if phase.max_connections else "",
            f"{most_edits:g} edits a minute" if most_edits is not None else "",
        ]
        return Halt(f"the phase's limit of {' and '.join(filter(None, limits))} is reached")
    return capped


def no_time_left(phase: Phase, course: Course) -> Halt:
    """Return the halt of a phase whose length leaves no time for a step of that course."""
    return Halt(
        f"the phase's {format_duration(phase.duration_s)} leave no time for a further step "
        f"of {format_duration(course.duration_s)}"
    )
