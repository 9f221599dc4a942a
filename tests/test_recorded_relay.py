from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.recorded_relay import RecordedRelay, isotonic, value_at
from tasks.search_answer import Quest
from tests.synthetic_relay import searched


def recorded(load: float, score: float | None, outcome: str = "held") -> dict[str, Any]:
    return {"load": load, "score": score, "noise": 0.05, "outcome": outcome}


def steps_of_a_square(scatter: float = 0.0) -> list[list[dict[str, Any]]]:
    """Return four searches of a relay whose score is the square of the load over 40."""
    draw = random.Random(1)  # noqa: S311 - noise
    return [
        [
            recorded(load, (load / 40) ** 2 * math.exp(draw.gauss(0, scatter)))
            for load in (10 + search, 20, 30 + search, 38, 42, 60)
        ]
        for search in range(4)
    ]


def test_the_curve_never_falls_and_goes_through_what_rises() -> None:
    """Neighbours that fall are pooled at their mean; between points it is straight."""
    curve = isotonic([(0.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 4.0)])
    assert curve == ((0.0, 1.0), (1.5, 2.5), (3.0, 4.0))
    assert value_at(curve, 0.75) == 1.75
    assert (value_at(curve, -1.0), value_at(curve, 9.0)) == (1.0, 4.0)


@pytest.mark.parametrize(("slower", "wanted"), [(1.0, 40.0), (1.25, 32.0)])
def test_a_search_of_it_finds_the_curves_capacity(slower: float, wanted: float) -> None:
    """Also that of the relay that takes longer for everything."""
    relay = replace(RecordedRelay.of_searches(steps_of_a_square()), slower=slower)
    assert relay.capacity == pytest.approx(wanted, rel=0.01)
    step = relay.week(random.Random(2))  # noqa: S311 - noise
    found, _ = searched(step, Quest(start=8, limit=128, is_whole=False))
    assert found.capacity == pytest.approx(wanted, rel=0.05)


def test_what_lay_off_the_curve_is_drawn_again() -> None:
    """Steps at one load scatter as the recorded ones did, and those of one search less."""
    relay = RecordedRelay.of_searches(steps_of_a_square(scatter=0.2))
    draw = random.Random(3)  # noqa: S311 - noise
    scores = [relay.week(draw)(38).score or 0.0 for _ in range(200)]
    assert 0.05 < math.log(max(scores) / min(scores)) < 2
    silent = [[*steps, recorded(50, None, "unclear")] for steps in steps_of_a_square()]
    unclear = [RecordedRelay.of_searches(silent).week(draw)(30).outcome for _ in range(200)]
    assert 5 < unclear.count("unclear") < 60
