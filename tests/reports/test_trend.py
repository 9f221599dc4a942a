from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from reports.history import Line, add, asks, lines
from reports.trend import FALL, partition, trend_of
from reports.trend_page import capacity_text
from run_store.capacity import CapacityResult
from run_store.errors import CannotRunError
from run_store.store import Store, StoreAddress
from tasks.regression import judge_regression

WEEK_US = 7 * 86_400 * 1_000_000


def line(week: int, capacity: float | None, **more: Any) -> Line:
    fields: dict[str, Any] = {
        "run_id": f"run-{week}",
        "at_us": week * WEEK_US,
        "scenario": "heavy",
        "asks": "same",
        "relay_url": "wss://relay.example/",
        "relay_version": "1.0",
        "fleet": "ec2",
        "validity": "valid",
        "verdict": "passed",
        "kind": "between",
        "over": "connections",
        "capacity": capacity,
        "low": capacity and capacity * 0.95,
        "high": capacity and capacity * 1.05,
    }
    return Line(**{**fields, **more})


def test_no_history_is_said_to_be_none() -> None:
    """Without a line there is no trend, no alarm, and a sentence that says so."""
    trend = trend_of([])
    assert not trend.has_regressed
    assert "no history" in trend.sentence


def test_a_first_run_is_compared_with_nothing() -> None:
    """A median of one run is none."""
    trend = trend_of([line(1, 1000), line(2, 500)])
    assert trend.fall is None
    assert not trend.has_regressed
    assert "1 runs to compare it with" in trend.sentence


@pytest.mark.parametrize(
    ("newest", "regressed"), [(1000, False), (905, False), (895, True), (500, True), (1500, False)]
)
def test_a_fall_beyond_the_share_is_a_regression(newest: float, regressed: bool) -> None:
    """The newest capacity is held against the median of the last valid runs."""
    trend = trend_of([line(1, 1010), line(2, 990), line(3, 1000), line(4, newest)])
    assert trend.median == 1000
    assert trend.has_regressed is regressed
    assert ("regression" in trend.sentence) is regressed


def test_the_sentence_of_a_regression_names_the_version() -> None:
    """A relay that gives its version is told apart from the one before."""
    weeks = [line(1, 1000), line(2, 1000), line(3, 700, relay_version="1.1")]
    sentence = trend_of(weeks).sentence
    assert sentence == (
        "Capacity fell to 700 connections, 30.0% below the median of the last 2 valid runs, 1000; "
        "more than 10% is a regression. The relay's version is 1.1 (before: 1.0)."
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"validity": "invalid"}, "it is invalid"),
        ({"asks": "other"}, "it asked something else of the relay"),
        ({"relay_url": "wss://other.example/"}, "it is of another relay, wss://other.example/"),
        ({"kind": "unknown", "capacity": None, "low": None}, "it found no capacity"),
    ],
)
def test_what_cannot_be_compared_is_left_out_and_named(fields: dict[str, Any], why: str) -> None:
    """Invalid runs and runs of something else have no part in the median."""
    odd = replace(line(2, 100), **fields)
    trend = trend_of([line(1, 1000), odd, line(3, 1000), line(4, 1000)])
    assert [left.why for left in trend.left_out] == [why]
    assert trend.compared_with == 2
    assert trend.fall == 0


def test_relays_of_this_machine_are_one_whatever_their_port() -> None:
    """A local relay has a new port each time, and is the same relay for the trend."""
    ports = [line(n, 100, relay_url=f"ws://127.0.0.1:{5000 + n}/") for n in range(4)]
    assert not trend_of(ports).left_out


def test_at_least_is_no_fall_and_below_is_one() -> None:
    """A bound from below raises no alarm; one from above is judged as it stands."""
    weeks = [line(1, 1000), line(2, 1000)]
    low = trend_of([*weeks, line(3, None, kind="at_least", low=500.0, high=None)])
    assert not low.has_regressed
    assert "bounds it from below" in low.sentence
    assert trend_of([*weeks, line(3, None, kind="below", low=None, high=100.0)]).has_regressed
    assert trend_of([*weeks, line(3, None, kind="died", low=100.0, high=200.0)]).has_regressed


def test_a_relay_that_dies_at_the_first_load_has_fallen() -> None:
    """It held nothing that was tried: no worse can be said of a relay."""
    weeks = [line(1, 1000), line(2, 1000)]
    trend = trend_of([*weeks, line(3, None, kind="died", low=None, high=500.0)])
    assert trend.has_regressed
    assert "fell to below 500 connections, at which the relay died, 50.0% below" in trend.sentence
    told = capacity_text(line(1, None, kind="died", low=None, high=500.0))
    assert told == "below 500: the relay died at it"
    assert capacity_text(line(1, None, kind="unknown", low=None, high=500.0)) == "-"


def test_a_bound_from_below_counts_where_it_says_something() -> None:
    """That it was 500 or more then hides no fall to 700; that it was 1000 or more shows one."""
    least = [line(n, None, kind="at_least", low=500.0, high=None) for n in (3, 4, 5)]
    assert trend_of([line(1, 1000), line(2, 1000), *least, line(6, 700)]).median == 1000
    most = [line(n, None, kind="at_least", low=1000.0, high=None) for n in (1, 2)]
    assert trend_of([*most, line(3, 700)]).has_regressed
    more = line(6, None, kind="at_least", low=1200.0, high=None)
    assert trend_of([line(1, 1000), line(2, 1000), *least, more]).median == 1000
    assert trend_of([*most, *(line(n, 1000) for n in range(3, 12))]).changes == ()


