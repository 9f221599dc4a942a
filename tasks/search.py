"""Where does it break? The capacity search: a pure function of the steps so far.

It doubles the load until a step is not held, then halves the gap between the highest load that
held and the lowest that did not, on a scale of ratios, until that gap is as narrow as wanted.
A step near the line is repeated. So is the first that missed an objective, since all else hangs
on it, and an end of the gap that was seen once and that all later steps lean on. A generator
that is too busy bounds the answer from below and never from above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from run_store.capacity import LIVES
from tasks.search_answer import Found, Quest, closed, gave_way_by, let_in, on_the_line
from tasks.search_levels import TRIES, Level, Tried, levels_of

FACTOR = 2.0
"""By what the load grows until a step is not held. With six steps to close the gap after that
(`Quest.steps_to_close`), a search that begins within a factor of 32 takes at most twelve."""
LEANING = 3
"""An end of the gap that was seen once, and that so many later steps lean on, is repeated."""


@dataclass(frozen=True)
class NextStep:
    """The load to try next, and why it is that one."""

    load: float
    why: str


@dataclass(frozen=True)
class _Search:
    """The steps so far, and the gap that they leave: `high` did not hold, `low` below it did."""

    tried: Sequence[Tried]
    quest: Quest
    levels: list[Level]
    low: Level | None
    high: Level | None

    @property
    def last(self) -> Level:
        """The load of the last step."""
        return next(level for level in self.levels if level.load == self.tried[-1].load)


Rule = Callable[[_Search], NextStep | Found | None]


def next_step(tried: Sequence[Tried], quest: Quest) -> NextStep | Found:
    """Return the load to try next, or what was found.

    Depends on nothing but the steps so far, so a search that was cut off goes on from them.
    """
    levels = levels_of(tried)
    high = next((level for level in levels if level.gave_way), None)
    below = [level for level in levels if level.votes and (not high or level.load < high.load)]
    search = _Search(tried, quest, levels, low=below[-1] if below else None, high=high)
    for rule in _RULES:
        answer = rule(search)
        if answer is not None:
            return answer
    return closed(search.low, search.high, quest)


def cut_off(tried: Sequence[Tried], quest: Quest, why: str) -> Found:
    """Return what the steps of a search say that was ended before it had its answer."""
    levels = levels_of(tried)
    high = next((level for level in levels if level.gave_way), None)
    below = [level for level in levels if level.votes and (not high or level.load < high.load)]
    if high is None:
        kind: Literal["at_least", "unknown"] = "at_least" if below else "unknown"
        low = below[-1].load if below else None
        return Found(kind, None, low, None, why, is_precise=False, held_at=low)
    return replace(closed(below[-1] if below else None, high, quest), why=why)


def _begins(search: _Search) -> NextStep | None:
    if search.tried:
        return None
    return NextStep(search.quest.rounded(search.quest.start), "the search begins here")


def _relay_is_gone(search: _Search) -> Found | None:
    last = search.tried[-1]
    if last.outcome != "died" or last.came_back:
        return None
    after = f", {last.after_s:.0f} s after its first step" if last.after_s is not None else ""
    return Found(
        kind="died",
        capacity=None,
        low=search.low.load if search.low else None,
        high=last.load,
        why=f"the relay died at {last.load:g}{after}, and did not come back",
        objective=LIVES,
        is_precise=False,
        held_at=search.low.load if search.low else None,
        gave_way_at=last.load,
    )


def _generator_is_at_its_end(search: _Search) -> Found | None:
    mute = next((level for level in search.levels if level.is_given_up), None)
    if mute is None:
        return None
    why = f"{mute.steps[-1].why} at {mute.load:g}"
    if mute.steps[-1].outcome == "unclear":
        why = f"too little was seen of the relay at {mute.load:g}"
    low, high = search.low, search.high
    if low is None:
        return Found("unknown", None, None, high.load if high else None, why, is_precise=False)
    if high is None or high.load < mute.load:
        return Found("at_least", None, low.load, None, why, held_at=low.load)
    return replace(closed(low, high, search.quest), why=why, is_precise=False)


def _is_out_of_steps(search: _Search) -> Found | None:
    # A step that missed and was outvoted by others at its load has ended no growth.
    unheld = {level.load for level in search.levels if level.gave_way}
    failed = [
        at
        for at, step in enumerate(search.tried)
        if step.outcome in ("missed", "refused", "died") and step.load in unheld
    ]
    if not failed or len(search.tried) - failed[0] - 1 < search.quest.steps_to_close:
        return None
    return closed(search.low, search.high, search.quest)


def _unclear_is_repeated(search: _Search) -> NextStep | None:
    unclear = next((level for level in search.levels if not level.is_known), None)
    if unclear is None:
        return None
    why = "its steps disagree" if unclear.votes else "it said nothing of the relay"
    return NextStep(unclear.load, f"{unclear.load:g} is repeated: {why}")


def _grows(search: _Search) -> NextStep | Found | None:
    if search.high is not None or search.low is None:
        return None
    load, quest = search.low.load, search.quest
    if load >= quest.rounded(quest.limit):
        why = f"no objective gave way up to the limit of {load:g}"
        return Found("at_least", None, load, None, why, held_at=load)
    grown = quest.rounded(max(load * FACTOR, load + (1 if quest.is_whole else 0)))
    return NextStep(grown, f"{load:g} held: the load grows")


def _first_miss_is_repeated(search: _Search) -> NextStep | None:
    """Repeat the first step that missed an objective.

    A relay that refuses or dies says so itself, and needs no second try.
    """
    failed = [
        step.outcome for step in search.tried if step.outcome in ("missed", "refused", "died")
    ]
    if failed != ["missed"] or search.tried[-1].outcome != "missed":
        return None
    load = search.tried[-1].load
    return NextStep(load, f"{load:g} is repeated: it is the first that was missed")


def _nothing_held(search: _Search) -> Found | None:
    if search.low is not None or search.high is None:
        return None
    high = search.high
    why = f"the first step, {high.load:g}, was not held"
    return Found("below", None, None, high.load, why, gave_way_by(high), gave_way_at=high.load)


def _near_the_line(search: _Search) -> NextStep | Found | None:
    low, high, last = search.low, search.high, search.last
    if low is None or high is None or last not in (low, high) or not last.is_doubtful:
        return None
    if len(last.steps) < TRIES - 1:
        return NextStep(last.load, f"{last.load:g} is repeated: it lies near the objective")
    below = [level for level in search.levels if level.votes and level.load < low.load]
    return on_the_line(last, low, high, search.quest, below=below[-1] if below else None)


def _is_narrow(search: _Search) -> NextStep | Found | None:
    low, high = search.low, search.high
    if low is None or high is None or not search.quest.is_narrow(low.load, high.load):
        return None
    leaning = _leaning(search.tried, low, high)
    if leaning is not None:
        return NextStep(leaning, f"{leaning:g} is repeated: the answer leans on this one step")
    return closed(low, high, search.quest)


def _leaning(tried: Sequence[Tried], low: Level, high: Level) -> float | None:
    """Return the end of the gap that was seen once, while all that followed spoke for the other."""
    for end, other in ((high, low), (low, high)):
        if len(end.steps) > 1 or end.steps[0].outcome == "refused":
            continue
        behind = tried[tried.index(end.steps[0]) + 1 :]
        if len(behind) >= LEANING and all(
            (step.outcome == "held") == other.is_held for step in behind
        ):
            return end.load
    return None


def _between(search: _Search) -> NextStep | None:
    """Try what the relay itself let in, and then just above; else the middle of the gap."""
    low, high, quest = search.low, search.high, search.quest
    if low is None or high is None:
        return None
    reached = let_in(high)
    if reached is not None:
        told = quest.rounded(reached)
        above = quest.rounded(max(low.load * (1 + quest.precision), low.load + 1))
        if low.load < told < high.load:
            return NextStep(told, f"at {high.load:g} the relay let {told:g} in")
        if low.load == told and above < high.load:
            return NextStep(above, f"just above {told:g}, which the relay let in")
    middle = quest.rounded(math.sqrt(low.load * high.load))
    if not low.load < middle < high.load:
        middle = quest.rounded((low.load + high.load) / 2)
    return NextStep(middle, f"between {low.load:g}, which held, and {high.load:g}, which did not")


_RULES: tuple[Rule, ...] = (
    _begins,
    _relay_is_gone,
    _generator_is_at_its_end,
    _is_out_of_steps,
    _near_the_line,
    _unclear_is_repeated,
    _grows,
    _first_miss_is_repeated,
    _nothing_held,
    _is_narrow,
    _between,
)
"""Asked in this order; the first that has an answer gives it."""
