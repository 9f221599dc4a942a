"""Where a relay's throughput bends: Gunther's Universal Scalability Law, fitted to measured steps.

    X(N) = gamma N / (1 + sigma (N - 1) + kappa N (N - 1))

N is the load, X the throughput at it, gamma what one unit of load alone would get. sigma is the
share of work that waits its turn (contention), kappa the cost of keeping all in agreement
(coherency). With kappa > 0 throughput has a peak at sqrt((1 - sigma) / kappa) and falls behind it.
Source: N. J. Gunther, "Guerrilla Capacity Planning" (Springer 2007), chapters 4 to 6.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports.wording import number

LOADS_LEAST = 4
"""Three constants need more loads than three to say anything."""
SPAN_LEAST = 4.0
"""The largest load over the smallest: within less, any curve looks straight."""
R2_LEAST = 0.98
RESIDUAL_MOST = 0.10
"""A fit is good if it explains so much, and is nowhere off by more than this share."""
NOTHING = 1e-9


@dataclass(frozen=True)
class Point:
    """A load, and the throughput that it got."""

    load: float
    throughput: float


@dataclass(frozen=True)
class Saturation:
    """The law as fitted, if it could be.

    `residuals` are shares of the measured throughputs, one for each point. `knee` is the load at
    which the straight line of the beginning would reach the highest throughput that the law
    allows; `limit` the load at which throughput is highest, `limit_throughput` what it is there
    (or tends to, where `limit` is None). Both are None where no limit is in sight. `problem` says
    why the fit is not good; empty if it is.
    """

    points: tuple[Point, ...]
    gamma: float = 0.0
    sigma: float = 0.0
    kappa: float = 0.0
    r2: float = 0.0
    residuals: tuple[float, ...] = ()
    knee: float | None = None
    limit: float | None = None
    limit_throughput: float | None = None
    problem: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the law describes what was measured."""
        return not self.problem

    @property
    def is_extrapolated(self) -> bool:
        """Whether its limit, or its knee without one, lies far beyond what was measured.

        That is more than twice the largest load.
        """
        largest = max((point.load for point in self.points), default=0.0)
        lies_at = self.limit if self.limit is not None else self.knee
        return lies_at is not None and lies_at > 2 * largest

    def at(self, load: float) -> float:
        """Return the throughput that the law gives a load."""
        return law(load, self.gamma, self.sigma, self.kappa)

    def sentence(self, unit: str) -> str:
        """Return what the fit says, or why it says nothing; `unit` is the load's, in the plural."""
        if self.problem:
            return f"The Universal Scalability Law is no help here: {self.problem}."
        fit = f"(R² {self.r2:.3f}, off by at most {max(map(abs, self.residuals)):.1%})"
        if self.limit_throughput is None:
            return (
                "By the Universal Scalability Law throughput grows in proportion to the load as "
                f"far as was measured, and no limit is in sight {fit}."
            )
        if self.is_extrapolated:
            return (
                "By the Universal Scalability Law throughput was still growing with the load at "
                f"the last step: no knee was measured, and where one lies is not known {fit}."
            )
        knee = f"a knee at {number(self.knee)} {unit}"
        if self.limit is None:
            return (
                f"By the Universal Scalability Law there is {knee}, and throughput tends to "
                f"{number(self.limit_throughput)}/s without a peak {fit}."
            )
        return (
            f"By the Universal Scalability Law there is {knee}, and throughput is highest, "
            f"{number(self.limit_throughput)}/s, at {number(self.limit)} {unit} {fit}."
        )


def law(load: float, gamma: float, sigma: float, kappa: float) -> float:
    """Return the throughput X(N); see the module."""
    return gamma * load / (1 + sigma * (load - 1) + kappa * load * (load - 1))


