"""Samples that a worker had taken and that are not in the bucket: whose, of what, and when.

Two things tell of them: a number that no part has, and a worker's last heartbeat that names parts
still to be sent where the bucket holds nothing that came after it.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reports.facts import PhaseFacts
from reports.parts import MissingPart, Sequel
from run_store.layout import Part
from run_store.messages import Status
from run_store.samples import SCHEMAS
from run_store.store import Store

MOST = 50
"""So many intervals are looked up; behind them somebody has deleted a run."""
_TIMES = ("seen_us", "intended_us", "at_us")


@dataclass(frozen=True)
class Lack:
    """Parts that cannot be had. `kind` is empty where it is not known; the interval may be open.

    The samples lie between `from_us` and `to_us` on the worker's clock: the last one before and
    the first one after that are there, or else the phase's own bounds.
    """

    worker: str
    attempt: int
    phase: str
    kind: str
    parts: int
    from_us: int | None
    to_us: int | None


def lacks(
    store: Store,
    *,
    missing: Sequence[MissingPart],
    parts: Sequence[Part],
    statuses: Iterable[Status],
    phases: Sequence[PhaseFacts],
) -> tuple[Lack, ...]:
    """Return what is not in the bucket, by worker and interval. Raises StoreError."""
    bounds = {(phase.label, phase.attempt): phase for phase in phases}
    found = [
        Lack(
            worker=of.worker,
            attempt=of.attempt,
            phase=of.phase,
            kind=of.kind,
            parts=last - first + 1,
            from_us=_edge(store, parts, of, first - 1, last=True) or _start(bounds, of),
            to_us=_edge(store, parts, of, last + 1, last=False) or _end(bounds, of),
        )
        for of, first, last in stretches(missing)[:MOST]
    ]
    return (*found, *_unsent(store, parts, statuses, bounds, {lack.worker for lack in found}))


def stretches(missing: Iterable[MissingPart]) -> list[tuple[Sequel, int, int]]:
    """Return missing parts as stretches of numbers that follow one another: first and last."""
    found: list[tuple[Sequel, int, int]] = []
    for part in missing:
        if found and found[-1][0] == part.of and found[-1][2] == part.number - 1:
            found[-1] = (part.of, found[-1][1], part.number)
        else:
            found.append((part.of, part.number, part.number))
    return found


Bounds = dict[tuple[str, int], PhaseFacts]


def _unsent(
    store: Store,
    parts: Sequence[Part],
    statuses: Iterable[Status],
    bounds: Bounds,
    named: Collection[str],
) -> Iterator[Lack]:
    """Yield what a worker's last heartbeat says is still to be sent, and never came."""
    for status in statuses:
        for phase, count in status.unshipped.items():
            if (phase, status.attempt) not in bounds or status.worker in named:
                continue
            of = Sequel("", status.attempt, phase, status.worker)
            own = [
                p for p in parts if (p.attempt, p.phase, p.worker) == (of.attempt, phase, of.worker)
            ]
            told = status.parts.get(phase, {})
            if any(part.last > told.get(part.kind, 0) for part in own):
                continue  # it was fetched, or sent by whoever took the worker's place
            ends = [
                end
                for kind in {part.kind for part in own}
                if (
                    end := _edge(
                        store, own, Sequel(kind, *_place(of)), told.get(kind, 0), last=True
                    )
                )
            ]
            began_us = max(ends, default=0) or _start(bounds, of)
            yield Lack(of.worker, of.attempt, phase, "", count, began_us, status.at_us)


def _place(of: Sequel) -> tuple[int, str, str]:
    return of.attempt, of.phase, of.worker


def _edge(
    store: Store, parts: Sequence[Part], of: Sequel, number: int, *, last: bool
) -> int | None:
    """Return the last or first time in the part that holds a number; None if there is none."""
    for part in parts:
        is_it = part.first <= number <= part.last
        if is_it and Sequel(part.kind, part.attempt, part.phase, part.worker) == of:
            name = next((name for name in _TIMES if name in SCHEMAS[of.kind].names), None)
            body = store.get(part.key) if name else None
            if name and body is not None:
                times = pq.read_table(io.BytesIO(body), columns=[name]).column(name)
                return _extreme(times, last=last)
    return None


def _extreme(times: pa.ChunkedArray[Any], *, last: bool) -> int | None:
    found = pc.min_max(times)["max" if last else "min"].as_py()
    return None if found is None else int(found)


def _start(bounds: Bounds, of: Sequel) -> int | None:
    phase = bounds.get((of.phase, of.attempt))
    return phase.started_us if phase else None


def _end(bounds: Bounds, of: Sequel) -> int | None:
    phase = bounds.get((of.phase, of.attempt))
    return phase.ended_us if phase else None
