from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from run_store.capacity import Calibration
from run_store.errors import RelayLoadError, ScenarioError, UsageError
from scenarios.loading import load_scenario
from scenarios.model import Scenario
from tasks.search import cut_off
from tasks.search_answer import Quest
from tasks.search_levels import Tried
from tasks.search_plan import PHASE, Search, objectives_of, planned_search, search_from
from tasks.stress import Level


def scenario(**more: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "given",
            "connections": 40,
            "objectives": ["acknowledgement_ms.p95 < 250", "edits.lost == 0"],
            "phases": {
                "load": {"kind": "sustained", "duration": "30s", "edits_per_minute": 120},
                "end": {"kind": "cooldown", "duration": "8s"},
            },
            **more,
        }
    )


def test_a_search_is_one_stress_phase_between_warm_up_and_cool_down() -> None:
    """It starts at the scenario's own load, in steps that double, and ends with what was held."""
    plan = planned_search(scenario(), Search(limit=640, hold_s=13))
    warm, search, cool = plan.scenario.phases
    assert plan.quest == Quest(start=40, limit=640)
    assert (warm.connections, search.connections, cool.connections) == (40, 40, None)
    assert search.has_steps
    assert search.max_connections == 640
    assert search.step_hold_s == 13
    assert (warm.edits_per_minute, search.edits_per_minute, cool.edits_per_minute) == (120, 120, 0)
    assert plan.scenario.phases[plan.index].name == PHASE
    # Eleven steps, four repeats and seven rests of 21 s each must fit.
    assert search.duration_s > 22 * 21
    assert cool.duration_s == 8


LEVELS: list[tuple[Search, float, Level]] = [
    (Search(), 80, Level(80, 2.0)),
    (Search(over="both"), 80, Level(80, 4.0)),
    (Search(over="edits"), 8, Level(40, 8.0)),
    (Search(over="edits", connections=5, start=1), 8, Level(5, 8.0)),
    (Search(edits_per_s=10), 80, Level(80, 10.0)),
]


@pytest.mark.parametrize(("search", "load", "wanted"), LEVELS)
def test_what_grows_is_what_was_asked_for(search: Search, load: float, wanted: Level) -> None:
    """A load is connections, edits, or both in proportion; the rest stays the same."""
    plan = planned_search(scenario(), search)
    assert plan.level(load) == wanted
    assert plan.scenario.phases[plan.index].has_steps


OBJECTIVES: list[tuple[dict[str, Any], Search, list[str]]] = [
    (
        {},
        Search(objectives=("delivery_ms.p95 < 1s", "edits.error_rate < 5% for 10s")),
        ["delivery_ms.p95 < 1000 for 20s stop", "edits.error_rate < 0.05 for 10s stop"],
    ),
    # Of the scenario's own, those that a step can be judged by.
    ({}, Search(), ["acknowledgement_ms.p95 < 250 for 20s stop"]),
    (
        {"objectives": ["delivery_ms.p99 < 2s", "delivery_ms.p95 < 1s for 5s stop"]},
        Search(),
        ["delivery_ms.p95 < 1000 for 5s stop"],
    ),
    # Of two on one metric the stricter.
    (
        {"objectives": ["delivery_ms.p95 < 1s for 5s", "load: delivery_ms.p95 < 5s"]},
        Search(),
        ["delivery_ms.p95 < 1000 for 5s stop"],
    ),
    (
        {},
        Search(
            objectives=(
                "delivery_ms.p95 < 200ms",
                "delivery_ms.p95 < 500ms",
                "connections.health_score > 90",
                "connections.health_score > 99",
            )
        ),
        ["delivery_ms.p95 < 200 for 20s stop", "connections.health_score > 99 for 20s stop"],
    ),
    (
        {"objectives": ["edits.lost == 0"]},
        Search(hold_s=14),
        ["delivery_ms.p95 < 1000 for 14s stop", "edits.error_rate < 0.05 for 14s stop"],
    ),
]


@pytest.mark.parametrize(("given", "search", "wanted"), OBJECTIVES)
def test_objectives_bound_each_step(
    given: dict[str, Any], search: Search, wanted: list[str]
) -> None:
    """The caller's, else those that stop, else the scenario's, else the project's."""
    assert objectives_of(scenario(**given), search) == wanted
    plan = planned_search(scenario(**given), search)
    assert plan.scenario.objectives == ()
    assert list(plan.scenario.phases[plan.index].objectives) == wanted


def test_a_step_is_held_until_its_objectives_can_be_judged() -> None:
    """Twenty deliveries make a 95th percentile: with few edits that takes longer, and is said."""
    asked = Search(start=2, hold_s=3, edits_per_s=4, objectives=("delivery_ms.p95 < 1s",))
    one = scenario(fleet={"workers": 1})
    plan = planned_search(one, asked)
    [phase] = [phase for phase in plan.scenario.phases if phase.name == PHASE]
    assert phase.step_hold_s == 7  # 1.25 x 20 deliveries, 4 a second
    assert phase.objectives == ("delivery_ms.p95 < 1000 for 7s stop",)
    assert plan.note.startswith("each step is held for 7s in place of 3s: at 4 edits/s")
    enough = planned_search(one, replace(asked, edits_per_s=10))
    assert (enough.scenario.phases[1].step_hold_s, enough.note) == (3, "")
    own = replace(asked, objectives=("delivery_ms.p95 < 1s for 2s",))
    assert planned_search(one, own).scenario.phases[1].step_hold_s == 3
    # On two workers each has two of four members: one of three others is beside the writer.
    two = planned_search(scenario(fleet={"workers": 2}), replace(asked, start=4))
    assert two.scenario.phases[1].step_hold_s == 7
    # And of five members one has three, the other two: 2 of 3 x 2 + 2 of 1 x 2, by five.
    five = planned_search(scenario(fleet={"workers": 2}), replace(asked, start=5))
    assert five.scenario.phases[1].step_hold_s == 4


