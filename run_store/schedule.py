"""What an order means: who opens which connection when, and who makes which edit when.

Pure functions of the order. Every worker computes the same schedule for itself, a restarted
one computes it again, and what a killed one left undone can be derived afterwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from run_store.messages import Line, Order

SETTLE_S = 2.0
"""An edit's writer is chosen among connections that were due at least so long before."""


@dataclass(frozen=True)
class Plan:
    """The parts of a scenario that a schedule depends on."""

    connections_per_document: int
    edits_per_document: int
    pacing: str
    seed: int
    offline_s: float = 0.0


class HasSchedule(Protocol):
    """What a scenario tells a schedule."""

    @property
    def connections_per_document(self) -> int:
        """Members of a document; 0 for all on one."""

    @property
    def edits_per_document(self) -> int:
        """Edits after which a document is followed by a fresh one."""

    @property
    def pacing(self) -> str:
        """`constant` or `poisson`."""

    @property
    def seed(self) -> int:
        """What all draws depend on."""

    @property
    def offline_s(self) -> float:
        """How long each connection is cut off in each phase."""


def plan_of(scenario: HasSchedule) -> Plan:
    """Return the parts of a scenario that a schedule depends on."""
    return Plan(
        connections_per_document=scenario.connections_per_document,
        edits_per_document=scenario.edits_per_document,
        pacing=scenario.pacing,
        seed=scenario.seed,
        offline_s=scenario.offline_s,
    )


@dataclass(frozen=True)
class PlannedEdit:
    """One edit of the schedule; `at_s` counts from the order's instant."""

    edit: int
    at_s: float
    document: int
    generation: int
    connection: int


def edit_times_s(rate_per_s: Line, duration_s: float, pacing: str, seed: int) -> Iterator[float]:
    """Yield the instants of edits, in seconds from the phase's beginning, in order.

    With the rate r(t) rising in a straight line from s to e over the duration D, the expected
    number by t is N(t) = s t + (e - s) t^2 / 2D. `constant` puts edit i where N(t) = i + 1/2;
    `poisson` where N(t) equals a sum of unit exponentials (an inhomogeneous Poisson process by
    inversion; Cinlar 1975). Neither depends on anything that happens during the run.
    """
    start, end = rate_per_s.start, rate_per_s.end
    total = (start + end) / 2 * duration_s
    draw = random.Random(seed)  # noqa: S311 - a reproducible schedule, not a secret
    position = draw.expovariate(1) if pacing == "poisson" else 0.5
    while position < total:
        yield _inverse(position, start, end, duration_s)
        position += draw.expovariate(1) if pacing == "poisson" else 1.0


def _inverse(position: float, start: float, end: float, duration_s: float) -> float:
    """Solve N(t) = position for t, in the form that is stable when the slope is small."""
    slope = (end - start) / duration_s
    root = math.sqrt(max(start * start + 2 * slope * position, 0.0))
    return 2 * position / (start + root)


def connections_planned(order: Order, at_s: float) -> int:
    """Return how many connections are due `at_s` into an order."""
    return math.floor(order.connections_at(at_s) + 1e-9)


def due_s(connection: int, line: Line, duration_s: float) -> float | None:
    """Return when a connection is due to be open: seconds from the phase's beginning.

    Zero for those there from the beginning; None for those that this phase does not reach.
    Connection c is due as soon as the line passes c, so that the first opens at once and the
    last one slot before the end.
    """
    if connection < line.start:
        return 0.0
    if connection >= line.end:
        return None
    return (connection - line.start) / (line.end - line.start) * duration_s


def leaves_s(connection: int, line: Line, duration_s: float) -> float | None:
    """Return when a connection is due to close, in a phase that goes down; None if it stays."""
    if connection >= line.start or connection < line.end:
        return None
    return (line.start - connection) / (line.start - line.end) * duration_s


def document_of(connection: int, plan: Plan) -> int:
    """Return the document of a connection: documents are filled one after another."""
    return connection // plan.connections_per_document if plan.connections_per_document else 0


def slot_of(connection: int, order: Order) -> str:
    """Return the worker that houses a connection; empty when that worker is lost."""
    return order.slots[connection % len(order.slots)] if order.slots else ""


def planned_edits(order: Order, plan: Plan) -> list[PlannedEdit]:
    """Return every edit of an order, over the whole fleet, in the order of time.

    Edits go round the documents that have members by then; within a document the writer is
    drawn anew for each edit. The draw depends on the edit's index and the seed alone. Without
    connections there is nobody to write, and there are no edits.
    """
    if order.phase is None or max(order.connections.start, order.connections.end) < 1:
        return []
    seed = plan.seed * 1000 + order.phase.index
    made = dict(order.document_edits)
    edits: list[PlannedEdit] = []
    for offset, at_s in enumerate(
        edit_times_s(order.edits_per_s, order.duration_s, plan.pacing, seed)
    ):
        settled = _settled(order, at_s)
        documents = document_of(settled - 1, plan) + 1
        index = order.first_edit + offset
        document = index % documents
        first, beyond = _members(document, settled, plan)
        draw = random.Random(plan.seed * 1_000_003 + index)  # noqa: S311 - reproducible
        count = made.get(document, 0)
        made[document] = count + 1
        edits.append(
            PlannedEdit(
                edit=index,
                at_s=at_s,
                document=document,
                generation=count // plan.edits_per_document,
                connection=draw.randrange(first, beyond),
            )
        )
    return edits


def edits_of_documents(order: Order, plan: Plan) -> dict[int, int]:
    """Return how many edits each document has been given by the order's end."""
    made = dict(order.document_edits)
    for edit in planned_edits(order, plan):
        made[edit.document] = made.get(edit.document, 0) + 1
    return made


def _settled(order: Order, at_s: float) -> int:
    """Return how many connections can be writers: due for SETTLE_S, and not about to leave."""
    line = order.connections
    rises = line.end >= line.start
    at = order.connections_at(max(at_s - SETTLE_S, 0.0) if rises else at_s + SETTLE_S)
    return max(1, math.floor(at + 1e-9))


def _members(document: int, settled: int, plan: Plan) -> tuple[int, int]:
    if not plan.connections_per_document:
        return 0, settled
    first = document * plan.connections_per_document
    return first, min(first + plan.connections_per_document, settled)
