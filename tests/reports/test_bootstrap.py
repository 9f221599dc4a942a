"""The statistics of a comparison, on series whose truth is known."""

from __future__ import annotations

import math
from random import Random

import pytest

from reports.bootstrap import (
    SIGNIFICANT,
    Ratio,
    block_length,
    cliffs_delta,
    holm,
    ratio_of_medians,
)
from reports.compare import change_of

PAIRS = 200
MIN_EFFECT = 0.1
RESAMPLES = 200
"""Fewer than the command draws: enough for the rates that are asserted here."""


def latencies(
    seed: int, *, seconds: int, likeness: float, spread: float = 0.15, ms: float = 10.0
) -> list[float]:
    """Return log-normal latencies; their logarithms are an AR(1) with that likeness."""
    draw = Random(seed)  # noqa: S311 - noise
    state = draw.gauss(0, 1)
    values = []
    for _ in range(seconds):
        state = likeness * state + math.sqrt(1 - likeness**2) * draw.gauss(0, 1)
        values.append(ms * math.exp(spread * state))
    return values


def ratios(times: float, *, seconds: int, likeness: float, pairs: int = PAIRS) -> list[Ratio]:
    return [
        ratio_of_medians(
            [latencies(2 * pair, seconds=seconds, likeness=likeness)],
            [latencies(2 * pair + 1, seconds=seconds, likeness=likeness, ms=10 * times)],
            resamples=RESAMPLES,
        )
        for pair in range(pairs)
    ]


@pytest.mark.parametrize(("seconds", "likeness"), [(45, 0.5), (120, 0.7)])
def test_noise_is_seldom_a_regression(seconds: int, likeness: float) -> None:
    """Of 200 pairs without any change at most one in twenty is told as slower.

    Without a least effect, too, at most one interval in nine leaves out 1: taking the seconds of
    the second case for independent, it would be one in three.
    """
    found = ratios(1.0, seconds=seconds, likeness=likeness)
    slower = sum(change_of(ratio, MIN_EFFECT, p=ratio.p) == "slower" for ratio in found)
    assert slower <= 0.05 * PAIRS
    assert sum(ratio.is_significant for ratio in found) <= 0.11 * PAIRS


def test_a_fifth_more_is_found() -> None:
    """Of 200 pairs whose second is slower by 20 % at least nine in ten are told as slower."""
    found = ratios(1.2, seconds=120, likeness=0.5)
    # The hardest of four: its p-value counts four times.
    slower = sum(change_of(ratio, MIN_EFFECT, p=4 * ratio.p) == "slower" for ratio in found)
    assert slower >= 0.85 * PAIRS


def families(times: float, *, seconds: int, likeness: float) -> list[list[Ratio]]:
    """Return four latencies' ratios of each pair of runs; half of what moves one moves all."""

    def run(seed: int, ms: float) -> list[list[float]]:
        common = latencies(seed, seconds=seconds, likeness=likeness, ms=1)
        own = [
            latencies(1000 * seed + number, seconds=seconds, likeness=likeness, ms=1)
            for number in range(4)
        ]
        return [[ms * math.sqrt(a * b) for a, b in zip(common, one, strict=True)] for one in own]

    found = []
    for pair in range(PAIRS):
        both = zip(run(2 * pair + 1, 10.0), run(2 * pair + 2, 10.0 * times), strict=True)
        found.append([ratio_of_medians([a], [b], resamples=RESAMPLES) for a, b in both])
    return found


def test_four_latencies_raise_no_more_false_alarms_than_one() -> None:
    """Of 200 pairs without a change any of four latencies is told as slower in one in twenty.

    That one of them moved at all is told half as often as if each were judged alone.
    """
    found = families(1.0, seconds=45, likeness=0.5)
    adjusted = [holm([one.p for one in four]) for four in found]
    slower = [
        any(change_of(one, MIN_EFFECT, p=p) == "slower" for one, p in zip(four, ps, strict=True))
        for four, ps in zip(found, adjusted, strict=True)
    ]
    assert sum(slower) <= 0.05 * PAIRS
    moved_alone = sum(min(one.p for one in four) < SIGNIFICANT for four in found)
    assert sum(min(ps) < SIGNIFICANT for ps in adjusted) <= 0.6 * moved_alone