def fitted(points: Sequence[Point]) -> Saturation:
    """Return the law that fits best, by least squares of the relative error, sigma, kappa >= 0.

    N / X is linear in 1 / gamma, sigma / gamma and kappa / gamma, so that the best three that are
    not negative are found without iterating: the best among all choices of which are zero.
    """
    usable = tuple(sorted((p for p in points if p.load > 0), key=lambda p: p.load))
    if problem := _unusable(usable):
        return Saturation(points=usable, problem=problem)
    scale = usable[-1].load
    rows = []
    for point in usable:
        # N / X = a + b (N - 1) + c N (N - 1), divided by N / X: so the error is a share.
        each, more = point.throughput / point.load, (point.load - 1) / scale
        rows.append((each, each * more, each * more * point.load / scale))
    a, b, c = _not_negative(rows)
    gamma, sigma, kappa = 1 / a, b / scale / a, c / scale**2 / a
    got = [law(p.load, gamma, sigma, kappa) for p in usable]
    residuals = tuple((x - p.throughput) / p.throughput for x, p in zip(got, usable, strict=True))
    mean = sum(p.throughput for p in usable) / len(usable)
    unexplained = sum((x - p.throughput) ** 2 for x, p in zip(got, usable, strict=True))
    whole = sum((p.throughput - mean) ** 2 for p in usable)
    r2 = 1 - unexplained / whole if whole else 0.0
    knee, limit, most = _limits(gamma, sigma, kappa, largest=scale)
    return Saturation(
        points=usable,
        gamma=gamma,
        sigma=sigma,
        kappa=kappa,
        r2=r2,
        residuals=residuals,
        knee=knee,
        limit=limit,
        limit_throughput=most,
        problem=_badness(r2, residuals),
    )


def _unusable(points: Sequence[Point]) -> str:
    loads = sorted({point.load for point in points})
    if len(loads) < LOADS_LEAST:
        return f"{len(loads)} loads were measured, and it needs {LOADS_LEAST}"
    if loads[0] < 1:
        return "a load below 1 has no place in it"
    if loads[-1] / loads[0] < SPAN_LEAST:
        return f"the loads lie within a factor of {loads[-1] / loads[0]:.2g}"
    if any(point.throughput <= 0 for point in points):
        return "some steps had no throughput at all"
    return ""


def _badness(r2: float, residuals: Sequence[float]) -> str:
    worst = max(map(abs, residuals))
    if worst > RESIDUAL_MOST:
        return f"it is off by up to {worst:.0%} from what was measured"
    if r2 < R2_LEAST:
        return f"it explains no more than {max(r2, 0.0):.0%} of how throughput varied"
    return ""


def _limits(
    gamma: float, sigma: float, kappa: float, *, largest: float
) -> tuple[float | None, float | None, float | None]:
    """Return knee, limit and the throughput there; what has no meaning is None.

    Constants so small that they bend the line by less than a hundredth at the largest load say
    nothing.
    """
    bends = sigma * (largest - 1) + kappa * largest * (largest - 1)
    if bends < 0.01:  # noqa: PLR2004 - see above
        return None, None, None
    if kappa * largest * (largest - 1) < 0.01 * bends or sigma >= 1:
        if sigma <= NOTHING:
            return None, None, None
        return 1 / sigma, None, gamma / sigma
    limit = math.sqrt((1 - sigma) / kappa)
    most = law(limit, gamma, sigma, kappa)
    return most / gamma, limit, most


def _not_negative(rows: Sequence[tuple[float, ...]]) -> tuple[float, float, float]:
    """Return x >= 0, its first above zero, for which every row . x is nearest to 1."""
    best, least = (1.0, 0.0, 0.0), math.inf
    for chosen in itertools.chain.from_iterable(
        itertools.combinations(range(3), count) for count in (1, 2, 3)
    ):
        if 0 not in chosen:
            continue
        solved = _solved([[row[i] for i in chosen] for row in rows])
        if solved is None or min(solved) < 0 or solved[0] <= NOTHING:
            continue
        x = [0.0, 0.0, 0.0]
        for place, value in zip(chosen, solved, strict=True):
            x[place] = value
        error = sum((sum(a * b for a, b in zip(row, x, strict=True)) - 1) ** 2 for row in rows)
        if error < least:
            best, least = (x[0], x[1], x[2]), error
    return best


def _solved(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """Return the least-squares solution of rows . x = 1 by the normal equations; None if none."""
    size = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)] + [sum(row[i] for row in rows)]
        for i in range(size)
    ]
    for at in range(size):
        pivot = max(range(at, size), key=lambda i: abs(matrix[i][at]))
        if abs(matrix[pivot][at]) < NOTHING * NOTHING:
            return None
        matrix[at], matrix[pivot] = matrix[pivot], matrix[at]
        for i in range(size):
            if i != at:
                share = matrix[i][at] / matrix[at][at]
                matrix[i] = [a - share * b for a, b in zip(matrix[i], matrix[at], strict=True)]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]
