"""Is this week's relay better or worse? Capacities over time: pure functions of the history.

A fall is judged against the median of the last valid runs that asked the same. Changes of level
are found by optimal partitioning: the division of the series into stretches of one level with
the least sum of squared deviations (of logarithms), each stretch at a price. Source: Jackson et
al., "An algorithm for optimal partitioning of data on an interval", IEEE Signal Processing
Letters 12 (2005).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from reports.capacity import number
from reports.history import Line

FALL = 0.10
"""A capacity that lies so far below the median has regressed. An answer is good to 5 %, and the
median of some is better than that, so that a tenth is no chance and a fifth is not missed."""
LAST = 8
"""The median is of so many runs at most."""
ENOUGH = 2
"""With fewer runs before it, nothing can be said of a fall."""
PRICE = 4.0
"""What one more stretch costs, in logarithms of the series' length, a little more than
Schwarz's criterion asks for a place and a level, since the noise is estimated from few runs."""
NOISE_LEAST = 0.02
"""Capacities are taken to scatter by so much at least, as logarithms."""
SHIFT_LEAST = 0.05
"""A smaller change of level is none that matters."""
_MAD_TO_SIGMA = 1.4826
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Left:
    """A line that is not compared, and why."""

    line: Line
    why: str


@dataclass(frozen=True)
class Change:
    """A change of level: the first run behind it, and the medians before and after."""

    run_id: str
    at_us: int
    before: float
    after: float
    version_before: str
    version_after: str

    @property
    def share(self) -> float:
        """By what share it rose (or, below zero, fell)."""
        return self.after / self.before - 1


@dataclass(frozen=True)
class Trend:
    """The lines that can be compared with the newest one, the oldest first; and what they say.

    `median` is of the last valid runs before the newest, `fall` the share by which that lies
    below it (negative: above). Both are None while there is too little to compare with.
    """

    lines: tuple[Line, ...]
    left_out: tuple[Left, ...]
    changes: tuple[Change, ...] = ()
    median: float | None = None
    compared_with: int = 0
    fall: float | None = None
    allowed_fall: float = FALL

    @property
    def has_regressed(self) -> bool:
        """Whether the newest run fell by more than is allowed, and than it is uncertain."""
        return self._has_fallen and not self._is_uncertain

    @property
    def _has_fallen(self) -> bool:
        return self.fall is not None and self.fall > self.allowed_fall

    @property
    def _is_uncertain(self) -> bool:
        """Whether the newest run's interval reaches the median."""
        high = self.lines[-1].high if self.lines else None
        return high is not None and self.median is not None and high >= self.median

    @property
    def sentence(self) -> str:
        """What the newest run is, against those before it."""
        if not self.lines:
            return (
                "There is no run in the history whose capacity can be believed."
                if self.left_out
                else "There is no history: no search of this scenario has been kept yet."
            )
        newest = self.lines[-1]
        value = _said(newest)
        if newest.kind == "at_least" and self.median is not None:
            return (
                f"Capacity {value}, which bounds it from below and is no fall; the median of the "
                f"last {self.compared_with} valid runs is {number(self.median)}."
            )
        if self.fall is None or self.median is None:
            return (
                f"Capacity {value}; there are {self.compared_with} runs to compare it with, "
                f"and {ENOUGH} are needed."
            )
        moved = f"{abs(self.fall):.1%} {'below' if self.fall > 0 else 'above'}"
        of = f"the median of the last {self.compared_with} valid runs, {number(self.median)}"
        if self.has_regressed:
            return (
                f"Capacity fell to {value}, {moved} {of}; more than {self.allowed_fall:.0%} is "
                f"a regression{_version(newest, self.lines[-2])}."
            )
        if self._has_fallen and newest.high is not None:
            return (
                f"Capacity {value}, {moved} {of}; its interval reaches "
                f"{number(newest.high)}, so that no fall can be told."
            )
        return f"Capacity {value}, {moved} {of}."


def trend_of(
    lines: Sequence[Line], *, newest: str | None = None, allowed_fall: float = FALL
) -> Trend:
    """Return the trend up to a run and what was left out of it.

    If none is named, the newest run is the last that can be believed; a run that is named and
    cannot be is left out itself, and nothing is judged.
    """
    ordered = sorted(lines, key=lambda line: (line.at_us, line.run_id))
    if newest is not None:
        at = next((i for i, line in enumerate(ordered) if line.run_id == newest), len(ordered) - 1)
        ordered = ordered[: at + 1]
    if not ordered:
        return Trend((), (), allowed_fall=allowed_fall)
    last = ordered[-1]
    if newest is None:
        last = next((line for line in reversed(ordered) if not _no_answer(line)), last)
    kept, left = [], []
    for line in ordered:
        why = _not_comparable(line, last)
        if why:
            left.append(Left(line, why))
        else:
            kept.append(line)
    if not kept or kept[-1] is not last:
        return Trend(tuple(kept), tuple(left), changes_of(kept), allowed_fall=allowed_fall)
    value = fallen_to(last)
    newest_value = last.value if value is None else value
    before = [known for line in kept[:-1] if (known := _known_of(line, newest_value)) is not None][
        -LAST:
    ]
    median = statistics.median(before) if len(before) >= ENOUGH else None
    fall = 1 - value / median if median and value is not None else None
    return Trend(
        lines=tuple(kept),
        left_out=tuple(left),
        changes=changes_of(kept),
        median=median,
        compared_with=len(before),
        fall=fall,
        allowed_fall=allowed_fall,
    )


