"""Whether a series of one run lies above another's, where neighbouring values are alike.

Latencies of neighbouring seconds come from one queue and one garbage collector: they are
autocorrelated, and a test that takes them for independent sees differences that are not there.
So whole blocks of seconds are drawn (Kunsch 1989, The jackknife and the bootstrap for general
stationary observations, Annals of Statistics 17).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist, median

Series = Sequence[Sequence[float]]
"""Values in their order, one list for each stretch of time; no block reaches across two."""
RESAMPLES = 1000
SHORTEST_BLOCK = 5
SIGNIFICANT = 0.05
_HALVINGS = 24
_WIDE_OPEN = 0.99
"""From here on the interval is a point, and stretching it changes nothing."""
SMALLEST = 1e-3
"""The resolution of a latency in milliseconds: what a median of zero is taken for in a ratio."""


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline's median the other's is, with its 95 % interval.

    `blocks` are the longest block lengths that were drawn from the baseline and the other. `p` is
    one less the level of the widest interval that leaves out 1: below 0.05 the 95 % one does.
    """

    ratio: float
    low: float
    high: float
    blocks: tuple[int, int]
    p: float = 1.0

    @property
    def is_significant(self) -> bool:
        """Say whether the interval leaves out 1."""
        return self.low > 1 or self.high < 1


