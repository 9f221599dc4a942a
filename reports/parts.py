"""Which Parquet parts of a run are read, and which cannot be."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from run_store.errors import StoreError
from run_store.layout import Part, RunLayout, without_covered
from run_store.store import Store

SMALLEST_BYTES = 12
"""A Parquet file is never shorter: two magic words and the length of its footer."""


@dataclass(frozen=True)
class UnreadablePart:
    """A part that stands in the bucket and cannot be read, and what its reader said."""

    part: Part
    reason: str


@dataclass(frozen=True)
class Listing:
    """The parts to read, and those that cannot be Parquet by their size alone."""

    parts: tuple[Part, ...]
    unreadable: tuple[UnreadablePart, ...]

    def of(self, kind: str) -> list[Part]:
        """Return the parts of one kind, in the order of their keys."""
        return [part for part in self.parts if part.kind == kind]


@dataclass(frozen=True, order=True)
class Sequel:
    """The parts of one kind, of one worker in one phase: they are numbered from 1 without gaps."""

    kind: str
    attempt: int
    phase: str
    worker: str


@dataclass(frozen=True)
class MissingPart:
    """A part that has a number and is not in the bucket, or cannot be read."""

    of: Sequel
    number: int


class PartsChangedError(Exception):
    """A part went away between listing and reading: an agent has compacted it meanwhile."""


def list_parts(store: Store, layout: RunLayout) -> Listing:
    """Return the parts of a run as they stand now, none counted twice."""
    sizes = dict(store.list_sizes(layout.samples()))
    found = [part for key in sizes if (part := Part.from_key(key)) is not None]
    short = [part for part in found if sizes[part.key] < SMALLEST_BYTES]
    # A truncated compacted part must not hide the small ones that it was made of.
    whole = without_covered([part for part in found if sizes[part.key] >= SMALLEST_BYTES])
    return Listing(
        parts=tuple(whole),
        unreadable=tuple(
            UnreadablePart(part, f"it has only {sizes[part.key]} bytes") for part in short
        ),
    )


def read_each(
    parts: Sequence[Part],
    read: Callable[[Sequence[Part]], None],
    *,
    is_there: Callable[[Part], bool],
) -> list[UnreadablePart]:
    """Call `read` on all parts, halving what fails until the unreadable ones stand alone.

    `read` either takes in all that it is given or raises duckdb.Error having taken in none.
    Returns the unreadable parts. Raises PartsChangedError if a part is no longer there.
    """
    if not parts:
        return []
    try:
        read(parts)
    except duckdb.Error as error:
        if len(parts) > 1:
            half = len(parts) // 2
            return [
                *read_each(parts[:half], read, is_there=is_there),
                *read_each(parts[half:], read, is_there=is_there),
            ]
        if not is_there(parts[0]):
            raise PartsChangedError(parts[0].key) from None
        if isinstance(error, duckdb.OutOfMemoryException):
            raise StoreError(
                f"The samples in {parts[0].key} need more memory than the report may use: {error}"
            ) from None
        return [UnreadablePart(parts[0], _first_line(error))]
    return []


def missing_parts(
    last: Mapping[Sequel, int], parts: Iterable[Part], counted: Container[tuple[str, int]]
) -> Iterator[MissingPart]:
    """Yield the numbers, up to the last that is known of, that no readable part holds.

    `last` is what records and statuses say; a higher number among `parts` counts as well. Only
    phases and attempts in `counted` are looked at.
    """
    held: dict[Sequel, set[int]] = {sequel: set() for sequel in last}
    for part in parts:
        sequel = Sequel(part.kind, part.attempt, part.phase, part.worker)
        held.setdefault(sequel, set()).update(range(part.first, part.last + 1))
    for sequel, numbers in sorted(held.items()):
        if (sequel.phase, sequel.attempt) in counted:
            for number in range(1, max(last.get(sequel, 0), *numbers, 0) + 1):
                if number not in numbers:
                    yield MissingPart(sequel, number)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
