from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from run_store.histogram import Histogram
from run_store.steps import Step, StepFigures
from scenarios.model import Scenario
from scenarios.objectives import parse_objective
from tasks.readings import Reading, RelayReading
from tasks.step_verdict import Held, judge_step
from tasks.stop_rule import missed
from tasks.stress import Course, Halt, Level, course_of, first_level, held_by, next_level

S = 1_000_000
STRESS = {
    "kind": "stress",
    "duration": "10m",
    "edits_per_minute": 60,
    "step_connections": 10,
    "step_hold": "10s",
    "step_settle": "2s",
}


def scenario(**phase: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "steps",
            "connections": 20,
            "phases": {"load": {**STRESS, **phase}},
            "objectives": ["delivery_ms.p95 < 1s for 15s stop"],
        }
    )


def step(number: int, level: Level, outcome: str = "good") -> Step:
    return Step.model_validate(
        {
            "number": number,
            "attempt": 1,
            "order": number,
            "phase": "00-load",
            "connections": level.connections,
            "edits_per_second": level.edits_per_second,
            "started_us": 0,
            "judged_from_us": S,
            "ended_us": 2 * S,
            "outcome": outcome,
            "why": "so it was",
        }
    )


def after(given: Scenario, *outcomes: str) -> Level | Halt:
    """Return what comes after steps with these outcomes."""
    [phase] = given.phases
    steps: list[Step] = []
    for outcome in outcomes:
        level = next_level(given, phase, steps)
        assert isinstance(level, Level)
        steps.append(step(len(steps) + 1, level, outcome))
    return next_level(given, phase, steps)


LEVELS: list[tuple[str, dict[str, Any], tuple[str, ...], Level]] = [
    ("it begins with the scenario's", {}, (), Level(20, 1.0)),
    ("then adds", {}, ("good",), Level(30, 1.0)),
    ("and adds", {}, ("good", "good"), Level(40, 1.0)),
    ("or multiplies", {"step_connections": 0, "step_factor": 2}, ("good",), Level(40, 1.0)),
    (
        "or adds edits",
        {"step_connections": 0, "step_edits_per_minute": 120},
        ("good",),
        Level(20, 3.0),
    ),
    ("a doubtful step is tried again", {}, ("good", "doubtful"), Level(30, 1.0)),
    ("the last step stops at the limit", {"max_connections": 25}, ("good",), Level(25, 1.0)),
]


@pytest.mark.parametrize(("name", "phase", "outcomes", "wanted"), LEVELS)
def test_the_next_level_follows_from_the_steps(
    name: str, phase: dict[str, Any], outcomes: tuple[str, ...], wanted: Level
) -> None:
    """Steps go up by what the scenario says, never beyond its limit."""
    assert after(scenario(**phase), *outcomes) == wanted, name


HALTS: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({}, ("good", "bad"), "the relay did not hold 30 connections at 1 edits/s: so it was"),
    ({}, ("generator_saturated",), "the workers could not make 20 connections"),
    ({}, ("doubtful", "doubtful"), "could not be judged, 2 times"),
    ({"max_connections": 30}, ("good", "good"), "the phase's limit of 30 connections is reached"),
]


@pytest.mark.parametrize(("phase", "outcomes", "said"), HALTS)
def test_a_stress_phase_says_why_it_ends(
    phase: dict[str, Any], outcomes: tuple[str, ...], said: str
) -> None:
    """The relay, the workers, doubt or a limit ends it, and the reason names which."""
    halt = after(scenario(**phase), *outcomes)
    assert isinstance(halt, Halt)
    assert said in halt.reason


HELD: list[tuple[str, list[Step], int | None]] = [
    ("nothing was judged", [], None),
    ("the last one held", [step(1, Level(20, 1)), step(2, Level(30, 1))], 30),
    ("the last one did not", [step(1, Level(20, 1)), step(2, Level(30, 1), "bad")], 20),
    (
        "doubt is no hold",
        [step(1, Level(20, 1)), step(2, Level(30, 1), "doubtful"), step(3, Level(30, 1), "bad")],
        20,
    ),
    (
        "not even the first",
        [
            step(1, Level(20, 1), "bad").model_copy(
                update={"figures": StepFigures(connections_open=14)}
            )
        ],
        14,
    ),
    ("it died in the first", [step(1, Level(20, 1), "bad")], 20),
]


