"""What a capacity search found: the answer that the gap between two loads gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from run_store.capacity import LETS_IN, LIVES
from run_store.errors import UsageError
from tasks.search_levels import SLOPE_LEAST, Level, slope_between

CERTAIN = 2.0
"""An interval reaches so many standard errors to each side: about 95 %."""

TAKEN_AGAIN = 3
"""So many of the steps that close the gap may be repeats: the first miss, and doubtful ones."""

Kind = Literal["between", "at_least", "below", "died", "unknown"]


@dataclass(frozen=True)
class Quest:
    """What is searched for: from which load, up to which, how closely.

    `precision` is a share: 0.05 is an answer within 5 % to each side. `is_whole`: loads are
    whole numbers, as connections are. `closing_steps` may follow the first that was not held; by
    default so many as the precision needs.
    """

    start: float
    limit: float
    precision: float = 0.05
    is_whole: bool = True
    closing_steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if not 0 < self.start <= self.limit:
            raise UsageError(
                f"A search from {self.start:g} to {self.limit:g} has nowhere to go.",
                hint="Give a --start above zero, and a --limit that is not below it.",
            )
        if not 0.001 <= self.precision <= 0.5:  # noqa: PLR2004 - shares that mean something
            raise UsageError(
                f"A precision of {self.precision:.4g} cannot be had.",
                hint="Give one from 0.1 % to 50 %.",
            )

    @property
    def steps_to_close(self) -> int:
        """How many steps may follow the first that was not held.

        Each halves a gap that begins as a doubling, on a scale of ratios; some are taken again.
        """
        if self.closing_steps is not None:
            return self.closing_steps
        halvings = math.log2(math.log(2) / (2 * math.log1p(self.precision)))
        return max(math.ceil(halvings), 0) + TAKEN_AGAIN

    def rounded(self, load: float) -> float:
        """Return a load that can be made, from the start to the limit."""
        load = min(max(load, self.start), self.limit)
        return float(round(load)) if self.is_whole else float(f"{load:.4g}")

    def is_narrow(self, low: float, high: float) -> bool:
        """Say whether a gap is as narrow as is wanted of the answer."""
        if self.is_whole and high - low <= 1:
            return True
        return high / low <= (1 + self.precision) ** 2


@dataclass(frozen=True)
class Found:
    """The end of a search.

    `between`: the capacity lies from `low` to `high`, most likely at `capacity`. `at_least`: it
    is `low` or more. `below`: it is less than `high`. `died`: the relay died at `high` and did
    not come back; it had held `low` if that is given. `unknown`: no step could be believed.
    `objective` is what gave way first; `is_precise` whether the interval is as narrow as wanted.
    The interval may reach beyond the loads that were tried: the highest that held was `held_at`,
    the lowest that did not `gave_way_at`.
    """

    kind: Kind
    capacity: float | None
    low: float | None
    high: float | None
    why: str
    objective: str = ""
    is_precise: bool = True
    held_at: float | None = field(default=None, compare=False)
    gave_way_at: float | None = field(default=None, compare=False)


def on_the_line(
    level: Level, low: Level, high: Level, quest: Quest, *, below: Level | None
) -> Found | None:
    """Return the answer if a load lies so near the line that it is the capacity; else None.

    `level` is one end of the gap from `low` to `high`, `below` the load under that. Scores of two
    objectives are no rise. A score that is near the line and has not moved with the load, until
    it jumps, says nothing of where it crosses: nothing steeper is taken than what led up to it.
    """
    middle = level.log_score
    if middle is None or nearest_to(low) != gave_way_by(high):
        return None
    slope = slope_between(low, high)
    if level is low:
        slope = min(slope, slope_between(below, low) if below else SLOPE_LEAST)
    reach = (abs(middle) + CERTAIN * level.noise) / slope
    if reach > math.log1p(quest.precision):
        return None
    at = level.load * math.exp(-middle / slope)
    return Found(
        kind="between",
        capacity=_said(at, quest),
        low=_said(level.load * math.exp(-reach), quest, down=True),
        high=_said(level.load * math.exp(reach), quest, up=True),
        why=f"{level.load:g} lies on the objective's line",
        objective=gave_way_by(high),
        held_at=low.load,
        gave_way_at=high.load,
    )


def closed(low: Level | None, high: Level | None, quest: Quest) -> Found:
    """Return the answer that a gap gives, widened where an end of it is doubtful."""
    if high is None:
        load, why = low.load if low else None, "the steps are used up"
        return Found("at_least", None, load, None, why, held_at=load)
    objective = gave_way_by(high)
    if low is None:
        why = "the steps are used up"
        return Found("below", None, None, high.load, why, objective, False, gave_way_at=high.load)
    slope = slope_between(low, high)
    narrow = quest.is_narrow(low.load, high.load)
    from_load = low.load / math.exp(_doubt(low, slope))
    to_load = high.load * math.exp(_doubt(high, slope))
    return Found(
        kind="between",
        capacity=_crossing(low, high, quest),
        low=_said(from_load, quest, down=True),
        high=_said(to_load, quest, up=True),
        why=(
            f"{low.load:g} held and {high.load:g} did not"
            if narrow
            else f"the steps are used up between {low.load:g} and {high.load:g}"
        ),
        objective=objective,
        is_precise=quest.is_narrow(from_load, to_load),
        held_at=low.load,
        gave_way_at=high.load,
    )


def gave_way_by(high: Level) -> str:
    """Return what most of the steps at a load that was not held gave way by."""
    said = {"refused": LETS_IN, "died": LIVES}
    named = [
        said.get(step.outcome, step.objective) for step in high.votes if step.outcome != "held"
    ]
    return _most_named(named)


def nearest_to(low: Level) -> str:
    """Return the objective that most of the steps at a load came nearest to missing."""
    return _most_named([step.objective for step in low.votes])


def _most_named(names: Sequence[str]) -> str:
    return max(names, key=names.count, default="")


def let_in(high: Level) -> float | None:
    """Return how many connections a relay that refused some has let in; None if it did not."""
    reached = [step.reached for step in high.votes if step.reached is not None]
    return max(reached) if reached and high.steps[0].outcome == "refused" else None


def _crossing(low: Level, high: Level, quest: Quest) -> float:
    """Return where the score crosses the line, by a power law between the ends of the gap.

    Without scores on both ends it is their middle; where the relay refused, what it let in.
    """
    reached = let_in(high)
    if reached is not None:
        return _said(min(max(low.load, reached), high.load), quest)
    if quest.is_whole and high.load - low.load <= 1:
        return low.load
    below, above = low.log_score, high.log_score
    share = 0.5
    if below is not None and above is not None and below < 0 < above:
        share = -below / (above - below)
    return _said(low.load * (high.load / low.load) ** share, quest)


def _doubt(level: Level, slope: float) -> float:
    """Return by how much an end of the gap is moved outwards, as the logarithm of a ratio."""
    middle = level.log_score
    if middle is None or not level.is_doubtful:
        return 0.0
    return max(0.0, CERTAIN * level.noise - abs(middle)) / max(slope, SLOPE_LEAST)


def _said(load: float, quest: Quest, *, down: bool = False, up: bool = False) -> float:
    """Return a load as it can be said: a whole one where there are no others."""
    if not quest.is_whole:
        return float(f"{load:.4g}")
    if down:
        return float(math.floor(load))
    return float(math.ceil(load)) if up else float(round(load))
