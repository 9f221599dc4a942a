"""What a capacity search knows of each load that it has tried: pure functions of the steps.

A step's *score* is how far it was from the objective that it came nearest to missing: the value
over the limit (or the limit over the value, where more is better), so that 1 lies on the line.
Steps at the same load are taken together by the median of their scores' logarithms: one that was
disturbed is outvoted by two that were not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Outcome = Literal["held", "missed", "refused", "died", "saturated", "unclear"]
SILENT = frozenset({"saturated", "unclear"})
"""Outcomes that say nothing of the relay."""
SCORE_LEAST, SCORE_MOST = 0.01, 100.0
"""Scores beyond are as good as these: an error rate of zero has no logarithm."""
DOUBT = math.log(1.1)
"""A score nearer to the line than this is doubtful, however little it scatters."""
TRIES = 3
"""A load is tried no more often than this."""
SILENT_TRIES = 2
"""A load that said nothing of the relay so often will not say more."""
SLOPE_LEAST = 0.5
"""The least that a score is taken to rise with load, both in logarithms: as its square root."""


@dataclass(frozen=True)
class Tried:
    """One step of load and how it went.

    `missed`: an objective was; `refused`: the relay let only `reached` connections in; `died`:
    it was gone, and `came_back` or not; `saturated`: the generator was too busy for the result
    to be believed; `unclear`: too little was seen. `noise` is the standard error of the score's
    logarithm. `objective` is the one that the score is of; `after_s` when the relay died. `why`
    says what was at its end of a step that says nothing of the subject.
    """

    load: float
    outcome: Outcome
    score: float | None = None
    noise: float = 0.05
    objective: str = ""
    reached: float | None = None
    came_back: bool = True
    after_s: float | None = None
    why: str = "the generator was saturated"


@dataclass(frozen=True)
class Level:
    """All steps at one load, taken together. `log_score` is None where they have none."""

    load: float
    steps: tuple[Tried, ...]

    @property
    def votes(self) -> tuple[Tried, ...]:
        """The steps that say something of the relay."""
        return tuple(step for step in self.steps if step.outcome not in SILENT)

    @property
    def log_score(self) -> float | None:
        """The median of the scores' logarithms; positive where the objective is missed."""
        scores = [step.score for step in self.votes if step.score is not None]
        if not scores or len(scores) < len(self.votes):
            return None
        return median(math.log(min(max(s, SCORE_LEAST), SCORE_MOST)) for s in scores)

    @property
    def noise(self) -> float:
        """The standard error of `log_score`: what the steps say, or what lies between them."""
        votes = self.votes
        told = math.sqrt(sum(step.noise**2 for step in votes)) / max(len(votes), 1)
        if len(votes) < 2 or self.log_score is None:  # noqa: PLR2004 - one has no scatter
            return told
        scores = [math.log(min(max(s.score or 1, SCORE_LEAST), SCORE_MOST)) for s in votes]
        spread = (max(scores) - min(scores)) / 2 / math.sqrt(len(votes) - 1)
        return max(told, min(spread, 3 * told))

    @property
    def is_held(self) -> bool:
        """Whether the relay held this load: by the middle score, else by most of the steps."""
        held = sum(step.outcome == "held" for step in self.votes)
        middle = self.log_score
        if middle is not None and 0 < held < len(self.votes):
            return middle < 0
        return 2 * held > len(self.votes)

    @property
    def gave_way(self) -> bool:
        """Whether something was seen of the relay at this load, and it did not hold it."""
        return bool(self.votes) and not self.is_held

    @property
    def is_known(self) -> bool:
        """Whether there is a step that says something of the relay, and none contradicts it."""
        return bool(self.votes) and not self.disagrees

    @property
    def disagrees(self) -> bool:
        """Whether some of its steps held and others did not, and one more would settle it."""
        held = sum(step.outcome == "held" for step in self.votes)
        return 0 < held < len(self.votes) < TRIES

    @property
    def is_doubtful(self) -> bool:
        """Whether it lies so near the line that the next step might go the other way."""
        middle = self.log_score
        return middle is not None and abs(middle) < max(DOUBT, 2 * self.noise)

    @property
    def is_given_up(self) -> bool:
        """Whether it was tried often enough without a word of the relay."""
        return not self.votes and len(self.steps) >= SILENT_TRIES


def levels_of(tried: Sequence[Tried]) -> list[Level]:
    """Return what is known of each load, the smallest first."""
    loads = sorted({step.load for step in tried})
    return [Level(load, tuple(step for step in tried if step.load == load)) for load in loads]


def slope_between(low: Level, high: Level) -> float:
    """Return how steeply the score rises from one load to a higher one, both in logarithms."""
    first, last = low.log_score, high.log_score
    if first is None or last is None or high.load <= low.load:
        return SLOPE_LEAST
    return max((last - first) / math.log(high.load / low.load), SLOPE_LEAST)
