import random
from collections.abc import Callable

import pytest

from run_store.histogram import Histogram, merge

DISTRIBUTIONS: dict[str, Callable[[random.Random], float]] = {
    "uniform": lambda draw: draw.uniform(1, 1000),
    "log-normal": lambda draw: draw.lognormvariate(3, 1.5),
    "two humps": lambda draw: draw.choice([draw.gauss(10, 1), draw.gauss(5000, 100)]),
    "all alike": lambda _draw: 12.5,
    "tiny": lambda draw: draw.uniform(0.05, 0.2),
}


def exact(values: list[float], q: float) -> float:
    """Return the smallest value that a share of at least `q` of all does not exceed."""
    ordered = sorted(values)
    return next(x for i, x in enumerate(ordered, 1) if i >= q * len(ordered))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("q", [0.0, 0.01, 0.5, 0.95, 0.99, 1.0])
def test_quantiles_are_within_their_bound(name: str, q: float) -> None:
    """Any quantile is within 2.5 % of the exact one, whatever the latencies' distribution."""
    draw = random.Random(name)  # noqa: S311 - reproducible
    values = [DISTRIBUTIONS[name](draw) for _ in range(3000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.quantile(q) == pytest.approx(exact(values, q), rel=0.025)
    assert histogram.count == 3000


def test_weights_count_as_many() -> None:
    """A latency of weight 3 is as good as three of them."""
    weighted, repeated = Histogram(), Histogram()
    for value in (1.0, 20.0, 300.0, 300.0):
        weighted.add(value, 3.0)
        for _ in range(3):
            repeated.add(value)
    assert weighted == repeated


def test_a_merge_is_the_histogram_of_all() -> None:
    """Merging those of several workers gives what one of all their latencies would be."""
    draw = random.Random(5)  # noqa: S311 - reproducible
    workers = [[draw.expovariate(0.01) for _ in range(n)] for n in (1, 500, 0, 77)]
    parts, whole = [], Histogram()
    for values in workers:
        part = Histogram()
        for value in values:
            part.add(value)
            whole.add(value)
        parts.append(part)
    assert merge(parts) == whole
    assert merge([]) == Histogram()


def test_merging_changes_none_of_its_parts() -> None:
    """The histograms that were merged stay as they were."""
    one, other = Histogram(), Histogram()
    one.add(5)
    other.add(5)
    merged = merge([one, other])
    merged.add(5)
    assert (one.count, other.count, merged.count) == (1, 1, 3)


def test_an_empty_histogram_has_no_quantiles() -> None:
    """Where nothing was counted there is no answer, rather than zero."""
    assert Histogram().quantile(0.5) is None


def test_latencies_of_zero_and_below_are_the_least() -> None:
    """A clock that errs a little below zero counts in the lowest bucket."""
    histogram = Histogram()
    histogram.add(0)
    histogram.add(-3)
    assert histogram.quantile(1.0) == pytest.approx(0.05, rel=0.025)


def test_a_histogram_goes_through_json() -> None:
    """Buckets are numbers again when a status is read."""
    histogram = Histogram()
    for value in (0.1, 1, 10):
        histogram.add(value, 2.5)
    assert Histogram.model_validate_json(histogram.model_dump_json()) == histogram
