"""Stretches of run time in which something was so, on a grid of seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Stretch:
    """Run time from `from_s` up to `to_s`, in seconds."""

    from_s: float
    to_s: float

    @property
    def length_s(self) -> float:
        """How long it lasts."""
        return self.to_s - self.from_s

    def overlaps(self, other: Stretch, *, within_s: float = 0.0) -> bool:
        """Say whether both share time, or are no further apart than `within_s`."""
        return self.from_s < other.to_s + within_s and other.from_s < self.to_s + within_s

    def joined(self, other: Stretch) -> Stretch:
        """Return the stretch that spans both."""
        return Stretch(min(self.from_s, other.from_s), max(self.to_s, other.to_s))


def merged(stretches: Iterable[Stretch], *, gap_s: float) -> list[Stretch]:
    """Return the stretches in order, with those joined that lie within `gap_s` of each other."""
    found: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda s: (s.from_s, s.to_s)):
        if found and stretch.from_s <= found[-1].to_s + gap_s:
            found[-1] = found[-1].joined(stretch)
        else:
            found.append(stretch)
    return found


def stretches_of(
    seconds: Iterable[int], is_so: Callable[[int], bool], *, gap_s: float = 0.0
) -> list[Stretch]:
    """Return where `is_so` holds, second by second."""
    return merged((Stretch(second, second + 1) for second in seconds if is_so(second)), gap_s=gap_s)


def crowded(
    counts: dict[int, float],
    seconds: range,
    width_s: int,
    is_too_many: Callable[[float, int], bool],
) -> list[Stretch]:
    """Return where the sum over a window of `width_s` is too many.

    `is_too_many(sum, first second of the window)` judges each window of the grid. A stretch
    spans from the first to the last second within such windows that counted anything.
    """
    hot: set[int] = set()
    running = sum(counts.get(second, 0.0) for second in seconds[:width_s])
    for first in range(seconds.start, max(seconds.start, seconds.stop - width_s) + 1):
        if is_too_many(running, first):
            hot.update(s for s in range(first, first + width_s) if counts.get(s, 0.0) > 0)
        running += counts.get(first + width_s, 0.0) - counts.get(first, 0.0)
    return merged((Stretch(second, second + 1) for second in hot), gap_s=width_s)


def richest(scores: dict[int, float], seconds: range) -> Stretch | None:
    """Return the unbroken seconds whose scores have the largest sum (Kadane); None if none is > 0.

    With scores that are positive where something is so and negative where it is not, these are
    where it was so on the whole, though not in each second.
    """
    best, best_stretch = 0.0, None
    running, first = 0.0, seconds.start
    for second in seconds:
        if running <= 0:
            running, first = 0.0, second
        running += scores.get(second, 0.0)
        if running > best:
            best, best_stretch = running, Stretch(first, second + 1)
    return best_stretch
