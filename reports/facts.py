"""What a run's JSON says: its record, its phases, its orders and its workers' last statuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from run_store.capacity import CapacityResult
from run_store.errors import NoSuchRunError
from run_store.layout import RunLayout, phase_label
from run_store.messages import Order, PhaseRecord, RunRecord, Status
from run_store.steps import Step
from run_store.store import Store
from scenarios.model import Scenario

M = TypeVar("M", bound=BaseModel)
_READERS = 8


@dataclass(frozen=True)
class PhaseFacts:
    """One phase of a run, complete or not.

    `attempt` is the one that counts. `started_us` and `ended_us` are None where neither a
    record nor an order tells; `ended_us` of an incomplete phase is None.
    """

    label: str
    index: int
    name: str
    kind: str
    attempt: int
    complete: bool
    started_us: int | None
    ended_us: int | None
    planned_s: float
    connections_start: float
    connections_end: float
    edits_per_s_start: float
    edits_per_s_end: float
    edits_planned: int | None
    stopped_early: str
    record: PhaseRecord | None = None


@dataclass(frozen=True)
class RunFacts:
    """All that a run's JSON says. `unreadable` names JSON objects that are no valid message.

    `steps` are those of all stress phases, in the order of phases and numbers; `capacity` is the
    answer of a search.
    """

    record: RunRecord
    scenario: Scenario | None
    phases: tuple[PhaseFacts, ...]
    statuses: tuple[Status, ...]
    unreadable: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    capacity: CapacityResult | None = None

    @property
    def last_attempt(self) -> int:
        """The number of the latest attempt; 1 before there is any."""
        return max((attempt.number for attempt in self.record.attempts), default=1)

    @property
    def is_running(self) -> bool:
        """Whether the run's record says that it still goes on."""
        return self.record.state == "running" and self.record.ended_us is None

    @property
    def phases_without_record(self) -> tuple[str, ...]:
        """Names of the scenario's phases that are not complete, in order."""
        done = {phase.name for phase in self.phases if phase.complete}
        planned = [phase.name for phase in self.scenario.phases] if self.scenario else []
        return tuple(name for name in planned if name not in done)


def read_facts(store: Store, run_id: str) -> RunFacts:
    """Read a run's JSON from the bucket.

    Raises NoSuchRunError if there is no such run, StoreError if the store does not answer or
    `run.json` cannot be read; other objects that cannot be read are named in `unreadable`.
    """
    layout = RunLayout(run_id)
    record = store.get_message(layout.run, RunRecord)
    if record is None:
        raise NoSuchRunError(
            f"{store.address.url} holds no run {run_id}.",
            hint="`relay-load runs` lists those that it holds.",
        )
    unreadable: list[str] = []
    records = _messages(store, store.keys(layout.phases()), PhaseRecord, unreadable)
    attempts = sorted(
        {attempt.number for attempt in record.attempts}
        | {
            int(name.removeprefix("attempt="))
            for name in store.folders(layout.root)
            if name.startswith("attempt=") and name.removeprefix("attempt=").isdigit()
        }
    )
    statuses = _messages(
        store,
        [
            key
            for attempt in attempts
            for key in store.keys(layout.workers(attempt))
            if key.endswith("/status.json")
        ],
        Status,
        unreadable,
    )
    orders = [
        order
        for attempt in attempts[-1:]
        for order in _messages(store, store.keys(layout.orders(attempt)), Order, unreadable)
    ]
    steps = _messages(store, store.keys(layout.steps()), Step, unreadable)
    capacity = _messages(store, [layout.capacity], CapacityResult, unreadable)
    return facts_of(
        record,
        records,
        statuses,
        orders,
        unreadable=tuple(unreadable),
        steps=tuple(steps),
        capacity=capacity[0] if capacity else None,
    )


def facts_of(
    record: RunRecord,
    phases: Sequence[PhaseRecord],
    statuses: Sequence[Status] = (),
    orders: Sequence[Order] = (),
    *,
    unreadable: tuple[str, ...] = (),
    steps: tuple[Step, ...] = (),
    capacity: CapacityResult | None = None,
) -> RunFacts:
    """Return what these messages say of a run; `orders` are those of its last attempt."""
    return RunFacts(
        record=record,
        scenario=_scenario(record),
        phases=tuple(_phases(phases, orders)),
        statuses=tuple(statuses),
        unreadable=unreadable,
        steps=tuple(sorted(steps, key=lambda step: (step.phase, step.number))),
        capacity=capacity,
    )