def test_loads_are_told_without_exponents() -> None:
    """However large they are."""
    weeks = [line(1, 20_000), line(2, 20_000), line(3, 12_345)]
    assert "Capacity fell to 12345 connections" in trend_of(weeks).sentence
    assert capacity_text(line(1, None, kind="died", low=30.0)) == "30 before the relay died"


def test_the_trend_of_an_earlier_run_ends_there() -> None:
    """What came later has no part in an earlier run's trend."""
    weeks = [line(n, 1000 - 100 * n) for n in range(5)]
    trend = trend_of(weeks, newest="run-2")
    assert [one.run_id for one in trend.lines] == ["run-0", "run-1", "run-2"]


def test_a_change_of_level_is_found_where_it_is() -> None:
    """A series with one step down and noise has that one change, with both levels and versions."""
    draw = random.Random(2)  # noqa: S311 - reproducible, and no secret
    weeks = [
        line(n, (1000 if n < 12 else 800) * (1 + draw.gauss(0, 0.02)), relay_version=str(n // 12))
        for n in range(24)
    ]
    [change] = trend_of(weeks).changes
    assert change.run_id == "run-12"
    assert change.share == pytest.approx(-0.2, abs=0.03)
    assert (change.version_before, change.version_after) == ("0", "1")


def test_a_steady_decline_is_told() -> None:
    """Steps that are too small to be told add up to one that is not."""
    levels = (1000, 955, 912, 871, 832)
    changes = trend_of([line(n, levels[n // 10]) for n in range(50)]).changes
    assert [change.run_id for change in changes] == ["run-20", "run-40"]
    assert all(change.share < -0.05 for change in changes)


def test_noise_alone_is_no_change() -> None:
    """Of 200 series of one level hardly any is divided."""
    draw = random.Random(3)  # noqa: S311 - reproducible, and no secret
    divided = sum(bool(partition([draw.gauss(0, 0.03) for _ in range(20)])) for _ in range(200))
    assert divided <= 10


def test_history_comes_back_from_the_store(store_address: StoreAddress) -> None:
    """Lines are kept one by one, read in the order of time, and by scenario; again changes none."""
    store = Store(store_address)
    assert lines(store) == []
    weeks = [line(2, 900.5), line(1, None, kind="below"), line(3, 10, scenario="local")]
    for one in [*weeks, weeks[0]]:
        add(store, one)
    assert lines(store, "heavy") == [weeks[1], weeks[0]]
    assert len(lines(store)) == 3


def test_what_a_run_asks_is_the_scenario_and_the_search() -> None:
    """Cost and fleet do not matter for a comparison; documents, edits and the start do."""
    scenario = {"name": "heavy", "payload_bytes": 64, "fleet": {"workers": 5}, "max_usd": 3}
    result = CapacityResult(kind="between", over="connections", start=10)
    of = asks(scenario, result)
    assert of == asks({**scenario, "fleet": {"workers": 9}, "max_usd": 1}, result)
    assert of != asks({**scenario, "payload_bytes": 65}, result)
    assert of != asks(scenario, result.model_copy(update={"start": 20}))
    assert of == asks(scenario, result.model_copy(update={"capacity": 20, "precision": 0.1}))
    later_release = {**scenario, "compressed": False, "region": "", "tls": {"key": None}}
    assert of == asks(later_release, result)
    assert of != asks({**later_release, "compressed": True}, result)
    assert of != asks({**scenario, "history": 0}, result)
    assert FALL == 0.10


def test_a_fall_within_the_interval_is_not_told_as_one() -> None:
    """An answer so wide that it reaches the median is no alarm, and says why."""
    weeks = [line(1, 1000), line(2, 1000), line(3, 850, low=700.0, high=1020.0)]
    trend = trend_of(weeks)
    assert not trend.has_regressed
    assert trend.sentence.endswith("its interval reaches 1020, so that no fall can be told.")


def test_a_new_result_is_judged_from_the_store(store_address: StoreAddress) -> None:
    """The run that is named is judged against those before it; one without a line is refused."""
    store = Store(store_address.model_copy(update={"prefix": "judged/"}))
    for one in [line(1, 1000), line(2, 1000), line(3, 700)]:
        add(store, one)
    judged = judge_regression(store, "heavy", "run-3")
    assert judged.has_regressed
    assert judged.payload["fall"] == pytest.approx(0.3)
    assert judged.payload["sentence"] == judged.sentence
    assert judged.resource["prefect.resource.id"] == "relay-load.capacity.heavy"
    assert not judge_regression(store, "heavy", "run-3", allowed_fall=0.4).has_regressed
    assert not judge_regression(store, "heavy", "run-2").has_regressed
    with pytest.raises(CannotRunError, match="no line of run-9"):
        judge_regression(store, "heavy", "run-9")


def test_an_invalid_run_raises_no_alarm_and_hides_none(store_address: StoreAddress) -> None:
    """It is not judged itself; the trend goes on saying what the last good run was."""
    store = Store(store_address.model_copy(update={"prefix": "unjudged/"}))
    weeks = [line(1, 1000), line(2, 1000), line(3, 700), line(4, 10, validity="invalid")]
    for one in weeks:
        add(store, one)
    judged = judge_regression(store, "heavy", "run-4")
    assert not judged.has_regressed
    assert judged.sentence == "run-4 is not held against the runs before it: it is invalid."
    trend = trend_of(weeks)
    assert trend.has_regressed
    assert [left.line.run_id for left in trend.left_out] == ["run-4"]
    assert "believed" in trend_of(weeks[3:]).sentence