@pytest.mark.parametrize(("name", "steps", "wanted"), HELD)
def test_what_was_held_is_what_the_last_good_step_asked_for(
    name: str, steps: list[Step], wanted: int | None
) -> None:
    """What was not held is not asked for again."""
    assert held_by(steps) == wanted, name


def test_a_step_is_held_as_long_as_its_objectives_window() -> None:
    """A window longer than the hold lengthens it; the ramp takes the connections' time."""
    given = scenario()
    [phase] = given.phases
    level = first_level(given, phase)
    assert course_of(given, phase, level, connections=0) == Course(1.0, 2.0, 15.0)


def reading(at_s: float, **more: Any) -> Reading:
    return Reading(at_us=round(at_s * S), **{"connections_open": 20, **more})


def latencies(count: int, ms: float) -> Histogram:
    histogram = Histogram()
    for _ in range(count):
        histogram.add(ms)
    return histogram


def growing(*, ms: float, seconds: int = 20, **more: Any) -> list[Reading]:
    """Return readings of each second, with four deliveries in each."""
    return [
        reading(
            at_s,
            offered=at_s,
            completed=at_s,
            delivery=latencies(4 * at_s, ms),
            lateness=latencies(at_s, 2.0),
            **more,
        )
        for at_s in range(seconds + 1)
    ]


def late(**more: Any) -> list[Reading]:
    """Return readings of edits that all begin 0.4 s late."""
    return [replace(one, lateness=latencies(one.offered, 400.0)) for one in growing(ms=200, **more)]


STOPS: list[tuple[str, Sequence[Reading], bool]] = [
    ("delivery_ms.p95 < 1s for 10s stop", growing(ms=2000), True),
    ("delivery_ms.p95 < 1s for 10s stop", growing(ms=200), False),
    ("delivery_ms.p95 < 1s for 30s stop", growing(ms=2000), False),
    ("delivery_ms.p95 < 1s stop", growing(ms=2000, seconds=5), False),
    ("delivery_ms.p95 < 1s stop", growing(ms=2000), True),
    ("edits.failed == 0 stop", [reading(0), reading(1, failed=1)], True),
    ("edits.failed == 0 stop", [reading(0), reading(1)], False),
    ("edits.completed > 100 stop", growing(ms=200), False),
    ("edits.error_rate < 5% stop", [reading(0), reading(20, failed=1)], False),
    ("edits.error_rate < 5% stop", [reading(0), reading(20, failed=5, completed=10)], True),
]


@pytest.mark.parametrize(("text", "readings", "ends"), STOPS)
def test_a_stop_objective_ends_the_load_when_it_is_missed(
    text: str, readings: Sequence[Reading], ends: bool
) -> None:
    """It is judged when there is enough to judge by: a window, a time, a number of edits."""
    judged = missed([parse_objective(text)], readings, now_us=readings[-1].at_us)
    assert (judged is not None) == ends


def relay(at_s: float, **more: Any) -> RelayReading:
    return RelayReading(at_us=round(at_s * S), memory_mb=50.0, **more)


STEP = Held(1, 1, 1, "00-load", Level(20, 1.0), 0, 5 * S, 20 * S, ())
"""A step of 20 s, judged from its fifth second on."""