def phase_from_samples(label: str, attempt: int, scenario: Scenario | None) -> PhaseFacts:
    """Return what is known of a phase of which only samples are there."""
    index, _, name = label.partition("-")
    planned = next((p for p in scenario.phases if p.name == name), None) if scenario else None
    return PhaseFacts(
        label=label,
        index=int(index),
        name=name,
        kind=planned.kind if planned else "unknown",
        attempt=attempt,
        complete=False,
        started_us=None,
        ended_us=None,
        planned_s=planned.duration_s if planned else 0.0,
        connections_start=0.0,
        connections_end=float(scenario.connections_at_end_of(planned))
        if scenario and planned
        else 0.0,
        edits_per_s_start=0.0,
        edits_per_s_end=planned.edits_per_minute / 60 if planned else 0.0,
        edits_planned=None,
        stopped_early="",
    )


def _phases(records: Iterable[PhaseRecord], orders: Iterable[Order]) -> list[PhaseFacts]:
    """Return the complete phases, then those that only an order of the last attempt tells of."""
    phases = {record.label: _from_record(record) for record in records}
    runs = [order for order in orders if order.action == "run" and order.phase is not None]
    for order in sorted(runs, key=lambda order: order.number, reverse=True):
        phase = order.phase
        if phase is None:
            continue
        label = phase_label(phase.index, phase.name)
        if label in phases and phases[label].complete:
            continue
        # The earliest order of a phase began it; later ones only change its course.
        phases[label] = PhaseFacts(
            label=label,
            index=phase.index,
            name=phase.name,
            kind=phase.kind,
            attempt=order.attempt,
            complete=False,
            started_us=order.starts_at_us,
            ended_us=None,
            planned_s=order.duration_s,
            connections_start=order.connections.start,
            connections_end=order.connections.end,
            edits_per_s_start=order.edits_per_s.start,
            edits_per_s_end=order.edits_per_s.end,
            edits_planned=None,
            stopped_early="",
        )
    return sorted(phases.values(), key=in_turn)


def in_turn(phase: PhaseFacts) -> tuple[int, float, str]:
    """Return what phases are sorted by: a retry's reconnect comes before the phase it is for."""
    return phase.index, math.inf if phase.started_us is None else phase.started_us, phase.label


def _from_record(record: PhaseRecord) -> PhaseFacts:
    return PhaseFacts(
        label=record.label,
        index=record.phase.index,
        name=record.phase.name,
        kind=record.phase.kind,
        attempt=record.attempt,
        complete=True,
        started_us=record.started_us,
        ended_us=record.ended_us,
        planned_s=record.planned_s,
        connections_start=record.connections.start,
        connections_end=record.connections.end,
        edits_per_s_start=record.edits_per_s.start,
        edits_per_s_end=record.edits_per_s.end,
        edits_planned=record.edits_planned,
        stopped_early=record.stopped_early,
        record=record,
    )


def _scenario(record: RunRecord) -> Scenario | None:
    try:
        return Scenario.model_validate(record.scenario)
    except ValidationError:
        # A run of another version is still worth a report; its objectives cannot be judged.
        return None


def _messages(store: Store, keys: list[str], kind: type[M], unreadable: list[str]) -> list[M]:
    def read(key: str) -> M | str | None:
        body = store.get(key)
        if body is None:
            return None
        try:
            return kind.model_validate_json(body)
        except ValueError:
            return key

    found: list[M] = []
    for message in _in_parallel(read, keys):
        if isinstance(message, str):
            unreadable.append(message)
        elif message is not None:
            found.append(message)
    return found


def _in_parallel(read: Callable[[str], M | str | None], keys: list[str]) -> list[M | str | None]:
    if not keys:
        return []
    with ThreadPoolExecutor(max_workers=_READERS) as readers:
        return list(readers.map(read, keys))
