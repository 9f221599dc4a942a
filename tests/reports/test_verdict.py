from __future__ import annotations

import numpy as np
import pytest

from reports import objectives
from reports.build import summarise
from reports.summary import Distribution, Edits, Figures, ObjectiveRow, Summary
from reports.verdict import Measured, counts_for_verdict, judge, value_at, verdict_of, worst
from scenarios.objectives import METRICS, parse_objective
from tests.reports.synthetic import Columns, RunWriter, SyntheticPhase, healthy_run


def _row(text: str, measured: Measured, *, counts: bool = True) -> ObjectiveRow:
    return judge(parse_objective(text), measured, counts=counts)


@pytest.mark.parametrize(
    ("text", "got", "met"),
    [
        ("delivery_ms.p95 < 1s", 999.999, True),
        ("delivery_ms.p95 < 1s", 1000.0, False),
        ("delivery_ms.p95 <= 1s", 1000.0, True),
        ("edits.error_rate < 5%", 0.05, False),
        ("edits.per_second >= 2", 2.0, True),
        ("edits.per_second > 2", 2.0, False),
        ("edits.lost == 0", 0.0, True),
        ("edits.lost == 0", 1.0, False),
        ("connections.peak != 0", 0.0, False),
    ],
)
def test_an_objective_is_met_or_missed_by_its_operator(text: str, got: float, met: object) -> None:
    """The bound itself counts as the operator says."""
    row = _row(text, Measured(got))
    assert row.met is met
    assert verdict_of([row]) == ("passed" if met else "failed")


def test_what_was_not_measured_is_missed_and_says_why() -> None:
    """A missing figure is no evidence that it was good."""
    row = _row("delivery_ms.p95 < 1s", Measured(None, why_not="no sample"))
    assert (row.met, row.counts, verdict_of([row])) == (False, True, "failed")
    assert row.sentence == ("delivery_ms.p95 should be < 1,000 and was not measured: no sample")


def test_what_nothing_could_measure_stays_open() -> None:
    """A relay without /metrics fails nobody."""
    row = _row("relay.memory_growth_mb < 10", Measured(None, can_be=False))
    assert (row.met, row.counts, verdict_of([row])) == (None, False, "passed")


def test_one_miss_is_enough_and_no_objective_is_no_miss() -> None:
    """The verdict is that of the worst objective that counts."""
    met = _row("edits.lost == 0", Measured(0))
    missed = _row("edits.failed == 0", Measured(1))
    bound = _row("edits.failed == 0", Measured(1), counts=False)
    assert verdict_of([met, missed]) == "failed"
    assert verdict_of([met, bound]) == "passed"
    assert verdict_of([]) == "passed"


@pytest.mark.parametrize(
    ("text", "kind", "counts"),
    [
        ("edits.failed == 0 stop", "stress", False),
        ("edits.failed == 0 for 30s stop", "stress", False),
        ("edits.failed == 0", "stress", True),
        ("edits.failed == 0 stop", "sustained", True),
        ("edits.failed == 0 stop", None, True),
    ],
)
def test_only_stop_objectives_of_stress_phases_set_no_verdict(
    text: str, kind: str | None, counts: object
) -> None:
    """They bound the capacity; a stop objective anywhere else is judged."""
    assert counts_for_verdict(parse_objective(text), kind) is counts


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("delivery_ms.p95 < 10 for 5s", [3, None, 9, 4], 9),
        ("edits.per_second > 2 for 5s", [3, 1, 9], 1),
        ("connections.dropped == 0 for 5s", [0, 4, 1], 4),
        ("connections.peak != 5 for 5s", [0, 6, 9], 6),
    ],
)
def test_the_worst_window_is_the_furthest_from_what_is_wanted(
    text: str, values: list[float | None], expected: float
) -> None:
    """Windows without a value are passed over."""
    windows = [Measured(value, from_s=n, to_s=n + 5) for n, value in enumerate(values)]
    found = worst(parse_objective(text), windows)
    assert found.value == expected
    assert found.from_s == values.index(expected)
    assert worst(parse_objective(text), [Measured(None)]).value is None


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_is_a_path_in_the_summary(metric: str) -> None:
    """No objective can name a figure that the summary lacks."""
    assert value_at(Figures(), metric) is None or isinstance(value_at(Figures(), metric), float)
    assert set(metric.split(".")[:1]) <= set(Summary.model_fields)


