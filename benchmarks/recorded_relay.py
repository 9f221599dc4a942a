"""A relay as it was recorded: steps at any load, resampled from those of real searches.

The recorded scores give a curve over load (isotonic regression of the logarithms: more load is
no better; Barlow and others 1972, Statistical Inference under Order Restrictions). A step at a
load is the curve's score there times what a recorded step of about that load lay off the curve.
Each search draws one recorded search and lies off by what that one did, on the average, so that
what is alike within a search stays alike.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tasks.search_levels import SCORE_LEAST, SCORE_MOST, SILENT, Tried

NEIGHBOURS = 10
"""A step's scatter is drawn from so many recorded ones, those nearest in load."""


@dataclass(frozen=True)
class _Seen:
    """A recorded step: the logarithms of its load and score, and how far it lay off the curve."""

    at: float
    score: float
    noise: float
    search: int
    off: float = 0.0


@dataclass(frozen=True)
class RecordedRelay:
    """The curve and what lay off it. `slower` is by what the relay takes longer for everything."""

    curve: tuple[tuple[float, float], ...]
    seen: tuple[_Seen, ...]
    by_search: tuple[float, ...]
    silent_share: float
    slower: float = 1.0

    @classmethod
    def of_file(cls, file: Path) -> Self:
        """Read what `benchmarks.step_recording` wrote."""
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return cls.of_searches(told["searches"])

    @classmethod
    def of_searches(cls, searches: Sequence[Sequence[dict[str, Any]]]) -> Self:
        """Fit the curve to the steps of some searches."""
        steps = [(number, step) for number, steps in enumerate(searches) for step in steps]
        told = [
            _Seen(
                at=math.log(step["load"]),
                score=math.log(min(max(step["score"], SCORE_LEAST), SCORE_MOST)),
                noise=step["noise"],
                search=number,
            )
            for number, step in steps
            if step["outcome"] not in SILENT and step["score"] is not None
        ]
        told.sort(key=lambda one: one.at)
        curve = isotonic([(one.at, one.score) for one in told])
        off = [one.score - value_at(curve, one.at) for one in told]
        mean_of = {
            number: statistics.fmean(
                o for o, one in zip(off, told, strict=True) if one.search == number
            )
            for number in sorted({one.search for one in told})
        }
        seen = tuple(
            _Seen(one.at, one.score, one.noise, one.search, o - mean_of[one.search])
            for o, one in zip(off, told, strict=True)
        )
        return cls(curve, seen, tuple(mean_of.values()), 1 - len(told) / len(steps))

    @property
    def capacity(self) -> float:
        """The load at which the curve crosses the objective's line."""
        for (low, below), (high, above) in itertools.pairwise(self.curve):
            if below < 0 <= above:
                share = -below / (above - below)
                return math.exp(low + share * (high - low)) / self.slower
        raise ValueError("the recorded steps do not cross the objective's line")

    def week(self, draw: random.Random) -> Callable[[float], Tried]:
        """Return what steps one search of it, to be asked at any load."""
        off = draw.choice(self.by_search)

        def step(load: float) -> Tried:
            at = math.log(load * self.slower)
            if draw.random() < self.silent_share:
                return Tried(load, "unclear")
            near = sorted(self.seen, key=lambda one: abs(one.at - at))[:NEIGHBOURS]
            drawn = draw.choice(near)
            score = math.exp(value_at(self.curve, at) + off + drawn.off)
            return Tried(
                load,
                "held" if score < 1 else "missed",
                score=score,
                noise=drawn.noise,
                objective="as recorded",
            )

        return step


def isotonic(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the closest curve through points, sorted by their first, that never falls.

    By pooling neighbours that do; each pool is given at the mean of its places.
    """
    pools: list[list[tuple[float, float]]] = []
    for point in points:
        pools.append([point])
        while len(pools) > 1 and _mean(pools[-2], 1) >= _mean(pools[-1], 1):
            pools[-2:] = [pools[-2] + pools[-1]]
    return tuple((_mean(pool, 0), _mean(pool, 1)) for pool in pools)


def value_at(curve: Sequence[tuple[float, float]], at: float) -> float:
    """Return a curve's value, straight between its points and level beyond them."""
    places = [place for place, _ in curve]
    right = bisect_right(places, at)
    if right == 0:
        return curve[0][1]
    if right == len(curve):
        return curve[-1][1]
    (low, below), (high, above) = curve[right - 1], curve[right]
    return below + (at - low) / (high - low) * (above - below)


def _mean(pool: Sequence[tuple[float, float]], which: int) -> float:
    return statistics.fmean(point[which] for point in pool)
