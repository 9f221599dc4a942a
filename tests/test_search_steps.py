from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from run_store.capacity import CapacityResult
from run_store.layout import phase_label
from run_store.messages import Line, PhaseRecord, PhaseRef
from run_store.steps import Percentiles, Step, StepFigures, StepGenerator, StepObjective
from scenarios.loading import load_scenario
from tasks.capacity import conclude
from tasks.run_context import RunContext
from tasks.search import next_step
from tasks.search_answer import Found, Quest
from tasks.search_plan import PHASE, Search, planned_search
from tasks.search_steps import result_of, score_of, tried_of


def objective(text: str, got: float | None, met: bool | None) -> StepObjective:
    return StepObjective(text=text, metric=text.split(" ", maxsplit=1)[0], got=got, met=met)


def step(number: int, connections: int, **more: Any) -> Step:
    return Step(
        number=number,
        attempt=1,
        order=number,
        phase="01-search",
        connections=connections,
        edits_per_second=more.pop("edits", 2.0),
        started_us=number * 10_000_000,
        judged_from_us=number * 10_000_000 + 5_000_000,
        ended_us=number * 10_000_000 + 9_000_000,
        **{"outcome": "good", **more},
    )


SCORES: list[tuple[str, float | None, bool | None, float | None]] = [
    ("delivery_ms.p95 < 1s", 500, True, 0.5),
    ("delivery_ms.p95 < 1s", 2500, False, 2.5),
    ("edits.error_rate < 5%", 0, True, 0.01),
    ("edits.error_rate < 5%", 0.1, False, 2.0),
    ("edits.per_second > 90", 45, False, 2.0),
    ("edits.per_second > 90", 0, False, 100.0),
    ("connections.health_score > 90", 70, False, 3.0),
    ("connections.health_score > 90%", 99, True, 0.1),
    ("connections.health_score > 100", 99, False, 100.0),
    ("connections.health_score >= 100", 100, True, 0.01),
    ("edits.lost == 0", 0, True, 0.01),
    ("edits.lost == 0", 3, False, 100.0),
    ("edits.failed < 0", 3, False, 100.0),
    ("delivery_ms.p95 < 1s", 1000, False, 1.001),
    ("delivery_ms.p95 <= 1s", 1000, True, 0.999),
    ("delivery_ms.p95 < 1s", None, None, None),
]


@pytest.mark.parametrize(("text", "got", "met", "score"), SCORES)
def test_a_score_is_one_on_the_objectives_line(
    text: str, got: float | None, met: bool | None, score: float | None
) -> None:
    """What is met lies below 1 and what is missed above, whichever way is better."""
    assert score_of(objective(text, got, met)) == (None if score is None else pytest.approx(score))


def test_steps_become_what_a_search_takes() -> None:
    """Each outcome has its counterpart, and the objective nearest to its line is the one named."""
    slow = objective("delivery_ms.p95 < 1s", 1500, False)
    fine = objective("edits.error_rate < 5%", 0.01, True)
    steps = [
        step(1, 10, objectives=(fine,), figures=StepFigures(edits_offered=100)),
        step(2, 20, outcome="bad", objectives=(fine, slow)),
        step(3, 20, outcome="doubtful"),
        step(4, 20, outcome="generator_saturated"),
        step(5, 40, outcome="bad", relay="refused", figures=StepFigures(relay_connections=33)),
        step(6, 15, outcome="bad", relay="dead"),
        step(7, 15, outcome="bad", relay="dead"),
    ]
    tried = tried_of(steps[::-1], over="connections", relay_is_back=False)
    outcomes = [one.outcome for one in tried]
    assert outcomes == ["held", "missed", "unclear", "saturated", "refused", "died", "died"]
    assert tried[1].objective == "delivery_ms.p95 < 1s"
    assert tried[1].score == pytest.approx(1.5)
    assert tried[0].noise == pytest.approx(0.03)
    assert tried[4].reached == 33
    assert [one.came_back for one in tried[5:]] == [True, False]
    assert tried[6].after_s == 69
    assert tried_of(steps[-1:], over="connections")[0].came_back
    assert tried_of(steps[:1], over="edits")[0].load == 2.0


def test_for_a_calibration_the_roles_change() -> None:
    """A worker that saturates gives way; a relay that does so first bounds what can be said."""
    steps = [
        step(1, 10, generator=StepGenerator(lateness_p99_ms=5, cpu_share=0.45)),
        step(
            2,
            20,
            outcome="generator_saturated",
            generator=StepGenerator(lateness_p99_ms=100, cpu_share=0.8, saturated=True, why="late"),
        ),
        step(3, 20, outcome="bad", why="it was slow"),
        step(4, 20, outcome="doubtful"),
        # Late, and fast enough all the same: that is no answer to when a worker is late.
        step(5, 20, generator=StepGenerator(lateness_p99_ms=60, saturated=True, why="late")),
        step(6, 20, outcome="bad", relay="dead", generator=StepGenerator(saturated=True)),
    ]
    tried = tried_of(steps, over="connections", subject="generator")
    outcomes = [one.outcome for one in tried]
    assert outcomes == ["held", "missed", "saturated", "unclear", "missed", "saturated"]
    assert tried[0].score == pytest.approx(0.1)
    assert tried[1].score == pytest.approx(2.0)
    assert tried[1].objective == "the worker keeps its schedule"
    assert tried[2].why == "the relay gave way first (it was slow)"
    assert tried[4].score == pytest.approx(1.2)


