"""From measured steps to what a search takes: pure, and the same for any who looks at a bucket."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from reports.limits import BUSY_CPU_PERCENT, LATE_MS
from run_store.capacity import CapacityResult, Over
from run_store.steps import Step, StepObjective
from scenarios.objectives import Objective, parse_objective
from tasks.search_answer import Found, Quest
from tasks.search_levels import SCORE_LEAST, SCORE_MOST, Outcome, Tried

Subject = Literal["relay", "generator"]
NOISE_LEAST = 0.03
"""The histograms behind a step's percentiles are true to 2.5 %."""
NOISE_OF_ONE = 0.3
"""What the logarithm of a 95th percentile scatters by if it is of one edit; less by the root of
their number. Edits wait for each other, so that deliveries of one edit count as one."""
RELAY_LETS_IN = "the relay lets every connection in"


def tried_of(
    steps: Sequence[Step],
    *,
    over: Over,
    subject: Subject = "relay",
    relay_is_back: bool = True,
) -> list[Tried]:
    """Return a search's steps in the order in which they were taken.

    `relay_is_back` says whether the relay answers again, if the last of them killed it. With the
    generator as subject the roles change: it gives way when it saturates, and a relay that does
    so first bounds what can be said of it.
    """
    ordered = sorted(steps, key=lambda step: step.number)
    first_us = ordered[0].started_us if ordered else 0
    of = _of_relay if subject == "relay" else _of_generator
    tried = []
    for step in ordered:
        load = step.edits_per_second if over == "edits" else float(step.connections)
        is_last = step is ordered[-1]
        tried.append(of(step, load, (step.ended_us - first_us) / 1e6, relay_is_back or not is_last))
    return tried


def score_of(objective: StepObjective) -> float | None:
    """Return how far an objective was from being missed: above 1 it is; None if not measured."""
    if objective.got is None:
        return None
    parsed = parse_objective(objective.text)
    share = _share(parsed, objective.got)
    # What is met lies below the line, however it rounds.
    return min(share, 0.999) if objective.met else max(share, 1.001)


def result_of(
    found: Found,
    steps: Sequence[Step],
    *,
    over: Over,
    quest: Quest,
    connections: int,
    edits_per_s: float,
) -> CapacityResult:
    """Return what is kept of a search, without its sentences."""
    ordered = sorted(steps, key=lambda step: step.number)
    good = [s for s in ordered if s.outcome == "good" and _load(s, over) <= (found.low or 0)]
    bad = [s for s in ordered if s.outcome == "bad" and _load(s, over) >= (found.low or 0)]
    last_good = max(good, key=lambda step: (_load(step, over), step.number), default=None)
    first_bad = min(bad, key=lambda step: (_load(step, over), step.number), default=None)
    died = found.kind == "died" and bool(ordered)
    return CapacityResult(
        kind=found.kind,
        over=over,
        capacity=found.capacity,
        low=found.low,
        high=found.high,
        objective=found.objective,
        why=found.why,
        is_precise=found.is_precise,
        precision=quest.precision,
        start=quest.start,
        limit=quest.limit,
        connections=connections,
        edits_per_s=edits_per_s,
        phase=ordered[0].phase if ordered else "",
        steps=len(ordered),
        last_good=last_good.number if last_good else None,
        first_bad=first_bad.number if first_bad else None,
        started_us=ordered[0].started_us if ordered else 0,
        ended_us=ordered[-1].ended_us if ordered else 0,
        died_us=ordered[-1].ended_us if died else None,
    )


def _of_relay(step: Step, load: float, after_s: float, came_back: bool) -> Tried:
    if step.relay == "dead":
        return Tried(load, "died", came_back=came_back, after_s=after_s)
    if step.relay == "refused":
        let_in = step.figures.relay_connections or step.figures.connections_peak
        return Tried(load, "refused", reached=float(min(let_in, step.connections)))
    outcome: Outcome = {
        "good": "held",
        "bad": "missed",
        "doubtful": "unclear",
        "generator_saturated": "saturated",
    }[step.outcome]  # type: ignore[assignment]
    scores = {one.text: score for one in step.objectives if (score := score_of(one)) is not None}
    worst = max(scores, key=lambda text: scores[text], default="")
    noise = max(NOISE_LEAST, NOISE_OF_ONE / math.sqrt(max(step.figures.edits_offered, 1)))
    return Tried(load, outcome, score=scores.get(worst), noise=noise, objective=worst)


def _of_generator(step: Step, load: float, after_s: float, came_back: bool) -> Tried:
    if step.outcome == "doubtful":
        return Tried(load, "unclear")
    late = step.generator.lateness_p99_ms / LATE_MS
    score = max(late, step.generator.cpu_share / (BUSY_CPU_PERCENT / 100))
    if step.outcome == "generator_saturated":
        return Tried(load, "missed", score=max(score, 1.001), objective=step.generator.why)
    if step.outcome == "bad":
        return Tried(load, "saturated", came_back=came_back, after_s=after_s)
    return Tried(load, "held", score=min(score, 0.999))


def _load(step: Step, over: Over) -> float:
    return step.edits_per_second if over == "edits" else float(step.connections)


def _share(objective: Objective, got: float) -> float:
    """Return value over limit, or limit over value where more is better, within sensible bounds."""
    above, below = (
        (got, objective.value) if objective.operator in ("<", "<=") else (objective.value, got)
    )
    if objective.operator in ("==", "!="):
        return SCORE_LEAST if objective.is_met_by(got) else SCORE_MOST
    if below <= 0:
        return SCORE_LEAST if objective.is_met_by(got) else SCORE_MOST
    return min(max(above / below, SCORE_LEAST), SCORE_MOST)