def test_a_figure_is_found_by_its_path() -> None:
    """Numbers come back as such, and null as nothing."""
    figures = Figures(delivery_ms=Distribution(count=1, p95=12.5), edits=Edits(failed=3))
    assert value_at(figures, "delivery_ms.p95") == 12.5
    assert value_at(figures, "edits.failed") == 3
    assert value_at(figures, "edits.error_rate") is None


STRESS = (
    SyntheticPhase("sustained", "sustained", 20, 6, 5),
    SyntheticPhase("stress", "stress", 20, 6, 5),
    SyntheticPhase("cooldown", "cooldown", 6, 6, 0),
)


def _summary(run: RunWriter) -> Summary:
    with run.database() as database:
        return summarise(database)


def _slow(columns: Columns, run: RunWriter, phase: str, from_s: float, to_s: float) -> None:
    """Make what was intended in a stretch of a phase five seconds slower."""
    since = (columns["intended_us"] - run.start_us(phase)) / 1e6
    slow = (since >= from_s) & (since < to_s)
    for name in ("acknowledged_us", "seen_us"):
        if name in columns:
            columns[name] = columns[name] + np.where(slow, 5_000_000, 0)


def test_objectives_are_judged_in_their_phase_and_over_windows() -> None:
    """A slow stretch is missed by the window that holds it, and by no other phase."""
    run = healthy_run(
        "verdict-windows",
        phases=STRESS,
        objectives=("delivery_ms.p50 < 1s", "sustained: delivery_ms.p99 < 1s for 4s"),
        phase_objectives={
            "stress": ("delivery_ms.p50 < 1s for 4s stop", "delivery_ms.p50 < 1s for 15s")
        },
    )
    for kind in ("edits", "deliveries"):
        run.change(kind, "stress", lambda c: _slow(c, run, "stress", 8, 12))
    summary = _summary(run)
    whole, sustained, stress, long = summary.objectives
    assert (whole.met, sustained.met, stress.met, long.met) == (True, True, False, True)
    assert stress.got is not None
    assert stress.got > 5000
    assert stress.from_s is not None
    assert 27 <= stress.from_s <= 31
    assert stress.to_s == stress.from_s + 4
    assert not stress.counts
    assert long.counts
    assert summary.verdict == "passed"


RUN_STOPS: dict[str, tuple[tuple[SyntheticPhase, ...], str, bool | None]] = {
    "what the stress phase missed bounds it": (STRESS, "stress", True),
    "what another phase missed is missed": (STRESS, "sustained", False),
    "without a stress phase it is the run's": (STRESS[:1], "sustained", False),
    "with no phase beside it nothing is judged": (STRESS[1:], "stress", None),
}


@pytest.mark.parametrize("case", RUN_STOPS)
@pytest.mark.parametrize(
    "objective", ["delivery_ms.p99 < 1s stop", "delivery_ms.p50 < 1s for 4s stop"]
)
def test_a_stop_objective_of_the_run_bounds_its_stress_phase(objective: str, case: str) -> None:
    """There it sets no verdict; each of the other phases must meet it."""
    phases, slow, met = RUN_STOPS[case]
    run = healthy_run("verdict-stops", phases=phases, objectives=(objective,))
    for kind in ("edits", "deliveries"):
        run.change(kind, slow, lambda c: _slow(c, run, slow, 8, 12))
    summary = _summary(run)
    [row] = summary.objectives
    assert (row.met, row.counts) == (met, met is not None), row.sentence
    assert summary.verdict == ("failed" if met is False else "passed")
    has_stress = any(phase.kind == "stress" for phase in phases)
    assert ("outside the stress phase" in row.sentence) == has_stress


