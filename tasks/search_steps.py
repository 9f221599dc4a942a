"""From measured steps to what a search takes: pure, and the same for any who looks at a bucket."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.limits import LATE_MS
from run_store.capacity import KEEPS_TIME, CapacityResult, Over, Subject
from run_store.steps import Step, StepObjective
from scenarios.objectives import Objective, parse_objective
from tasks.search_answer import Found, Quest
from tasks.search_levels import SCORE_LEAST, SCORE_MOST, Outcome, Tried

NOISE_LEAST = 0.03
"""The histograms behind a step's percentiles are true to 2.5 %."""
NOISE_OF_ONE = 0.3
"""What the logarithm of a 95th percentile scatters by if it is of one edit; less by the root of
their number. Edits wait for each other, so that deliveries of one edit count as one."""


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
    tried = []
    for step in ordered:
        load, after_s = _load(step, over), (step.ended_us - first_us) / 1e6
        if subject == "generator":
            tried.append(_of_generator(step, load))
        elif step.relay in ("dead", "restarted"):
            came_back = step.relay == "restarted" or relay_is_back or step is not ordered[-1]
            tried.append(Tried(load, "died", came_back=came_back, after_s=after_s))
        else:
            tried.append(_of_relay(step, load, over))
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
    subject: Subject = "relay",
    members: int = 0,
) -> CapacityResult:
    """Return what is kept of a search, without its sentences.

    `members` is how many connections share a document; 0: all of them.
    """
    ordered = sorted(steps, key=lambda step: step.number)
    tried = list(zip(ordered, tried_of(ordered, over=over, subject=subject), strict=True))
    held = [s for s, one in tried if one.load == found.held_at and one.outcome == "held"]
    gave_way = [
        s
        for s, one in tried
        if one.load == found.gave_way_at and one.outcome in ("missed", "refused", "died")
    ]
    last_good = held[-1] if held else None
    first_bad = gave_way[0] if gave_way else None
    died = found.kind == "died" and bool(ordered)
    return CapacityResult(
        kind=found.kind,
        over=over,
        subject=subject,
        members=members,
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
        came_back=False if died else None,
    )


def _of_relay(step: Step, load: float, over: Over) -> Tried:
    if step.relay == "refused":
        let_in = step.figures.relay_connections or step.figures.connections_peak
        reached = float(min(let_in, step.connections))
        # What it let in are connections: of a search over edits they are no load.
        return Tried(load, "refused", reached=None if over == "edits" else reached)
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


def _of_generator(step: Step, load: float) -> Tried:
    """Return a step of a calibration: a late worker gives way, also where no objective was missed.

    Beside a relay that refused or died nothing is known of the worker.
    """
    # By lateness alone: a worker whose CPU is busy and that keeps its time holds its load.
    score = step.generator.lateness_p99_ms / LATE_MS
    if step.outcome == "doubtful":
        return Tried(load, "unclear")
    if step.relay == "ok" and step.generator.saturated:
        return Tried(load, "missed", score=max(score, 1.001), objective=KEEPS_TIME)
    if step.outcome == "bad":
        return Tried(load, "saturated", why=f"the relay gave way first ({step.why})")
    return Tried(load, "held", score=min(score, 0.999), objective=KEEPS_TIME)


def _load(step: Step, over: Over) -> float:
    return step.edits_per_second if over == "edits" else float(step.connections)


def _share(objective: Objective, got: float) -> float:
    """Return value over limit, or limit over value where more is better, within sensible bounds.

    Of a share that is 100 % at best it is what it falls short of that: 99 % is far from 95 %.
    """
    above, below = got, objective.value
    if objective.operator in (">", ">="):
        above, below = below, above
        if objective.metric.endswith("health_score"):
            above, below = 100 - got, 100 - objective.value
    if objective.operator in ("==", "!="):
        return SCORE_LEAST if objective.is_met_by(got) else SCORE_MOST
    if below <= 0:
        return SCORE_LEAST if objective.is_met_by(got) else SCORE_MOST
    return min(max(above / below, SCORE_LEAST), SCORE_MOST)