def test_a_calibrated_fleet_is_as_large_as_the_limit_asks_for() -> None:
    """Only a rented one: the user's own hosts and this machine are what they are."""
    heavy = load_scenario("heavy")

    def workers(given: Scenario, search: Search) -> int:
        return planned_search(given, search, calibration=known).scenario.fleet.workers

    known = Calibration(
        scenario="heavy",
        worker_kind="c5.2xlarge",
        connections=400,
        edits_per_s=2.0,
        connections_per_document=100,
    )
    assert workers(heavy, Search(start=100, limit=3000)) == 8
    # So many edits a second ask for more workers than their connections do.
    assert workers(heavy, Search(over="edits", start=2, limit=20)) == 10
    # Each connection edits as in the scenario, wherever the search begins.
    assert workers(heavy, Search(over="both", start=500, limit=4000)) == 10
    assert workers(heavy, Search(over="both", start=500, limit=4000, edits_per_s=5)) == 20
    assert planned_search(heavy, Search(limit=3000)).scenario.fleet == heavy.fleet
    assert workers(scenario(), Search(limit=3000)) == scenario().fleet.workers
    assert workers(heavy, Search(subject="generator")) == 1


def test_a_calibration_begins_with_one_workers_share() -> None:
    """It has the scenario's edits for each connection, however many it begins with."""
    moderate = load_scenario("moderate")  # 500 connections, 3 workers, 3 edits/s
    plan = planned_search(moderate, Search(over="both", subject="generator"))
    assert plan.quest.start == 167
    assert plan.edits_per_s == pytest.approx(3 * 167 / 500)
    lower = planned_search(moderate, Search(over="both", subject="generator", start=50))
    assert lower.level(100).edits_per_second == pytest.approx(3 * 100 / 500)


@pytest.mark.parametrize(
    ("objective", "hold_s", "line"),
    [
        ("delivery_ms.p95 < 1s", 90, "delivery_ms.p95 < 1000 for 1m30s stop"),
        ("delivery_ms.p95 < 1s for 1m30s", 20, "delivery_ms.p95 < 1000 for 1m30s stop"),
        ("edits.error_rate < 0.001%", 2.5, "edits.error_rate < 0.00001 for 2.5s stop"),
        ("relay.memory_end_mb < 1000000", 0.4, "relay.memory_end_mb < 1000000 for 0.4s stop"),
    ],
)
def test_a_line_is_exact_and_can_be_read_again(objective: str, hold_s: float, line: str) -> None:
    """Neither a length nor a limit is rounded, or written in a way that no objective has."""
    search = Search(objectives=(objective,), hold_s=hold_s)
    assert objectives_of(scenario(), search) == [line]
    assert planned_search(scenario(), search).scenario.parsed_objectives


BAD: list[tuple[Search, type[RelayLoadError], str]] = [
    (Search(start=0), UsageError, "nowhere to go"),
    (Search(start=50, limit=40), UsageError, "nowhere to go"),
    (Search(precision=0), UsageError, "cannot be had"),
    (Search(limit=1e6), UsageError, "up to 100,000"),
    (Search(start=2.5), UsageError, "whole"),
    (Search(edits_per_s=0), UsageError, "nothing can be measured"),
    (Search(start=1, objectives=("delivery_ms.p95 < 1s",)), UsageError, "show no worker an edit"),
    (Search(start=2, objectives=("delivery_ms.p95 < 1s",)), UsageError, "over 2 workers"),
    (Search(edits_per_s=0.01), UsageError, "held for 41m 40s until its objectives can be judged"),
    (Search(over="edits", limit=float("inf")), UsageError, "--limit inf is no load"),
    (Search(start=float("nan")), UsageError, "--start nan is no load"),
    (Search(edits_per_s=float("inf")), UsageError, "--edits-per-s inf is no load"),
    (Search(over="both", edits_per_s=0), UsageError, "nothing can be measured"),
    (Search(objectives=("latency < 3",)), ScenarioError, "no metric is called latency"),
    (Search(objectives=("edits.lost == 0",)), ScenarioError, "known after the load only"),
]


@pytest.mark.parametrize(("search", "error", "said"), BAD)
def test_a_search_that_cannot_be_is_refused(
    search: Search, error: type[RelayLoadError], said: str
) -> None:
    """Before anything is started, with what is wrong."""
    with pytest.raises(error, match=said):
        planned_search(scenario(), search)


def test_a_length_that_is_none_is_refused() -> None:
    """The message names the option."""
    with pytest.raises(UsageError, match="hold"):
        search_from(hold="long")
    assert search_from(hold="1m", settle="2s", objectives=None).hold_s == 60


def test_a_search_that_was_cut_off_says_what_its_steps_allow() -> None:
    """What held is a lower bound; with a step that did not, the gap so far."""
    quest = Quest(start=10, limit=1000)
    held = [Tried(10, "held", score=0.4, noise=0.03), Tried(20, "held", score=0.5, noise=0.03)]
    found = cut_off(held, quest, "told to")
    assert (found.kind, found.low, found.high, found.why) == ("at_least", 20, None, "told to")
    missed = Tried(40, "missed", score=3.0, noise=0.03, objective="delivery_ms.p95 < 1s")
    found = cut_off([*held, missed], quest, "told to")
    assert (found.kind, found.low, found.high, found.is_precise) == ("between", 20, 40, False)
    assert cut_off([], quest, "told to").kind == "unknown"