def test_what_only_a_stress_phase_tells_sets_no_verdict() -> None:
    """A warm-up without edits has no latency, and that is no miss."""
    phases = (SyntheticPhase("warm-up", "warmup", 8, 6, 0), *STRESS[1:])
    objectives = ("delivery_ms.p95 < 1ms stop", "connections.peak < 1 stop")
    summary = _summary(healthy_run("verdict-told", phases=phases, objectives=objectives))
    assert [(row.met, row.counts) for row in summary.objectives] == [(None, False), (False, True)]
    assert "no other phase tells it" in summary.objectives[0].sentence


@pytest.mark.parametrize(
    ("objective", "met"),
    [
        ("edits.error_rate < 50% for 5s", False),
        ("edits.error_rate < 30% for 15s", True),
        ("edits.completed >= 50 for 10s", False),
        ("sustained: edits.per_second > 1 for 6s", True),
        ("sustained: edits.per_second > 1 for 4s", False),
        ("connections.health_score > 60 for 3s", False),
        ("connections.health_score > 60", True),
        ("connections.peak >= 6 for 5s", True),
        ("relay.memory_growth_mb < 0.5 for 5s", True),
        ("relay.memory_growth_mb < 0.5", False),
        ("edits.lost == 0 for 5s", True),
    ],
)
def test_counts_and_gauges_are_judged_over_windows_too(
    verdict_run: Summary, objective: str, met: object
) -> None:
    """Sums for counts, means for gauges, last minus first for growth."""
    row = next(row for row in verdict_run.objectives if row.text == objective)
    assert row.met is met, row.sentence


@pytest.fixture(scope="module")
def verdict_run() -> Summary:
    """A run in which four seconds of edits fail and two workers are unhealthy for five."""
    marker = next(
        mark
        for mark in test_counts_and_gauges_are_judged_over_windows_too.pytestmark  # type: ignore[attr-defined]  # pytest's own
        if mark.name == "parametrize"
    )
    run = healthy_run(
        "verdict-gauges", phases=STRESS, objectives=tuple(text for text, _ in marker.args[1])
    )

    def fail(columns: Columns) -> None:
        since = (columns["intended_us"] - run.start_us("sustained")) / 1e6
        columns["error"] = ["refused" if 10 <= s < 14 else None for s in since]

    run.change("edits", "sustained", fail)

    def sicken(columns: Columns) -> None:
        columns["connections_healthy"] = np.where(np.arange(20) // 5 == 2, 1, 3)

    run.change("resources", "sustained", sicken)
    return _summary(run)


def test_windows_that_are_computed_in_turns_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run too large for all windows at once is judged on the same worst window."""
    run = healthy_run(
        "verdict-turns",
        phases=STRESS,
        objectives=("acknowledgement_ms.p95 < 1s for 4s", "sustained: delivery_ms.p50 < 1 for 7s"),
    )
    run.change("edits", "stress", lambda c: _slow(c, run, "stress", 8, 12))
    at_once = _summary(run).objectives
    monkeypatch.setattr(objectives, "_SAMPLES_AT_ONCE", 50)
    assert _summary(run).objectives == at_once
    assert at_once[0].got is not None
    assert at_once[0].got > 5000


def test_a_phase_that_did_not_run_misses_its_objectives() -> None:
    """What never ran was never met."""
    run = healthy_run("verdict-not-run", objectives=("sustained: edits.failed == 0",))
    run.incomplete = ("sustained", "cooldown")
    for key in [key for key in run.samples if key[1] != "00-warmup"]:
        del run.samples[key]
    summary = _summary(run)
    (row,) = summary.objectives
    assert (row.met, summary.verdict) == (False, "failed")
    assert "sustained did not run" in row.sentence


def test_a_relay_without_metrics_leaves_its_objectives_open() -> None:
    """Objectives on such a relay's memory neither pass nor fail."""
    run = healthy_run("verdict-no-metrics", objectives=("relay.memory_growth_mb < 1",))
    run.record_changes = {"has_metrics": False}
    for key in [key for key in run.samples if key[0] == "relay"]:
        del run.samples[key]
    summary = _summary(run)
    assert [row.met for row in summary.objectives] == [None]
    assert summary.verdict == "passed"
    assert summary.relay.polls_failed is None
