"""Statistics that a few wild values do not move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

NORMAL_MAD = 1.4826
"""The MAD of a normal distribution times this is its standard deviation."""
_Z95 = 1.959964


def scaled_mad(values: Sequence[float]) -> float:
    """Return the median absolute deviation, scaled to be a normal's standard deviation."""
    middle = median(values)
    return NORMAL_MAD * median(abs(value - middle) for value in values)


@dataclass(frozen=True)
class Trend:
    """A straight line through points: slope for each unit of x, and its 95 % interval."""

    slope: float
    low: float
    high: float
    level: float

    def at(self, x: float) -> float:
        """Return the line's value at x."""
        return self.level + self.slope * x


def theil_sen(xs: Sequence[float], ys: Sequence[float]) -> Trend:
    """Return the median of all pairwise slopes, with Sen's interval (Sen 1968).

    Neighbouring values of a run resemble each other, so fewer than n are independent: the
    variance of Kendall's S is raised by (1 + r) / (1 - r), with r the correlation of
    neighbouring residuals (Hamed and Rao 1998, its first term). At least three points.
    """
    count = len(xs)
    slopes = sorted(
        (ys[j] - ys[i]) / (xs[j] - xs[i])
        for i in range(count)
        for j in range(i + 1, count)
        if xs[j] != xs[i]
    )
    slope = median(slopes)
    level = median(y - slope * x for x, y in zip(xs, ys, strict=True))
    residuals = [y - level - slope * x for x, y in zip(xs, ys, strict=True)]
    r = min(max(neighbour_correlation(residuals), 0.0), 0.9)
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18 * (1 + r) / (1 - r))
    reach = _Z95 * deviation
    lower = max(0, math.floor((len(slopes) - reach) / 2))
    upper = min(len(slopes) - 1, math.ceil((len(slopes) + reach) / 2))
    return Trend(slope=slope, low=slopes[lower], high=slopes[upper], level=level)


def neighbour_correlation(values: Sequence[float]) -> float:
    """Return the correlation of each value with the next, around their median; 0 if constant."""
    middle = median(values)
    whole = sum((value - middle) ** 2 for value in values)
    if whole == 0:
        return 0.0
    pairs = pairwise(values)
    return sum((a - middle) * (b - middle) for a, b in pairs) / whole


def rises_throughout(values: Sequence[float], *, least_share: float) -> bool:
    """Say whether the medians of three equal parts rise, each step by a share of the whole.

    A step or a hump makes a slope too; something that grows does so in every part.
    """
    third = len(values) // 3
    if third == 0:
        return False
    first = median(values[:third])
    middle = median(values[third : len(values) - third])
    last = median(values[len(values) - third :])
    whole = last - first
    return whole > 0 and min(middle - first, last - middle) >= least_share * whole


def chance_of(count: float, expected: float) -> float:
    """Return the chance of so many or more where `expected` come independently (Poisson).

    It is Chernoff's bound, which is never too small: exp(k - m - k ln(k / m)) for k above m.
    """
    if count <= expected:
        return 1.0
    if expected <= 0:
        return 0.0
    return math.exp(count - expected - count * math.log(count / expected))