def fallen_to(line: Line) -> float | None:
    """Return the capacity that is held against the median; None if it bounds it from below only.

    "At least" is no fall: the search ended for another reason. "Below" is its bound, as is the
    first load of a relay that died at it.
    """
    if line.kind == "at_least":
        return None
    return line.high if line.is_below else line.value


def _known_of(line: Line, newest: float | None) -> float | None:
    """Return what a line says of the capacity then, against the newest run's.

    A bound from below says that there is a fall, if it lies above; else it says nothing.
    """
    if line.kind == "at_least" and (line.value or 0) < (newest or 0):
        return None
    return line.value


def changes_of(lines: Sequence[Line]) -> tuple[Change, ...]:
    """Return where the level of the capacity changes; a bound from below has no level."""
    known = [line for line in lines if line.value and line.kind != "at_least"]
    values = [math.log(line.value or 1) for line in known]
    found = []
    first, cuts = 0, [*partition(values), len(values)]
    for at, beyond in itertools.pairwise(cuts):
        before = math.exp(statistics.median(values[first:at]))
        after = math.exp(statistics.median(values[at:beyond]))
        if abs(math.log(after / before)) < SHIFT_LEAST:
            continue  # one level: what follows is compared with both together
        first = at
        found.append(
            Change(
                run_id=known[at].run_id,
                at_us=known[at].at_us,
                before=before,
                after=after,
                version_before=known[at - 1].relay_version,
                version_after=known[at].relay_version,
            )
        )
    return tuple(found)


def partition(values: Sequence[float]) -> list[int]:
    """Return where stretches of one level begin, but for the first; see the module's source."""
    count = len(values)
    price = PRICE * math.log(max(count, 2)) * _noise(values) ** 2
    sums, squares = [0.0], [0.0]
    for value in values:
        sums.append(sums[-1] + value)
        squares.append(squares[-1] + value * value)

    def cost(first: int, beyond: int) -> float:
        total = sums[beyond] - sums[first]
        return squares[beyond] - squares[first] - total * total / (beyond - first)

    best, begins = [-price], [0]
    for beyond in range(1, count + 1):
        choices = [best[first] + cost(first, beyond) + price for first in range(beyond)]
        least = min(range(beyond), key=choices.__getitem__)
        best.append(choices[least])
        begins.append(least)
    cuts: list[int] = []
    at = count
    while at > 0 and begins[at] > 0:
        at = begins[at]
        cuts.append(at)
    return cuts[::-1]


def _noise(values: Sequence[float]) -> float:
    """Return the scatter between neighbours, which a change of level moves but little."""
    steps = [abs(b - a) for a, b in itertools.pairwise(values)]
    if not steps:
        return NOISE_LEAST
    return max(NOISE_LEAST, _MAD_TO_SIGMA * statistics.median(steps) / math.sqrt(2))


def _no_answer(line: Line) -> str:
    """Return why a line says nothing of a capacity; empty if it does."""
    if line.validity == "invalid":
        return "it is invalid"
    if line.kind in ("", "unknown") or (line.value is None and not line.is_below):
        return "it found no capacity"
    return ""


def _not_comparable(line: Line, newest: Line) -> str:
    """Return why a line has no place in the trend; empty if it has one."""
    if why := _no_answer(line):
        return why
    if _place(line.relay_url) != _place(newest.relay_url):
        return f"it is of another relay, {line.relay_url}"
    if line.asks != newest.asks:
        return "it asked something else of the relay"
    return ""


def _said(line: Line) -> str:
    """Return a capacity with its unit, as far as it is known."""
    unit = "edits/s" if line.over == "edits" else "connections"
    if line.is_below and line.high is not None:
        at = ", at which the relay died" if line.kind == "died" else ""
        return f"below {number(line.high)} {unit}{at}"
    if line.value is None:
        return "not known"
    if line.kind == "died":
        return f"{number(line.value)} {unit} before the relay died"
    return f"{'at least ' if line.kind == 'at_least' else ''}{number(line.value)} {unit}"


def _place(relay_url: str) -> str:
    """Return what tells one relay from another; one of this machine has a new port each time."""
    parts = urlsplit(relay_url)
    return "this machine" if parts.hostname in _LOOPBACK else parts.netloc + parts.path


def _version(newest: Line, before: Line) -> str:
    if not newest.relay_version or newest.relay_version == before.relay_version:
        return ""
    was = f" (before: {before.relay_version})" if before.relay_version else ""
    return f". The relay's version is {newest.relay_version}{was}"
