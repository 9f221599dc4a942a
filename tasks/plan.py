"""What comes next: pure functions from the scenario and what is done to the next order."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from run_store.layout import phase_label
from run_store.messages import RECONNECT, Line, Order, PhaseRecord, PhaseRef
from run_store.schedule import Plan, connections_planned, edits_of_documents, planned_edits
from scenarios.model import Scenario
from tasks.stress import CONNECTIONS_PER_S, SHORTEST_RAMP_S, Course, Level

EDITS_OF_AN_ATTEMPT = 100_000_000
"""Edits are numbered from a multiple of this, so that attempts never share a number."""
RECONNECTIONS_PER_S = 20.0
"""How fast a retried run brings its connections back before it goes on."""
WIND_DOWN_S = 5.0
"""How long the cool-down of a run that was told to stop lasts at most."""


@dataclass(frozen=True)
class Progress:
    """How far an attempt has come: what the next order continues from."""

    attempt: int
    next_order: int = 1
    connections: int = 0
    next_edit: int = 0
    document_edits: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of_attempt(cls, attempt: int) -> Progress:
        """Return the beginning of an attempt."""
        return cls(attempt=attempt, next_edit=(attempt - 1) * EDITS_OF_AN_ATTEMPT)

    def after(self, order: Order, plan: Plan) -> Progress:
        """Return where things stand when an order has been carried out in full."""
        return self._at(order, order.duration_s, edits_of_documents(order, plan), plan)

    def after_part(self, order: Order, plan: Plan, seconds: float) -> Progress:
        """Return where things stand when only the first `seconds` of an order were carried out.

        The numbers of the edits that were not made are not given to others.
        """
        made = dict(order.document_edits)
        for edit in planned_edits(order, plan):
            if edit.at_s < seconds:
                made[edit.document] = made.get(edit.document, 0) + 1
        return self._at(order, seconds, made, plan)

    def _at(self, order: Order, seconds: float, made: dict[int, int], plan: Plan) -> Progress:
        return replace(
            self,
            next_order=order.number + 1,
            connections=connections_planned(order, seconds),
            next_edit=order.first_edit + len(planned_edits(order, plan)),
            document_edits=made,
        )


def plan_order(
    scenario: Scenario,
    index: int,
    *,
    progress: Progress,
    slots: Sequence[str],
    starts_at_us: int,
    polls_relay: bool = True,
    held: int | None = None,
) -> Order:
    """Return the order of the scenario's phase `index`, going on from `progress`.

    Every worker that still holds a slot may sample the relay (if it `polls_relay` at all), the
    first of them first. Without connections there is nobody to edit. `held` is what steps of
    load before it were seen to hold: what a cool-down keeps that names no number itself.
    """
    phase = scenario.phases[index]
    target, within_s = scenario.connections_at_end_of(phase), 0.0
    if held is not None and phase.kind == "cooldown" and phase.connections is None:
        # Soon, since those beyond it are what the relay does not hold.
        moved = abs(held - progress.connections)
        target, within_s = held, max(SHORTEST_RAMP_S, moved / CONNECTIONS_PER_S)
    rates = Line(start=phase.edits_per_minute / 60, end=phase.edits_per_minute / 60)
    if phase.edits_per_minute_start is not None:
        rates.start = phase.edits_per_minute_start / 60
    if max(target, progress.connections) == 0:
        rates = Line(start=0, end=0)
    return Order(
        number=progress.next_order,
        attempt=progress.attempt,
        action="run",
        starts_at_us=starts_at_us,
        duration_s=phase.duration_s,
        phase=PhaseRef(index=index, name=phase.name, kind=phase.kind),
        connections=Line(start=progress.connections, end=target),
        connections_within_s=min(within_s, phase.duration_s),
        edits_per_s=rates,
        slots=list(slots),
        first_edit=progress.next_edit,
        document_edits=progress.document_edits,
        relay_samplers=_in_order(slots) if polls_relay else [],
        drop_share=phase.drop_share if phase.kind == "storm" else 0.0,
        check_replicas=phase.kind == "cooldown" or index == len(scenario.phases) - 1,
    )


def step_order(
    scenario: Scenario,
    index: int,
    *,
    level: Level,
    course: Course,
    progress: Progress,
    slots: Sequence[str],
    starts_at_us: int,
    polls_relay: bool = True,
) -> Order:
    """Return the order of one step of a stress phase: to a level, and to stay there.

    The edits have the level's rate from the beginning on.
    """
    order = plan_order(
        scenario,
        index,
        progress=progress,
        slots=slots,
        starts_at_us=starts_at_us,
        polls_relay=polls_relay,
    )
    rate = level.edits_per_second if max(level.connections, progress.connections) else 0.0
    return order.model_copy(
        update={
            "duration_s": course.duration_s,
            "connections": Line(start=progress.connections, end=level.connections),
            "connections_within_s": course.ramp_s,
            "edits_per_s": Line(start=rate, end=rate),
            "check_replicas": False,
        }
    )


def rest_of_order(order: Order, *, at_s: float, progress: Progress, slots: Sequence[str]) -> Order:
    """Return the order that goes on with what is left of one from `at_s` into it on.

    It has other slots, since a worker was lost; `progress` is where things stand by then.
    """
    share = at_s / order.duration_s
    return order.model_copy(
        update={
            "number": progress.next_order,
            "starts_at_us": order.starts_at_us + round(at_s * 1e6),
            "duration_s": order.duration_s - at_s,
            "connections": Line(start=progress.connections, end=order.connections.end),
            "connections_within_s": max(0.0, order.connections_within_s - at_s),
            "edits_per_s": Line(start=order.edits_per_s.at(share), end=order.edits_per_s.end),
            "slots": list(slots),
            "first_edit": progress.next_edit,
            "document_edits": progress.document_edits,
            "relay_samplers": _in_order(slots) if order.relay_samplers else [],
            "drop_share": 0.0,
        }
    )


def reconnect_order(
    index: int,
    *,
    connections: int,
    progress: Progress,
    slots: Sequence[str],
    starts_at_us: int,
    polls_relay: bool = True,
) -> Order:
    """Return the order that brings a retried run's connections back, before phase `index`.

    Nothing is edited, and its samples belong to no phase of the scenario.
    """
    return Order(
        number=progress.next_order,
        attempt=progress.attempt,
        action="run",
        starts_at_us=starts_at_us,
        duration_s=max(3.0, connections / RECONNECTIONS_PER_S),
        phase=PhaseRef(index=index, name=RECONNECT, kind="ramp"),
        connections=Line(start=progress.connections, end=connections),
        slots=list(slots),
        first_edit=progress.next_edit,
        document_edits=progress.document_edits,
        relay_samplers=_in_order(slots) if polls_relay else [],
    )


def wind_down_order(
    scenario: Scenario,
    after: int,
    *,
    progress: Progress,
    slots: Sequence[str],
    starts_at_us: int,
    polls_relay: bool = True,
    at_most_s: float = WIND_DOWN_S,
) -> Order | None:
    """Return the scenario's cool-down, shortened, for a run that is cut short in phase `after`.

    The connections stay as they are: none is opened or closed for it. None if the scenario has
    no cool-down behind that phase: then the load just stops.
    """
    for index in range(after + 1, len(scenario.phases)):
        if scenario.phases[index].kind == "cooldown":
            order = plan_order(
                scenario,
                index,
                progress=progress,
                slots=slots,
                starts_at_us=starts_at_us,
                polls_relay=polls_relay,
            )
            level = Line(start=progress.connections, end=progress.connections)
            length_s = min(order.duration_s, at_most_s)
            return order.model_copy(update={"connections": level, "duration_s": length_s})
    return None


def slots_of(workers: Sequence[str], lost: Collection[str], *, spread: bool) -> list[str]:
    """Return which worker holds each slot.

    A lost worker's slot is empty; with `spread` the others take those slots in turn, so that
    its connections come back with them.
    """
    left = [worker for worker in workers if worker not in lost]
    heirs = itertools.cycle(left if spread and left else [""])
    return [next(heirs) if worker in lost else worker for worker in workers]


def stop_order(progress: Progress, *, starts_at_us: int, reason: str) -> Order:
    """Return the order that ends an attempt's load."""
    return Order(
        number=progress.next_order,
        attempt=progress.attempt,
        action="stop",
        starts_at_us=starts_at_us,
        reason=reason,
    )


def remaining_phases(scenario: Scenario, done: Sequence[PhaseRecord]) -> list[int]:
    """Return the phases that are still to be carried out, in order.

    Those before the first that is not complete count, even if one behind it is.
    """
    complete = {record.label for record in done if not record.stopped_early}
    for index, phase in enumerate(scenario.phases):
        if phase_label(index, phase.name) not in complete:
            return list(range(index, len(scenario.phases)))
    return []


def connections_before(scenario: Scenario, index: int) -> int:
    """Return how many connections are open when phase `index` begins."""
    return scenario.connections_at_end_of(scenario.phases[index - 1]) if index else 0


def _in_order(slots: Sequence[str]) -> list[str]:
    return [worker for worker in dict.fromkeys(slots) if worker]