@pytest.mark.parametrize(
    ("ps", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.04, 0.01, 0.02, 0.03], [0.06, 0.04, 0.06, 0.06]),
        ([0.5, 0.4, 0.9], [1.0, 1.0, 1.0]),
        ([0.01, 0.01, 0.9], [0.03, 0.03, 0.9]),
    ],
)
def test_holms_adjustment(ps: list[float], adjusted: list[float]) -> None:
    """The smallest of m counts m times, the next m - 1 times, and none less than one before."""
    assert holm(ps) == pytest.approx(adjusted)


def test_p_is_below_5_percent_where_the_interval_leaves_out_1() -> None:
    """The two say the same, for changes of any size; a run against itself has no p below 1."""
    for times in (1.0, 1.03, 1.06, 1.1, 1.5):
        for ratio in ratios(times, seconds=45, likeness=0.5, pairs=20):
            assert (ratio.p < SIGNIFICANT) == ratio.is_significant
    series = [latencies(1, seconds=60, likeness=0.5)]
    assert ratio_of_medians(series, series, resamples=100).p > 0.5


@pytest.mark.parametrize(
    ("ratio", "p", "change"),
    [
        (1.2, 0.01, "slower"),
        (1.1, 0.01, "slower"),  # the least effect itself counts
        (1.2, 0.06, "not significant"),
        (1.05, 0.01, "below the minimum"),
        (0.95, 0.01, "below the minimum"),
        (0.8, 0.01, "faster"),
        (1.0, 1.0, "not significant"),
    ],
)
def test_what_counts_as_a_change(ratio: float, p: float, change: str) -> None:
    """A change is one that is significant among those judged with it, and large enough."""
    assert change_of(Ratio(ratio, 0.0, 9.0, (5, 5)), MIN_EFFECT, p=p) == change


def test_the_same_values_give_the_same_interval() -> None:
    """An interval hangs on values and seed alone; the ratio of a run to itself is 1, within it."""
    series = [latencies(1, seconds=60, likeness=0.5)]
    once, twice = (ratio_of_medians(series, series, seed=7, resamples=100) for _ in range(2))
    assert once == twice
    assert once.ratio == 1
    assert once.low < 1 < once.high


def test_phases_are_drawn_each_for_itself() -> None:
    """Two levels in two phases of one length are no noise: each resample holds both alike."""
    fast, slow = [10.0] * 40, [30.0] * 41
    ratio = ratio_of_medians([fast, slow], [fast, slow], resamples=50)
    assert (ratio.low, ratio.ratio, ratio.high) == (1, 1, 1)


@pytest.mark.parametrize(
    ("values", "length"),
    [
        ([1.0] * 60, 5),  # nothing varies
        ([1.0, 2.0] * 4, 2),  # never more than a third
        (latencies(3, seconds=1000, likeness=0.0), 10),  # n^(1/3)
    ],
)
def test_the_length_of_blocks(values: list[float], length: int) -> None:
    """Blocks are about n^(1/3) long, at least 5, and at most a third of the values."""
    assert block_length(values) == length


def test_blocks_are_longer_where_neighbours_are_alike() -> None:
    """Strong likeness makes blocks at least twice as long as independence does."""
    alone, alike = (
        block_length(latencies(3, seconds=300, likeness=likeness)) for likeness in (0.0, 0.9)
    )
    assert alike >= 2 * alone


@pytest.mark.parametrize(
    ("baseline", "other", "delta"),
    [
        ([1, 2, 3], [4, 5, 6], 1.0),
        ([4, 5, 6], [1, 2, 3], -1.0),
        ([1, 2, 3], [1, 2, 3], 0.0),
        ([1, 2], [2, 3], 0.75),  # three pairs of four are larger, one is equal
        ([], [1], 0.0),
    ],
)
def test_cliffs_delta(baseline: list[float], other: list[float], delta: float) -> None:
    """Cliff's delta counts pairs: larger less smaller, of all."""
    assert cliffs_delta(baseline, other) == delta