def ratio_of_medians(
    baseline: Series, other: Series, *, seed: int = 1, resamples: int = RESAMPLES
) -> Ratio:
    """Return the ratio of two series' medians; the same for the same values and seed.

    The interval is that of the middle 95 % of the ratios of resamples, by a moving-block bootstrap
    of each series on its own, made wider by what few blocks cannot show: a mean of k blocks varies
    less in resamples by (k - 1) / k, and its distribution has Student's tails, not the normal's.
    Raises ValueError if a series is empty.
    """
    random = Random(seed)  # noqa: S311 - no secret hangs on it, and a seed is what is wanted
    below, above = _Drawer(baseline, random), _Drawer(other, random)
    ratios = sorted(above.median() / below.median() for _ in range(resamples))
    ratio = _floored(other) / _floored(baseline)

    def interval(p: float) -> tuple[float, float]:
        wider = _wider(p, below.count, above.count)
        low, high = (_quantile(ratios, share) / ratio for share in (p / 2, 1 - p / 2))
        return ratio * min(low, 1.0) ** wider, ratio * max(high, 1.0) ** wider

    low, high = interval(SIGNIFICANT)
    return Ratio(
        ratio=ratio,
        low=low,
        high=high,
        blocks=(below.longest, above.longest),
        p=_least_p(interval, 2 / resamples),
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several, in their order.

    Of m of them the smallest counts m times, the next m - 1 times and so on, none less than one
    before it. Taking those below 0.05 for changes, the chance of one or more that is none stays
    below 0.05 for all together, however they hang together (Holm 1979, A simple sequentially
    rejective multiple test procedure, Scandinavian Journal of Statistics 6).
    """
    adjusted, before = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        before = max(before, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = before
    return adjusted


def cliffs_delta(baseline: Sequence[float], other: Sequence[float]) -> float:
    """Return how much more often a value of `other` is the larger one than the smaller, -1 to 1.

    0 means no difference, 1 that each value of `other` is above each of the baseline's (Cliff
    1993, Dominance statistics, Psychological Bulletin 114). 0 if either is empty.
    """
    if not baseline or not other:
        return 0.0
    ordered = sorted(baseline)
    wins = sum(bisect_left(ordered, value) for value in other)
    losses = sum(len(ordered) - bisect_right(ordered, value) for value in other)
    return (wins - losses) / (len(ordered) * len(other))


def block_length(values: Sequence[float]) -> int:
    """Return how many neighbouring values to draw at once: about n^(1/3), and at least 5.

    The factor before n^(1/3) is the one that suits how alike neighbours are: Politis and White
    2004, Automatic block-length selection for the dependent bootstrap, Econometric Reviews 23,
    corrected by Patton, Politis and White 2009, for blocks of equal length. It is asked of the
    values' ranks, so that single outliers do not hide the likeness of the others. Never more
    than a third of the values.
    """
    n = len(values)
    wanted = max(
        SHORTEST_BLOCK, math.ceil(round(math.cbrt(n), 9)), math.ceil(_automatic(_ranks(values)))
    )
    return max(1, min(wanted, n // 3))


def _automatic(values: Sequence[float]) -> float:
    n = len(values)
    if n < 2 * SHORTEST_BLOCK:
        return 0.0
    alone = max(5, math.ceil(math.sqrt(math.log10(n))))
    reach = min(math.ceil(math.sqrt(n)) + alone, n - 1)
    covariances = _covariances(values, reach)
    if covariances[0] <= 0:
        return 0.0
    bound = 2 * math.sqrt(math.log10(n) / n) * covariances[0]
    # The lag behind which `alone` covariances in a row are as good as none.
    last = next(
        (
            lag
            for lag in range(reach - alone + 1)
            if all(abs(c) < bound for c in covariances[lag + 1 : lag + 1 + alone])
        ),
        reach - alone + 1,
    )
    window = min(2 * max(last, 1), reach)
    weights = [min(1.0, 2 * (1 - lag / window)) for lag in range(window + 1)]
    spread = covariances[0] + 2 * sum(
        w * c for w, c in zip(weights[1:], covariances[1:], strict=False)
    )
    slope = 2 * sum(
        w * lag * c for lag, (w, c) in enumerate(zip(weights, covariances, strict=False))
    )
    if spread <= 0:
        return 0.0
    return float((2 * slope**2 / (4 / 3 * spread**2)) ** (1 / 3) * n ** (1 / 3))


def _covariances(values: Sequence[float], reach: int) -> list[float]:
    mean = sum(values) / len(values)
    centred = [value - mean for value in values]
    return [
        sum(a * b for a, b in zip(centred, centred[lag:], strict=False)) / len(values)
        for lag in range(reach + 1)
    ]


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 for value in values]


def _least_p(interval: Callable[[float], tuple[float, float]], least: float) -> float:
    """Return the smallest p whose interval leaves out 1; `least` is what resamples can tell."""

    def leaves_out_1(p: float) -> bool:
        low, high = interval(p)
        return low > 1 or high < 1

    inside, outside = least, 1.0
    if leaves_out_1(inside):
        return inside
    for _ in range(_HALVINGS):
        middle = math.sqrt(inside * outside)
        inside, outside = (inside, middle) if leaves_out_1(middle) else (middle, outside)
    return outside


def _wider(p: float, *counts: float) -> float:
    """Return by what to stretch an interval of level 1 - p, on a log scale, of so many blocks."""
    fewest = max(min(counts), 2.0)
    freedom = max(sum(counts) - len(counts), 1.0)
    z = NormalDist().inv_cdf(1 - min(p, _WIDE_OPEN) / 2)
    # Student's quantile out of the normal's: Abramowitz and Stegun 26.7.5, its first two terms.
    student = z + (z**3 + z) / (4 * freedom)
    student += (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return student / z * math.sqrt(fewest / (fewest - 1))


class _Drawer:
    """Draws resamples of one series: of each stretch as many values as it has, in blocks."""

    def __init__(self, series: Series, random: Random) -> None:
        stretches = [list(stretch) for stretch in series if stretch]
        if not stretches:
            raise ValueError("a series without values has no median")
        self._stretches = [(values, block_length(values)) for values in stretches]
        self._random = random.random
        self.longest = max(length for _, length in self._stretches)
        self.count = sum(len(values) / length for values, length in self._stretches)

    def median(self) -> float:
        """Return the median of one more resample."""
        drawn: list[float] = []
        for values, length in self._stretches:
            begins = len(values) - length + 1
            wanted = len(drawn) + len(values)
            while len(drawn) < wanted:
                begin = int(self._random() * begins)
                drawn += values[begin : begin + length]
            del drawn[wanted:]
        return max(median(drawn), SMALLEST)


def _floored(series: Series) -> float:
    return max(median([value for stretch in series for value in stretch]), SMALLEST)


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
