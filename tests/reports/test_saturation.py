from __future__ import annotations

import random

import pytest

from reports.saturation import Point, Saturation, fitted, law

LOADS = (10, 20, 40, 80, 160, 320, 640)


def points(gamma: float, sigma: float, kappa: float, noise: float = 0.0) -> list[Point]:
    draw = random.Random(5)  # noqa: S311 - reproducible, and no secret
    return [
        Point(load, law(load, gamma, sigma, kappa) * (1 + draw.gauss(0, noise))) for load in LOADS
    ]


@pytest.mark.parametrize(
    ("gamma", "sigma", "kappa"),
    [(10, 0.02, 0.0001), (995.6, 0.0267, 0.000769), (2, 0.3, 0), (5, 0, 1e-5), (7, 0, 0)],
)
def test_the_law_is_found_in_its_own_points(gamma: float, sigma: float, kappa: float) -> None:
    """From points that follow the law its three constants come back, whichever of them is zero."""
    fit = fitted(points(gamma, sigma, kappa))
    assert fit.is_good
    assert fit.gamma == pytest.approx(gamma, rel=1e-6)
    assert fit.sigma == pytest.approx(sigma, abs=1e-8)
    assert fit.kappa == pytest.approx(kappa, abs=1e-10)
    assert fit.r2 == pytest.approx(1.0)
    assert max(map(abs, fit.residuals)) < 1e-6


def test_the_limit_is_where_throughput_is_highest() -> None:
    """Knee and limit are what the law gives, and no throughput is higher than the limit's."""
    fit = fitted(points(10, 0.02, 0.0001, noise=0.01))
    assert fit.limit == pytest.approx(((1 - 0.02) / 0.0001) ** 0.5, rel=0.1)
    assert fit.limit is not None
    assert fit.limit_throughput is not None
    assert all(fit.at(load) <= fit.limit_throughput * 1.000001 for load in range(1, 1000))
    assert fit.knee == pytest.approx(fit.limit_throughput / fit.gamma)
    assert "throughput is highest" in fit.sentence("connections")


def test_constants_are_never_negative() -> None:
    """Points that bend upwards give a straight line, not a contention below zero."""
    fit = fitted([Point(load, load**1.03) for load in LOADS])
    assert fit.sigma == 0
    assert fit.kappa == 0
    assert fit.limit is None


def test_a_straight_line_has_no_limit_in_sight() -> None:
    """Throughput in proportion to the load says nothing of a limit, and is said to."""
    fit = fitted(points(2, 0, 0, noise=0.005))
    assert fit.is_good
    assert fit.limit is None
    assert fit.limit_throughput is None
    assert "no limit is in sight" in fit.sentence("connections")


def test_without_coherency_throughput_tends_to_a_limit() -> None:
    """With contention alone there is no peak, but a throughput that is never reached."""
    fit = fitted(points(2, 0.05, 0))
    assert fit.limit is None
    assert fit.limit_throughput == pytest.approx(40, rel=0.01)
    assert fit.knee == pytest.approx(20, rel=0.01)
    assert "without a peak" in fit.sentence("edits/s")


BAD: list[tuple[list[Point], str]] = [
    ([Point(load, load) for load in (10, 20, 40)], "3 loads were measured"),
    ([Point(load, load) for load in (10, 11, 12, 13)], "within a factor of"),
    ([Point(load, 0.0) for load in LOADS], "no throughput"),
    ([Point(load / 100, load) for load in LOADS], "below 1"),
    ([Point(10, 9), Point(20, 3), Point(40, 60), Point(80, 20)], "off by up to"),
    ([], "0 loads"),
]


@pytest.mark.parametrize(("measured", "why"), BAD)
def test_where_the_law_does_not_fit_it_says_so(measured: list[Point], why: str) -> None:
    """Too few loads, too narrow a span, or points that follow no such law: no knee is shown."""
    fit = fitted(measured)
    assert not fit.is_good
    assert why in fit.problem
    assert fit.sentence("connections").startswith("The Universal Scalability Law is no help here")


def test_a_knee_far_beyond_the_loads_is_not_said_to_be_measured() -> None:
    """A line that bends by a few per cent tends to a limit somewhere, and nobody knows where."""
    fit = fitted(points(10, 5e-5, 0))
    assert fit.is_good
    assert fit.knee == pytest.approx(20_000, rel=0.01)
    assert "no knee was measured" in fit.sentence("connections")
    near = fitted(points(10, 1e-3, 0))
    assert "a knee at 1,000 connections" in near.sentence("connections")


def test_a_limit_far_beyond_the_loads_is_marked() -> None:
    """A peak at more than twice the largest load is an extrapolation, and is called one."""
    points = tuple(Point(load, 1) for load in (1, 2, 4, 8))
    assert Saturation(points, limit=17).is_extrapolated
    assert not Saturation(points, limit=16).is_extrapolated
