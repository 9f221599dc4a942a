"""How a step of load was: pure functions of the readings that were taken in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.limits import BUSY_CPU_PERCENT, LATE_MS, MISSED_INVALID
from run_store.steps import (
    Outcome,
    Percentiles,
    RelayState,
    Step,
    StepFigures,
    StepGenerator,
    StepObjective,
)
from scenarios.objectives import Objective
from tasks.readings import Reading, Stretch
from tasks.stop_rule import Judged, judge_stretch
from tasks.stress import Level

OPEN_SHARE = 0.98
"""A step in which fewer of its connections are open at the end did not reach its level."""
LATE_SHARE = 0.01
LATE_EDITS = 3
"""A generator that began so many edits so late, and that share of them, was at its limit."""
_OF_THE_TIME = frozenset({"edits.per_second"})
"""Metrics of what was acknowledged in the judged time, not of what became of its edits."""
BUSY_SHARE = BUSY_CPU_PERCENT / 100


@dataclass(frozen=True)
class Held:
    """A step that is over: what was wanted when, and all readings from its beginning on.

    `lost` says which workers were lost in it, `restarted` whose agents died and came back.
    """

    number: int
    attempt: int
    order: int
    phase: str
    level: Level
    started_us: int
    judged_from_us: int
    ended_us: int
    readings: Sequence[Reading]
    lost: Sequence[str] = ()
    restarted: Sequence[str] = ()


def judge_step(held: Held, objectives: Sequence[Objective]) -> Step:
    """Return the step with its figures and what is to be thought of it."""
    timely = _timely(held)
    window = _with_late(held, timely)
    judged = [
        judge_stretch(one, timely if one.metric in _OF_THE_TIME else window) for one in objectives
    ]
    whole, stretch = Stretch(held.readings or [Reading(0)]), Stretch(window or [Reading(0)])
    per_second = Stretch(timely or [Reading(0)]).per_second
    figures = _figures(whole, stretch, per_second)
    generator = _generator(stretch)
    relay, trouble = _relay(whole, figures, held, generator)
    outcome, why = _outcome(held, figures, judged, generator, trouble)
    return Step(
        number=held.number,
        attempt=held.attempt,
        order=held.order,
        phase=held.phase,
        connections=held.level.connections,
        edits_per_second=held.level.edits_per_second,
        started_us=held.started_us,
        judged_from_us=held.judged_from_us,
        ended_us=held.ended_us,
        figures=figures,
        objectives=tuple(
            StepObjective(
                text=one.objective.text, metric=one.objective.metric, got=one.got, met=one.met
            )
            for one in judged
        ),
        generator=generator,
        relay=relay,
        outcome=outcome,
        why=why,
    )


def _timely(held: Held) -> list[Reading]:
    """Return the readings of the judged time, and the last before it, to count from."""
    before = [r for r in held.readings if r.at_us <= held.judged_from_us]
    inside = [r for r in held.readings if held.judged_from_us < r.at_us <= held.ended_us]
    return [*before[-1:], *inside]


def _with_late(held: Held, timely: list[Reading]) -> list[Reading]:
    """Return them with what the last edits became, which is known a little later.

    Those counts belong to the end of the judged time, but for what is a rate: an overloaded
    relay acknowledges behind it what it was asked for in it.
    """
    window = list(timely)
    if window and held.readings[-1].at_us > held.ended_us:
        at_end = {
            name: getattr(window[-1], name)
            for name in ("connections_open", "connections_healthy", "connections_target")
        }
        window.append(replace(held.readings[-1], at_us=held.ended_us, **at_end))
    return window


def _figures(whole: Stretch, stretch: Stretch, per_second: float) -> StepFigures:
    polls = stretch.polls
    return StepFigures(
        connections_open=stretch.last.connections_open,
        connections_peak=max(r.connections_open for r in stretch.inner),
        connections_healthy=min(r.connections_healthy for r in stretch.inner),
        edits_per_second=per_second,
        edits_offered=stretch.count("offered"),
        delivery_ms=_percentiles(stretch, "delivery"),
        acknowledgement_ms=_percentiles(stretch, "acknowledgement"),
        error_rate=stretch.error_rate,
        refused=whole.count("refused"),
        timed_out=whole.count("timed_out"),
        dropped=whole.count("drops"),
        relay_memory_mb=next((p.memory_mb for p in reversed(polls) if p.memory_mb), None),
        relay_connections=polls[-1].connections if polls else None,
        relay_cpu_share=stretch.relay_cpu_share,
    )


def _percentiles(stretch: Stretch, name: str) -> Percentiles:
    histogram = stretch.histogram(name)
    return Percentiles(
        p50=histogram.quantile(0.5), p95=histogram.quantile(0.95), p99=histogram.quantile(0.99)
    )


def _generator(stretch: Stretch) -> StepGenerator:
    lateness = stretch.histogram("lateness")
    late, began = lateness.above(LATE_MS), lateness.count
    offered, missed = stretch.count("offered"), stretch.count("missed")
    busy = [r for r in stretch.inner if r.cpu_share > BUSY_SHARE and r.page_lag_ms > LATE_MS]
    why = []
    if late >= LATE_EDITS and late > LATE_SHARE * began:
        why.append(f"{late:,.0f} of {began:,.0f} edits began more than {LATE_MS:.0f} ms late")
    if missed > max(1, MISSED_INVALID * offered):
        why.append(f"{missed:,} of {offered:,} edits were not begun at all")
    if len(busy) * 2 > len(stretch.inner):
        why.append(f"a worker's CPU was above {BUSY_SHARE:.0%} and its pages late")
    return StepGenerator(
        lateness_p99_ms=lateness.quantile(0.99) or 0.0,
        cpu_share=max(r.cpu_share for r in stretch.inner),
        saturated=bool(why),
        why="; ".join(why),
    )


def _relay(
    whole: Stretch, figures: StepFigures, held: Held, generator: StepGenerator
) -> tuple[RelayState, str]:
    """Return how the relay was, and what that says against it."""
    level = held.level
    last = whole.last.relay
    if whole.relay_restarted:
        return "restarted", "the relay died in this step and was started anew"
    none_open = bool(level.connections) and figures.connections_open == 0
    is_mute = last is not None and bool(last.error)
    lost_all = bool(figures.dropped) and (last is None or is_mute)
    # It may have died before this step: then nothing is dropped in it, and nothing gets in.
    if none_open and (lost_all or (is_mute and figures.refused)):
        return "dead", "the relay is gone: it answers nothing, and no connection is open"
    short = figures.connections_open < OPEN_SHARE * level.connections
    reached = f"{figures.connections_open:,} of {level.connections:,} connections were open"
    # A worker at its limit gives connections up that the relay would have let in, and what one
    # had open that was lost is missing whatever the relay did.
    is_own_fault = generator.saturated and figures.timed_out >= figures.refused
    is_own_fault = is_own_fault or bool(held.lost or held.restarted)
    if short and figures.refused and not is_own_fault:
        return "refused", f"the relay refused connections: {reached} at the end"
    if short and figures.dropped:
        return "ok", f"the relay dropped {figures.dropped:,} connections: {reached} at the end"
    return "ok", ""


def _outcome(
    held: Held,
    figures: StepFigures,
    judged: Sequence[Judged],
    generator: StepGenerator,
    trouble: str,
) -> tuple[Outcome, str]:
    """Return what is to be thought of a step: the first of these that holds."""
    missed = "; ".join(one.sentence for one in judged if one.met is False)
    unknown = ", ".join(one.objective.metric for one in judged if one.met is None)
    met = "; ".join(one.sentence for one in judged) or "the relay held it"
    open_now, wanted = figures.connections_open, held.level.connections
    short = open_now < OPEN_SHARE * wanted
    said: tuple[tuple[bool, Outcome, str], ...] = (
        (bool(held.lost), "doubtful", f"{', '.join(held.lost)} was lost in it"),
        (
            bool(held.restarted),
            "doubtful",
            f"the agent of {', '.join(held.restarted)} died in it and was restarted",
        ),
        (bool(trouble), "bad", trouble),
        (generator.saturated and bool(missed or short), "generator_saturated", generator.why),
        (bool(missed), "bad", missed),
        (
            short,
            "doubtful",
            f"{open_now:,} of {wanted:,} connections were open, and none was refused or dropped",
        ),
        (bool(unknown), "doubtful", f"too little was measured to judge {unknown}"),
    )
    return next(((outcome, why) for holds, outcome, why in said if holds), ("good", met))