def test_a_worker_that_is_busy_and_in_time_is_far_from_its_limit() -> None:
    """It is late that ends a calibration, and lateness that says how near that is."""
    busy = step(1, 10, generator=StepGenerator(lateness_p99_ms=5, cpu_share=0.99))
    [tried] = tried_of([busy], over="connections", subject="generator")
    assert tried.outcome == "held"
    assert tried.score == pytest.approx(0.1)


def test_what_a_relay_let_in_is_no_load_of_edits() -> None:
    """Connections are the load of a search over them alone."""
    refused = step(1, 40, outcome="bad", relay="refused", figures=StepFigures(connections_peak=33))
    assert tried_of([refused], over="connections")[0].reached == 33
    assert tried_of([refused], over="edits")[0].reached is None


def test_a_relay_that_was_started_anew_has_come_back() -> None:
    """Nobody needs to wait for it."""
    died = step(1, 40, outcome="bad", relay="restarted")
    [tried] = tried_of([died], over="connections", relay_is_back=False)
    assert (tried.outcome, tried.came_back) == ("died", True)


def test_a_result_puts_the_last_good_and_the_first_bad_step_side_by_side() -> None:
    """They are those next to the answer, not the last in time."""
    steps = [
        step(1, 10),
        step(2, 20),
        step(3, 40, outcome="bad"),
        step(4, 28, outcome="bad", figures=StepFigures(delivery_ms=Percentiles(p95=5.0))),
        step(5, 24),
        step(6, 40, outcome="bad"),
    ]
    found = Found(
        *("between", 26, 23, 29, "24 held and 28 did not", "delivery_ms.p95 < 1s"),
        held_at=24,
        gave_way_at=28,
    )
    result = result_of(
        found, steps, over="connections", quest=Quest(10, 100), connections=0, edits_per_s=2
    )
    assert (result.last_good, result.first_bad) == (5, 4)
    assert (result.capacity, result.low, result.high) == (26, 23, 29)
    assert (result.started_us, result.ended_us, result.steps) == (10_000_000, 69_000_000, 6)
    assert result.died_us is None
    died = result_of(
        Found("died", None, 20, 40, "it died"),
        steps[:3],
        over="connections",
        quest=Quest(10, 100),
        connections=0,
        edits_per_s=2,
    )
    assert (died.died_us, died.came_back) == (39_000_000, False)


def test_a_level_is_shown_by_the_step_that_speaks_for_it() -> None:
    """Where steps at one load disagreed, the one that went the other way is not shown."""
    steps = [step(1, 10), step(2, 20, outcome="bad"), step(3, 20), step(4, 20), step(5, 40)]
    found = Found("at_least", None, 20, None, "the limit", held_at=20)
    result = result_of(
        found, steps, over="connections", quest=Quest(10, 40), connections=0, edits_per_s=2
    )
    assert (result.last_good, result.first_bad) == (4, None)


def concluded(
    context: RunContext, steps: list[Step], *, ended_because: str, cut_off_by: str = ""
) -> CapacityResult:
    """Put a search's steps and its phase's record into the bucket; return what is concluded."""
    plan = planned_search(load_scenario("local"), Search(start=10, limit=640))
    context = replace(context, scenario=plan.scenario)
    label = phase_label(plan.index, PHASE)
    store, layout = context.store(), context.layout
    for one in steps:
        put = one.model_copy(update={"phase": label})
        store.put_message(layout.step(label, one.number), put)
    record = PhaseRecord(
        phase=PhaseRef(index=plan.index, name=PHASE, kind="stress"),
        label=label,
        attempt=1,
        order=len(steps),
        started_us=0,
        ended_us=1,
        planned_s=1,
        connections=Line(start=0, end=20),
        edits_per_s=Line(start=2, end=2),
        edits_planned=1,
        first_edit=0,
        ended_because=ended_because,
    )
    store.put_message(layout.phase(label), record)
    conclude(context, plan, cut_off_by=cut_off_by)
    result = store.get_message(layout.capacity, CapacityResult)
    assert result is not None
    return result


@pytest.mark.parametrize("back", [True, False])
def test_a_relay_that_died_last_is_gone_only_if_it_stayed_away(
    context: RunContext, back: bool
) -> None:
    """Whoever chose the steps has waited for it, and the phase's record says what came of that."""
    steps = [step(1, 10), step(2, 20, outcome="bad", relay="dead")]
    steps += [step(3, 14), step(4, 17), step(5, 18), step(6, 19)]
    steps.append(step(7, 20, outcome="bad", relay="dead"))
    tried = tried_of(steps, over="connections", relay_is_back=back)
    ended = next_step(tried, Quest(10, 640))
    assert isinstance(ended, Found)
    result = concluded(context, steps, ended_because=ended.why)
    if back:
        assert (result.kind, result.low, result.high) == ("between", 19, 20)
        assert "come back" not in result.sentence
    else:
        assert (result.kind, result.capacity) == ("died", None)
        assert "and did not come back; it had held 19" in result.sentence


@pytest.mark.parametrize(
    ("told", "ended_because", "why"),
    [
        ("its budget is spent", "another reason", "its budget is spent"),
        ("", "the phase's 10m leave no time for a further step", "the phase's 10m leave no time"),
        ("", "", "the search was cut off"),
    ],
)
def test_what_cut_a_search_off_is_in_its_answer(
    context: RunContext, told: str, ended_because: str, why: str
) -> None:
    """What the run says of its end, else what its phase does; and what had held until then."""
    result = concluded(
        context, [step(1, 10), step(2, 20)], ended_because=ended_because, cut_off_by=told
    )
    assert (result.kind, result.low, result.is_precise) == ("at_least", 20, False)
    assert result.why.startswith(why)
    assert why in result.sentence
