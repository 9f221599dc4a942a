"""From a phase's orders to its mark in the bucket: a pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from run_store.layout import phase_label
from run_store.messages import Line, LostWorker, Order, PhaseRecord, PhaseRef, Status
from run_store.schedule import Plan, planned_edits
from tasks.plan import Progress


@dataclass(frozen=True)
class Course:
    """One order as it was carried out: until when, and where things stood before it."""

    order: Order
    ended_us: int
    before: Progress

    @property
    def within_s(self) -> float:
        """How much of it was carried out, in seconds."""
        return max(0.0, (self.ended_us - self.order.starts_at_us) / 1e6)


def label_of(phase: PhaseRef) -> str:
    """Return a phase's label."""
    return phase_label(phase.index, phase.name)


def record_of(
    phase: PhaseRef,
    courses: Sequence[Course],
    *,
    plan: Plan,
    planned_s: float,
    statuses: Mapping[str, Status],
    lost: Mapping[str, LostWorker],
    stopped_early: str = "",
    ended_because: str = "",
) -> PhaseRecord:
    """Return a phase's record: from its first order's beginning to its last one's end."""
    label = label_of(phase)
    first, last = courses[0].order, courses[-1].order
    after = courses[-1].before.after_part(last, plan, courses[-1].within_s)
    edits = sum(
        edit.at_s <= course.within_s
        for course in courses
        for edit in planned_edits(course.order, plan)
    )
    return PhaseRecord(
        phase=phase,
        label=label,
        attempt=first.attempt,
        order=last.number,
        started_us=first.starts_at_us,
        ended_us=courses[-1].ended_us,
        planned_s=planned_s,
        connections=Line(start=first.connections.start, end=last.connections.end),
        edits_per_s=Line(start=first.edits_per_s.start, end=last.edits_per_s.end),
        edits_planned=edits,
        first_edit=first.first_edit,
        document_edits_after=after.document_edits,
        slots=last.slots,
        parts=_parts(label, last.number, statuses, lost),
        lost=list(lost.values()),
        stopped_early=stopped_early,
        ended_because=ended_because,
    )


def _parts(
    label: str, order: int, statuses: Mapping[str, Status], lost: Mapping[str, LostWorker]
) -> dict[str, dict[str, int]]:
    """Return the last parts' numbers of each worker, as it said when it was done or lost."""
    parts = {
        name: done.parts
        for name, status in statuses.items()
        for done in status.done
        if done.order == order
    }
    for name in lost:
        status = statuses.get(name)
        if status is not None and name not in parts:
            parts[name] = status.parts.get(label, {})
    return parts
