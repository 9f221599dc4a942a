"""From an order to what one worker's connections do, and when: a pure function."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from run_store.messages import Order
from run_store.schedule import (
    Plan,
    PlannedEdit,
    document_of,
    due_s,
    leaves_s,
    planned_edits,
    slot_of,
)

LONGEST_LEAD_S = 15.0
"""A fresh document is fetched at most so long before its first edit."""
SHORTEST_LEAD_S = 2.0
"""And at least so long, if the phase is old enough: members come one after another between."""

Kind = Literal["open", "join", "edit", "drop", "offline", "close"]


@dataclass(frozen=True)
class Event:
    """One thing for one connection to do; `at_s` counts from the order's instant.

    `generation` is the document's that it opens, joins or edits; `edit` is -1 unless it edits.
    """

    at_s: float
    kind: Kind
    connection: int
    document: int
    generation: int
    edit: int = -1


@dataclass(frozen=True)
class Move:
    """A document's members move on to generation `to` with the edit at `at_s`."""

    at_s: float
    document: int
    to: int


@dataclass(frozen=True)
class Agenda:
    """A worker's events in the order of time, and the whole fleet's moves and edits."""

    events: list[Event]
    moves: list[Move]
    edits: list[PlannedEdit]


def agenda_of(
    order: Order, plan: Plan, worker: str, highest: int = 0, before: Order | None = None
) -> Agenda:
    """Return what `worker` does in an order.

    `highest` is one more than the highest connection that an earlier order asked for: those
    beyond this order's plan are closed at once. So are those that the order `before` gave to this
    worker and this one gives to another: each connection is one worker's.
    """
    line, length_s = order.connections, order.moves_within_s
    edits = planned_edits(order, plan)
    moves = _moves(order, plan, edits)
    events: list[Event] = []
    top = int(max(line.start, line.end))
    mine = [c for c in range(max(top, highest)) if slot_of(c, order) == worker]
    for connection in mine:
        document = document_of(connection, plan)
        if connection >= top:
            events.append(Event(0.0, "close", connection, document, 0))
            continue
        due = due_s(connection, line, length_s)
        if due is None and connection < line.start:
            due = 0.0
        if due is None:
            continue
        generation = _generation_at(order, plan, document, moves, due)
        events.append(Event(due, "open", connection, document, generation))
        leaves = leaves_s(connection, line, length_s)
        if leaves is not None:
            events.append(Event(leaves, "close", connection, document, generation))
        events += [
            Event(_joins_at(move, due, connection), "join", connection, document, move.to)
            for move in moves
            if move.document == document and move.at_s > due
        ]
        if plan.offline_s > 0:
            cut = _cut_at(connection, order, plan)
            events.append(Event(cut, "offline", connection, document, generation))
        if order.drop_share > 0 and _is_dropped(connection, order, plan):
            events.append(Event(0.0, "drop", connection, document, generation))
    if before is not None:
        events += [
            Event(0.0, "close", connection, document_of(connection, plan), 0)
            for connection in range(highest)
            if slot_of(connection, before) == worker and slot_of(connection, order) != worker
        ]
    events += [
        Event(edit.at_s, "edit", edit.connection, edit.document, edit.generation, edit.edit)
        for edit in edits
        if slot_of(edit.connection, order) == worker
    ]
    events.sort(key=lambda event: event.at_s)
    return Agenda(events, moves, edits)


def _moves(order: Order, plan: Plan, edits: list[PlannedEdit]) -> list[Move]:
    """Return when each document is followed by a fresh one: with the edit after its last."""
    generation = {
        document: _generation_before(count, plan)
        for document, count in order.document_edits.items()
    }
    moves = []
    for edit in edits:
        if edit.generation > generation.get(edit.document, 0):
            generation[edit.document] = edit.generation
            moves.append(Move(edit.at_s, edit.document, edit.generation))
    return moves


def _generation_before(count: int, plan: Plan) -> int:
    return max(count - 1, 0) // plan.edits_per_document


def _generation_at(order: Order, plan: Plan, document: int, moves: list[Move], at_s: float) -> int:
    generation = _generation_before(order.document_edits.get(document, 0), plan)
    for move in moves:
        if move.document == document and move.at_s <= at_s:
            generation = move.to
    return generation


def _joins_at(move: Move, due_s: float, connection: int) -> float:
    """Return when a member fetches the fresh document: staggered, so that it is no spike."""
    earliest = max(due_s, move.at_s - LONGEST_LEAD_S, 0.0)
    latest = max(earliest, move.at_s - SHORTEST_LEAD_S)
    draw = random.Random(connection * 7919 + move.to)  # noqa: S311 - a reproducible stagger
    return draw.uniform(earliest, latest)


def _cut_at(connection: int, order: Order, plan: Plan) -> float:
    """Return when a connection's network is cut: anywhere that lets it come back in the phase."""
    draw = random.Random(plan.seed * 53 + connection * 15_485_863 + order.number)  # noqa: S311
    return draw.uniform(0.0, max(0.0, order.duration_s - plan.offline_s))


def _is_dropped(connection: int, order: Order, plan: Plan) -> bool:
    if order.drop_share >= 1:
        return True
    draw = random.Random(plan.seed * 31 + connection * 104_729 + order.number)  # noqa: S311
    return draw.random() < order.drop_share