OUTCOMES: list[tuple[str, list[Reading], tuple[str, ...], tuple[str, str]]] = [
    ("all is well", growing(ms=200), (), ("good", "ok")),
    ("too slow", growing(ms=2000), (), ("bad", "ok")),
    ("refused", growing(ms=200, connections_open=15, refused=0), (), ("doubtful", "ok")),
    (
        "connections are refused",
        [*growing(ms=200, connections_open=15)[:-1], reading(20, connections_open=15, refused=5)],
        (),
        ("bad", "refused"),
    ),
    ("a worker is lost", growing(ms=2000), ("worker-1",), ("doubtful", "ok")),
    (
        "what a lost worker had open was not refused",
        [*growing(ms=200, connections_open=15)[:-1], reading(20, connections_open=15, refused=5)],
        ("worker-1",),
        ("doubtful", "ok"),
    ),
    (
        "started anew",
        [
            *growing(ms=200, relay=relay(0, uptime_s=90.0))[:-1],
            reading(20, relay=relay(20, uptime_s=3.0)),
        ],
        (),
        ("bad", "restarted"),
    ),
    (
        "the workers gave connections up that they were too busy for",
        [
            *late(connections_open=15)[:-1],
            replace(late(connections_open=15)[-1], refused=5, timed_out=5),
        ],
        (),
        ("generator_saturated", "ok"),
    ),
    (
        "busy workers were refused all the same",
        [
            *late(connections_open=15)[:-1],
            replace(late(connections_open=15)[-1], refused=5, timed_out=4),
        ],
        (),
        ("bad", "refused"),
    ),
    (
        "dead before it began",
        [
            reading(t, connections_open=0, refused=t, relay=relay(t, error="no answer"))
            for t in range(21)
        ],
        (),
        ("bad", "dead"),
    ),
]


@pytest.mark.parametrize(("name", "readings", "lost", "wanted"), OUTCOMES)
def test_a_step_is_judged_by_its_readings(
    name: str, readings: list[Reading], lost: tuple[str, ...], wanted: tuple[str, str]
) -> None:
    """What the relay did is its own; what the workers lost says nothing about it."""
    held = replace(STEP, readings=readings, lost=lost)
    judged = judge_step(held, [parse_objective("delivery_ms.p95 < 1s for 10s stop")])
    assert (judged.outcome, judged.relay) == wanted, (name, judged.why)
    assert judged.why


def test_a_step_in_which_an_agent_was_restarted_is_doubtful() -> None:
    """Its connections were gone for a while, and that says nothing of the relay."""
    readings = [Reading(at_us=at_s * S, connections_open=20) for at_s in range(21)]
    judged = judge_step(replace(STEP, readings=readings, restarted=["worker-2"]), [])
    assert judged.outcome == "doubtful"
    assert "worker-2 died in it" in judged.why


def test_workers_that_are_late_bound_nothing() -> None:
    """An objective missed while edits began late is the generator's, not the relay's."""
    late = [
        Reading(
            at_us=at_s * S,
            offered=at_s,
            completed=at_s,
            connections_open=20,
            delivery=latencies(4 * at_s, 2000),
            lateness=latencies(at_s, 400.0),
        )
        for at_s in range(21)
    ]
    judged = judge_step(
        replace(STEP, readings=late), [parse_objective("delivery_ms.p95 < 1s for 10s stop")]
    )
    assert judged.outcome == "generator_saturated"
    assert "late" in judged.why


def test_an_overloaded_relay_acknowledges_what_it_serves_in_the_time() -> None:
    """Not what it works off behind it, whose latencies and failures count all the same."""
    readings = [
        reading(t, offered=48 * t, completed=33 * t, delivery=latencies(33 * t, 200))
        for t in range(21)
    ]
    later = reading(30, offered=960, completed=960, delivery=latencies(960, 4000))
    held = Held(1, 1, 1, "00-load", Level(20, 48.0), 0, 5 * S, 20 * S, [*readings, later])
    texts = ["edits.per_second > 40", "delivery_ms.p95 < 1s for 10s stop"]
    judged = judge_step(held, [parse_objective(text) for text in texts])
    assert judged.figures.edits_per_second == pytest.approx(33)
    assert judged.figures.edits_offered == 15 * 48
    assert judged.figures.delivery_ms.p95 == pytest.approx(4000, rel=0.05)
    assert [(one.metric, one.met) for one in judged.objectives] == [
        ("edits.per_second", False),
        ("delivery_ms.p95", False),
    ]
