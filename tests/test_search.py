from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from run_store.errors import UsageError
from tasks.search import NextStep, next_step
from tasks.search_answer import Found, Quest
from tasks.search_levels import Level, Tried, levels_of, slope_between
from tests.synthetic_relay import Shape, SyntheticRelay, searched

QUEST = Quest(start=10, limit=1000)


def random_of(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - reproducible, and no secret


SLOW = "p95 < 1s"


def held(load: float, score: float = 0.2, objective: str = SLOW) -> Tried:
    return Tried(load, "held", score=score, objective=objective)


def missed(load: float, score: float = 5.0, objective: str = SLOW) -> Tried:
    return Tried(load, "missed", score=score, objective=objective)


def refused(load: float, reached: float) -> Tried:
    return Tried(load, "refused", reached=reached)


def silent(load: float) -> Tried:
    return Tried(load, "saturated")


STEPS: list[tuple[str, list[Tried], float]] = [
    ("nothing is known", [], 10),
    ("a load that held is doubled", [held(10)], 20),
    ("and doubled again", [held(10), held(20)], 40),
    ("the last doubling ends at the limit", [held(600)], 1000),
    ("the first miss is repeated", [held(10), missed(20)], 20),
    ("a first step that missed too", [missed(10)], 10),
    ("then comes the middle, by ratio", [held(10), missed(20), missed(20)], 14),
    ("above it, if it held", [held(10), missed(20), missed(20), held(14)], 17),
    ("below it, if not", [held(10), missed(20), missed(20), missed(14)], 12),
    ("a step that contradicts is tried a third time", [held(10), missed(20), held(20)], 20),
    ("a step near the line is repeated", [held(10), missed(20), missed(20), held(14, 0.95)], 14),
    ("a saturated generator gets another chance", [held(10), silent(20)], 20),
    ("what the relay let in is tried", [held(10), held(20), refused(40, 33)], 33),
    ("and just above that", [held(10), refused(40, 33), held(33)], 35),
    ("a relay that died and came back is not tried there again", [held(10), Tried(20, "died")], 14),
]


@pytest.mark.parametrize(("why", "tried", "load"), STEPS, ids=[row[0] for row in STEPS])
def test_the_next_step_follows_from_the_steps_so_far(
    why: str, tried: list[Tried], load: float
) -> None:
    """Doubling, then halving by ratio; what is doubtful is repeated."""
    answer = next_step(tried, QUEST)
    assert isinstance(answer, NextStep), (why, answer)
    assert answer.load == load, answer.why
    assert answer.why


ENDS: list[tuple[str, list[Tried], Found]] = [
    (
        "an objective that fails at the first step",
        [missed(10), missed(10)],
        Found("below", None, None, 10, "the first step, 10, was not held", "p95 < 1s"),
    ),
    (
        "a relay that refuses the first step",
        [refused(10, 4)],
        Found(
            "below",
            None,
            None,
            10,
            "the first step, 10, was not held",
            "the relay lets every connection in",
        ),
    ),
    (
        "an objective that never fails",
        [held(500), held(1000)],
        Found("at_least", None, 1000, None, "no objective gave way up to the limit of 1000"),
    ),
    (
        "a generator that saturates first",
        [held(10), held(20), silent(40), silent(40)],
        Found("at_least", None, 20, None, "the generator was saturated at 40"),
    ),
    (
        "a generator that saturates at once",
        [silent(10), silent(10)],
        Found("unknown", None, None, None, "the generator was saturated at 10", is_precise=False),
    ),
    (
        "steps of which too little was seen",
        [Tried(10, "unclear"), Tried(10, "unclear")],
        Found(
            "unknown",
            None,
            None,
            None,
            "too little was seen of the relay at 10",
            is_precise=False,
        ),
    ),
    (
        "a relay that dies and does not come back",
        [held(10), held(20), Tried(40, "died", came_back=False, after_s=95)],
        Found(
            "died",
            None,
            20,
            40,
            "the relay died at 40, 95 s after its first step, and did not come back",
            "the relay lives",
            is_precise=False,
        ),
    ),
    (
        "a generator that saturates within the gap",
        [held(10), missed(20), missed(20), silent(14), silent(14)],
        Found("between", 14, 10, 20, "the generator was saturated at 14", "p95 < 1s", False),
    ),
    (
        "a gap of one",
        [held(10), missed(12), missed(12), missed(11), held(10)],
        Found("between", 10, 10, 11, "10 held and 11 did not", "p95 < 1s"),
    ),
    (
        "a relay that refuses above what it let in",
        [held(10), refused(40, 33), held(33), refused(35, 33)],
        Found(
            "between",
            33,
            33,
            35,
            "33 held and 35 did not",
            "the relay lets every connection in",
        ),
    ),
]


@pytest.mark.parametrize(("why", "tried", "found"), ENDS, ids=[row[0] for row in ENDS])
def test_a_search_ends_with_what_can_be_said(why: str, tried: list[Tried], found: Found) -> None:
    """Each way to end gives its kind, its bounds and its reason."""
    assert next_step(tried, QUEST) == found, why


def test_an_end_that_everything_leans_on_is_repeated() -> None:
    """A load seen to fail once, below which all later steps held, is tried again before the end."""
    quest = Quest(start=100, limit=10_000)
    steps = [held(100), missed(200), missed(200), missed(141)]
    steps += [held(119), held(130), held(135)]
    answer = next_step(steps, quest)
    assert isinstance(answer, NextStep)
    assert answer.load == 141
    found = next_step([*steps, missed(141)], quest)
    assert isinstance(found, Found)
    assert (found.low, found.high) == (135, 141)


def test_a_step_on_the_line_ends_the_search() -> None:
    """Two steps within their noise of the objective say that the capacity lies there."""
    quest = Quest(start=100, limit=10_000)
    near = [
        Tried(141, "held", score=0.99, noise=0.02, objective=SLOW),
        Tried(141, "missed", score=1.01, noise=0.02, objective=SLOW),
    ]
    found = next_step([held(100, 0.1), missed(200, 9), missed(200, 9), *near], quest)
    assert isinstance(found, Found)
    assert found.capacity == 141
    assert found.low is not None
    assert found.high is not None
    assert 134 <= found.low < 141 < found.high <= 148


@pytest.mark.parametrize("truth", [130, 190, 199])
@pytest.mark.parametrize("flat", [SLOW, "health > 95%"])
def test_a_score_that_does_not_rise_with_the_load_is_no_line(truth: float, flat: str) -> None:
    """Near the objective at every load that is held, it says nothing of where it is crossed."""

    def step(load: float) -> Tried:
        return missed(load, 10) if load > truth else held(load, 0.95, flat)

    found, _ = searched(step, Quest(start=100, limit=3200))
    assert found.kind == "between"
    assert found.low is not None
    assert found.high is not None
    assert found.low <= truth <= found.high


def test_one_disturbed_step_does_not_outvote_two() -> None:
    """However far off it was: a load that held twice is held."""
    hiccup = [missed(400, 20)]

    def step(load: float) -> Tried:
        if load == 400 and hiccup:
            return hiccup.pop()
        return held(load, 0.5) if load < 2000 else missed(load)

    found, tried = searched(step, Quest(start=100, limit=3200))
    assert [one.load for one in tried][:5] == [100, 200, 400, 400, 400]
    assert found.capacity == pytest.approx(2000, rel=0.05)


def test_a_search_uses_six_steps_at_most_behind_the_first_that_failed() -> None:
    """With its steps used up a search says how far it has come, and that this is not precise."""
    quest = replace(QUEST, precision=0.01, limit=100_000, closing_steps=3)
    found, tried = searched(lambda load: held(load) if load <= 700 else missed(load), quest)
    assert len(tried) == 7 + 1 + 3
    assert found.kind == "between"
    assert not found.is_precise
    assert "used up" in found.why


@pytest.mark.parametrize(
    ("precision", "steps"), [(0.5, 3), (0.1, 5), (0.05, 6), (0.01, 9), (0.001, 12)]
)
def test_the_steps_that_may_follow_are_as_many_as_the_precision_needs(
    precision: float, steps: int
) -> None:
    """A doubling is halved until it is narrow enough, and three steps may be repeats."""
    quest = Quest(start=10, limit=1e6, precision=precision, is_whole=False)
    assert quest.steps_to_close == steps
    found, _ = searched(lambda load: held(load) if load <= 777.7 else missed(load), quest)
    assert (found.kind, found.is_precise) == ("between", True)


@pytest.mark.parametrize("cut", range(12))
def test_a_search_goes_on_from_any_of_its_steps(cut: int) -> None:
    """What a search does next depends on its steps alone, not on who took them."""
    relay = SyntheticRelay("queue", capacity=333, noise=0.0)
    draw = random_of(1)
    found, tried = searched(lambda load: relay.step(load, draw), QUEST)
    assert len(tried) == 12
    again = list(tried[:cut])
    for step in tried[cut:]:
        answer = next_step(again, QUEST)
        assert isinstance(answer, NextStep)
        assert answer.load == step.load
        again.append(step)
    assert next_step(again, QUEST) == found


SHAPES: Sequence[tuple[Shape, float]] = [("queue", 0.1), ("power", 0.05), ("refuses", 0.1)]


@pytest.mark.parametrize(("shape", "noise"), SHAPES)
def test_noisy_relays_give_their_capacity(shape: Shape, noise: float) -> None:
    """Of 300 relays of a shape, 95 in 100 are found within 5 %, and as many intervals are true."""
    draw = random_of(7)
    right = covered = 0
    for _ in range(300):
        start = draw.randint(5, 50)
        capacity = start * 32 ** draw.uniform(0.05, 1.0)
        relay = SyntheticRelay(shape, capacity, noise, slope=draw.uniform(2, 8))
        found, tried = searched(
            lambda load, relay=relay: relay.step(load, draw),  # type: ignore[misc]
            Quest(start=start, limit=start * 100),
        )
        assert len(tried) <= 12
        assert found.kind == "between"
        assert found.capacity is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.capacity <= found.high
        right += abs(found.capacity - capacity) <= max(0.05 * capacity, 1)
        covered += found.low <= capacity <= found.high
    assert right >= 285
    assert covered >= 285


@pytest.mark.parametrize("seed", range(200))
def test_any_relay_lets_a_search_end(seed: int) -> None:
    """Whatever a relay answers, a search ends, within its limits and with bounds in order."""
    draw = random_of(seed)
    outcomes = ("held", "missed", "refused", "died", "saturated", "unclear")

    def step(load: float) -> Tried:
        outcome = draw.choices(outcomes, weights=(6, 3, 1, 1, 1, 1))[0]
        score = draw.choice([None, draw.uniform(0.01, 3)])
        reached = load * draw.random() if outcome == "refused" else None
        return Tried(load, outcome, score=score, reached=reached, came_back=draw.random() < 0.8)  # type: ignore[arg-type]

    quest = Quest(start=draw.randint(1, 50), limit=draw.randint(50, 5000))
    found, tried = searched(step, quest)
    assert all(quest.start <= one.load <= quest.limit for one in tried)
    assert found.why
    if found.low is not None and found.high is not None:
        assert found.low <= found.high


def test_rates_are_searched_too() -> None:
    """A rate need not be a whole number."""
    relay = SyntheticRelay("power", capacity=3.217, noise=0.0, slope=4)
    quest = Quest(start=0.5, limit=50, is_whole=False)
    found, _ = searched(lambda load: relay.step(load, random_of(1)), quest)
    assert found.capacity == pytest.approx(3.217, rel=0.02)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": 0},
        {"start": -1},
        {"start": 2000},
        {"precision": 0},
        {"precision": 0.9},
    ],
)
def test_a_search_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    """A start beyond the limit, or a precision that is no share, is bad usage."""
    with pytest.raises(UsageError):
        replace(QUEST, **wrong)  # type: ignore[arg-type]


def test_steps_at_one_load_are_taken_together() -> None:
    """A level's score is the middle of the logarithms, and its noise falls with the steps."""
    [level] = levels_of([Tried(5, "held", 0.5, noise=0.1), Tried(5, "missed", 2.0, noise=0.1)])
    assert level.log_score == pytest.approx(0.0)
    assert level.disagrees
    assert level.is_doubtful
    assert Level(5, (Tried(5, "held", 0.5), silent(5))).is_known
    assert Level(5, (held(5), missed(5), held(5))).is_held


def test_a_slope_is_never_flat() -> None:
    """Scores that do not rise with the load are taken to rise a little: noise has no answer."""
    low, high = levels_of([held(10, 0.5), missed(20, 0.4)])
    assert slope_between(low, high) == 0.5
    assert slope_between(*levels_of([held(10, 0.5), missed(20, 2.0)])) == pytest.approx(2.0)
