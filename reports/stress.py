"""What the steps of a stress phase say of the relay's capacity."""

from __future__ import annotations

from collections.abc import Sequence

from reports.capacity import explained, load_of, sentence_of
from reports.facts import RunFacts
from run_store.capacity import LETS_IN, LIVES, CapacityResult, Kind, Over
from run_store.steps import Step
from scenarios.model import Phase


def capacity_of(facts: RunFacts) -> tuple[CapacityResult, list[Step]] | None:
    """Return the answer of a search, or of a run's last phase with steps, and those steps.

    None if the run has none.
    """
    if not facts.steps:
        return None
    found = facts.capacity
    label = found.phase if found else facts.steps[-1].phase
    steps = [step for step in facts.steps if step.phase == label]
    if found is not None:
        return found, steps
    record = next((phase.record for phase in facts.phases if phase.label == label), None)
    scenario = facts.scenario
    phases = scenario.phases if scenario else ()
    planned = [phase for phase in phases if phase.name == label.partition("-")[2]]
    result = stress_result(
        steps,
        why=record.ended_because if record else "",
        over=_grows(planned[0]) if planned else None,
        members=scenario.connections_per_document if scenario else 0,
    )
    return None if result is None else (result, steps)


def stress_result(
    steps: Sequence[Step], *, why: str = "", over: Over | None = None, members: int = 0
) -> CapacityResult | None:
    """Return the answer that one phase's steps give, or None where there are none.

    `why` says why the phase took no further step, `over` what it was to vary (else what the steps
    tell of it), `members` how many connections share a document (0: all). Between the last step
    that held and the first above it that did not, the capacity is given as what was seen to hold.
    """
    ordered = sorted(steps, key=lambda step: step.number)
    if not ordered:
        return None
    over = over or _over(ordered)
    shape = CapacityResult(kind="unknown", over=over)
    bad = next((step for step in ordered if step.outcome == "bad"), None)
    held = [step for step in ordered if step.is_good and (bad is None or step.number < bad.number)]
    good = held[-1] if held else None
    low = load_of(good, shape) if good else None
    high = load_of(bad, shape) if bad else None
    died = bad if bad is not None and bad.relay == "dead" else None
    by_itself = {"refused": LETS_IN, "restarted": LIVES, "dead": LIVES}
    objective = by_itself.get(bad.relay, "") if bad is not None else ""
    result = CapacityResult(
        kind=_kind(good, bad),
        over=over,
        members=members,
        capacity=low if good and bad and not died else None,
        low=low,
        high=high,
        objective=bad.missed[0].text if bad is not None and bad.missed else objective,
        why=why or ordered[-1].why,
        explanation=explained(good, bad),
        start=load_of(ordered[0], shape),
        connections=ordered[-1].connections,
        edits_per_s=ordered[-1].edits_per_second,
        phase=ordered[0].phase,
        steps=len(ordered),
        last_good=good.number if good else None,
        first_bad=bad.number if bad else None,
        started_us=ordered[0].started_us,
        ended_us=ordered[-1].ended_us,
        died_us=died.ended_us if died else None,
    )
    return result.model_copy(update={"sentence": sentence_of(result)})


def _kind(good: Step | None, bad: Step | None) -> Kind:
    if bad is None:
        return "at_least" if good else "unknown"
    if bad.relay == "dead":
        return "died"
    return "between" if good else "below"


def _grows(phase: Phase) -> Over | None:
    """Return what a phase's steps vary; None if it has none."""
    connections = phase.step_connections > 0 or phase.step_factor > 1
    if phase.step_edits_per_minute > 0:
        return "both" if connections else "edits"
    return "connections" if connections else None


def _over(steps: Sequence[Step]) -> Over:
    """Return what grew from step to step."""
    connections = len({step.connections for step in steps}) > 1
    edits = len({step.edits_per_second for step in steps}) > 1
    if edits:
        return "both" if connections else "edits"
    return "connections"
