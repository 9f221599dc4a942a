from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reports.build import summarise
from reports.engine import open_run
from reports.evidence import Cut, Evidence, Gap, Lateness, Lost, Shortfall, Strain
from reports.summary import Summary
from reports.validity import judge_validity, validity_of
from run_store.messages import LostWorker, Status
from run_store.store import Store
from tests.reports.synthetic import Columns, RunWriter, SyntheticPhase, healthy_run

GOOD = Evidence(samples=1000, edits_offered=1000, edits_missed=0, edits_unreported=0)


def _lost(share: float, replaced: str = "") -> Lost:
    return Lost("worker-2", "01-sustained", 20.0, 40, share, replaced)


def _late(p99_ms: float) -> Lateness:
    return Lateness("01-sustained", 6.0, 36.0, 120, p99_ms)


def _strain(seconds: int, busy: int, pages: int = 0) -> Strain:
    return Strain("01-sustained", "worker-1", 6.0, 36.0, seconds, busy, pages, 97.0)


def _short(seconds: int) -> Shortfall:
    return Shortfall("01-sustained", 10.0, 10.0 + seconds, seconds, 30, 40)


@pytest.mark.parametrize(
    ("change", "rule", "validity"),
    [
        ({}, None, "valid"),
        ({"samples": 0}, "no_samples", "invalid"),
        ({"scenario_known": False}, "scenario_unreadable", "invalid"),
        ({"samples": 0, "running": True}, "running", "valid"),
        ({"lost": (_lost(0.1),)}, "lost_worker", "degraded"),
        ({"lost": (_lost(0.11),)}, "lost_worker", "invalid"),
        ({"lost": (_lost(0.06), _lost(0.06))}, "lost_worker", "invalid"),
        ({"lost": (_lost(0.5, "replaced"),)}, "lost_worker", "degraded"),
        ({"lost": (_lost(0.06, "replaced"), _lost(0.06))}, "lost_worker", "degraded"),
        ({"gaps": (Gap("edits", "01-sustained", "worker-1", 1),)}, "missing_part", "invalid"),
        ({"edits_missed": 1}, None, "valid"),
        ({"edits_missed": 2}, "missed_edits", "degraded"),
        ({"edits_missed": 10}, "missed_edits", "degraded"),
        ({"edits_missed": 11}, "missed_edits", "invalid"),
        ({"edits_unreported": 5}, "unreported_edits", "degraded"),
        ({"edits_unreported": 11}, "unreported_edits", "invalid"),
        ({"edits_unreported": 100, "lost": (_lost(0.1),)}, "lost_worker", "degraded"),
        ({"shortfalls": (_short(9),)}, None, "valid"),
        ({"shortfalls": (_short(10),)}, "target_not_held", "invalid"),
        ({"lateness": (_late(50.0),)}, None, "valid"),
        ({"lateness": (_late(50.1),)}, "late_edits", "degraded"),
        ({"strain": (_strain(100, 4),)}, None, "valid"),
        ({"strain": (_strain(100, 5),)}, "busy_and_late", "degraded"),
        ({"strain": (_strain(30, 2),)}, None, "valid"),
        ({"strain": (_strain(30, 3),)}, "busy_and_late", "degraded"),
        ({"strain": (_strain(30, 0, 15),)}, None, "valid"),
        ({"strain": (_strain(30, 0, 16),)}, "late_pages", "degraded"),
        ({"phases_not_run": ("cooldown",)}, "phases_not_run", "invalid"),
        ({"phases_not_run": ("cooldown",), "running": True}, "running", "valid"),
        ({"phases_not_run": ("cooldown",), "stopped_by_objective": True}, None, "valid"),
        ({"cuts": (Cut("01-sustained", 6.0, 9.0, 30.0, "asked to"),)}, "cut_short", "degraded"),
        (
            {"between_workers_p50_ms": 10.0, "clock_error_ms": 2.4, "within_workers_count": 5},
            None,
            "valid",
        ),
        (
            {"between_workers_p50_ms": 10.0, "clock_error_ms": 2.6, "within_workers_count": 5},
            "clock_error",
            "valid",
        ),
        ({"between_workers_p50_ms": 10.0, "clock_error_ms": 2.6}, "clock_error", "degraded"),
        ({"between_workers_p50_ms": 10.0, "clocks_known": False}, "clock_unknown", "degraded"),
    ],
)
def test_each_rule_speaks_at_its_own_limit(
    change: dict[str, Any], rule: str | None, validity: str
) -> None:
    """Every limit is where it is written, and no other rule speaks with it."""
    said = judge_validity(Evidence(**{**GOOD.__dict__, **change}))
    assert {entry.rule for entry in said} == ({rule} if rule else set())
    assert validity_of(said) == validity


def test_what_a_replaced_worker_left_out_is_judged_by_itself() -> None:
    """Its loss only degrades, so that the edits that nobody tells of count as any others."""
    lost = (_lost(0.5, "replaced by worker-3 from 02-cooldown on"),)
    said = judge_validity(Evidence(**{**GOOD.__dict__, "lost": lost, "edits_unreported": 11}))
    assert {(entry.rule, entry.level) for entry in said} == {
        ("unreported_edits", "invalid"),
        ("lost_worker", "degraded"),
    }


def test_the_gravest_reason_stands_first() -> None:
    """A reader meets what makes the run invalid before what degrades it."""
    said = judge_validity(
        Evidence(**{**GOOD.__dict__, "edits_missed": 500, "lateness": (_late(80.0),)})
    )
    assert [entry.level for entry in said] == ["invalid", "degraded"]


def _summary(run: RunWriter) -> Summary:
    with run.database() as database:
        return summarise(database)


def _healthy(_: RunWriter) -> None:
    """Change nothing."""


def _no_samples(run: RunWriter) -> None:
    run.samples.clear()
    run.edits_planned.clear()


def _lose(run: RunWriter, connections: int) -> None:
    at_us = run.start_us("sustained") + 10_000_000
    run.lost["01-sustained"] = [
        LostWorker(
            worker="worker-2",
            phase="01-sustained",
            last_seen_us=at_us,
            noticed_us=at_us + 10_000_000,
            connections=connections,
        )
    ]


def _miss(run: RunWriter, count: int) -> None:
    columns = run.samples["edits", "01-sustained", "worker-1"]
    columns["error"] = ["missed"] * count + columns["error"][count:]
    for name in ("started_us", "acknowledged_us"):
        columns[name] = [None] * count + list(columns[name][count:])


def _unreport(run: RunWriter) -> None:
    run.edits_planned["01-sustained"] += 50


def _give_up(run: RunWriter) -> None:
    """Let the generator itself try and hold only 80 % of its plan for eleven seconds."""

    def close(columns: Columns) -> None:
        fewer = np.where((np.arange(60) >= 10) & (np.arange(60) < 21), 16, 20)
        for name in ("sockets_attempted", "connections_open", "connections_healthy"):
            columns[name] = fewer

    run.change("resources", "sustained", close)


def _refused(run: RunWriter) -> None:
    """Let the relay drop every second connection, while the generator keeps trying."""

    def drop(columns: Columns) -> None:
        for name in ("connections_open", "connections_healthy", "connections_synced"):
            columns[name] = columns[name] // 2

    run.change("resources", "sustained", drop)


def _delay(run: RunWriter, *, held: bool) -> None:
    def begin_late(columns: Columns) -> None:
        for name in ("started_us", "acknowledged_us"):
            columns[name] = columns[name] + 60_000
        columns["held"] = np.full(len(columns["edit"]), held)

    run.change("edits", "sustained", begin_late)


def _strained(run: RunWriter, *, busy: bool, late: bool) -> None:
    def strain(columns: Columns) -> None:
        at = (np.arange(60) >= 20) & (np.arange(60) < 30)
        if busy:
            columns["cpu_percent"] = np.where(at, 97.0, columns["cpu_percent"])
        if late:
            columns["loop_lag_ms"] = np.where(at, 80.0, columns["loop_lag_ms"])

    run.change("resources", "sustained", strain, worker="worker-1")


def _late_pages(run: RunWriter) -> None:
    def lag(columns: Columns) -> None:
        columns["page_lag_ms"] = np.where(np.arange(60) < 40, 70.0, 1.0)

    run.change("resources", "sustained", lag, worker="worker-2")


def _warmup_is_busy_and_late(run: RunWriter) -> None:
    def strain(columns: Columns) -> None:
        columns["cpu_percent"] = np.full(5, 100.0)
        columns["page_lag_ms"] = np.full(5, 500.0)

    run.change("resources", "warmup", strain)

    def begin_late(columns: Columns) -> None:
        for name in ("started_us", "acknowledged_us"):
            columns[name] = columns[name] + 400_000

    run.change("edits", "warmup", begin_late)


def _vague_clocks(run: RunWriter) -> None:
    for phase in ("warmup", "sustained", "cooldown"):
        run.change(
            "resources",
            phase,
            lambda columns: columns.update(clock_error_ms=np.full(len(columns["at_us"]), 30.0)),
        )


def _cut(run: RunWriter) -> None:
    run.phase_changes["01-sustained"] = {"stopped_early": "it was asked to stop"}


def _not_run(run: RunWriter) -> None:
    run.incomplete = ("cooldown",)
    run.record_changes = {"problems": ["every worker was lost"], "state": "failed"}
    for key in [key for key in run.samples if key[1] == "02-cooldown"]:
        del run.samples[key]


PHASES = (
    SyntheticPhase("warmup", "warmup", 5, 40, 4),
    SyntheticPhase("sustained", "sustained", 60, 40, 16),
    SyntheticPhase("cooldown", "cooldown", 6, 40, 0),
)


@pytest.mark.parametrize(
    ("break_it", "rules", "validity"),
    [
        (_healthy, set(), "valid"),
        (_no_samples, {"no_samples"}, "invalid"),
        (lambda run: _lose(run, 4), {"lost_worker"}, "degraded"),
        (lambda run: _lose(run, 5), {"lost_worker"}, "invalid"),
        (lambda run: _miss(run, 3), {"missed_edits"}, "degraded"),
        (lambda run: _miss(run, 30), {"missed_edits"}, "invalid"),
        (_unreport, {"unreported_edits"}, "invalid"),
        (_give_up, {"target_not_held"}, "invalid"),
        (_refused, set(), "valid"),
        (lambda run: _delay(run, held=False), {"late_edits"}, "degraded"),
        (lambda run: _delay(run, held=True), set(), "valid"),
        (lambda run: _strained(run, busy=True, late=True), {"busy_and_late"}, "degraded"),
        (lambda run: _strained(run, busy=True, late=False), set(), "valid"),
        (lambda run: _strained(run, busy=False, late=True), set(), "valid"),
        (_late_pages, {"late_pages"}, "degraded"),
        (_warmup_is_busy_and_late, set(), "valid"),
        (_vague_clocks, {"clock_error"}, "valid"),
        (_cut, {"cut_short"}, "degraded"),
        (_not_run, {"phases_not_run"}, "invalid"),
    ],
    ids=[
        "healthy",
        "no-samples",
        "small-worker-lost",
        "worker-lost",
        "few-missed",
        "many-missed",
        "unreported",
        "generator-gave-up",
        "relay-refused",
        "late-edits",
        "held-edits",
        "busy-and-late",
        "busy",
        "late-for-a-while",
        "late-pages",
        "strained-warmup",
        "vague-clocks",
        "cut-short",
        "phase-not-run",
    ],
)
def test_samples_that_break_one_rule_break_just_that_rule(
    break_it: Callable[[RunWriter], None],
    rules: set[str],
    validity: str,
    request: pytest.FixtureRequest,
) -> None:
    """From samples to rule: what is broken is said, with its phase, and nothing else is."""
    run = healthy_run(f"validity-{request.node.callspec.id}", phases=PHASES)
    break_it(run)
    summary = _summary(run)
    assert {entry.rule for entry in summary.validity_evidence} == rules
    assert summary.validity == validity
    assert summary.passed is (summary.verdict == "passed" and validity != "invalid")
    lowering = [entry for entry in summary.validity_evidence if entry.level != "note"]
    assert summary.validity_reasons == [entry.sentence for entry in lowering]


def test_a_missing_part_makes_a_run_invalid_and_is_named(store: Store) -> None:
    """The sentence says whose part of what is missing in which phase."""
    run = healthy_run("validity-missing-part")
    run.parts_per_kind = 3
    run.write(store)
    store.delete(
        run.layout.part("deliveries", attempt=1, phase="01-sustained", worker="worker-2", first=2)
    )
    with open_run(store, run.run_id) as database:
        summary = summarise(database)
    assert summary.validity == "invalid"
    assert summary.validity_reasons == [
        (
            "1 part of the deliveries of worker-2 in 01-sustained cannot be had: "
            "figures rest on what is left"
        )
    ]
    assert summary.samples.missing == ["deliveries 01-sustained worker-2 part 2"]
    (lack,) = summary.samples.unrecovered
    assert (lack.worker, lack.phase, lack.kind, lack.parts) == (
        *("worker-2", "01-sustained", "deliveries"),
        1,
    )
    seen_us = sorted(run.samples["deliveries", "01-sustained", "worker-2"]["seen_us"])
    began_us, ended_us = run.start_us("sustained"), seen_us[-1]
    assert lack.from_s is not None
    assert lack.to_s is not None
    in_phase_s = (ended_us - began_us) / 1e6
    offset_s = (began_us - database.origin_us) / 1e6
    assert offset_s < lack.from_s < lack.to_s < offset_s + in_phase_s
    assert in_phase_s / 6 < lack.to_s - lack.from_s < in_phase_s / 2


def test_what_a_worker_never_sent_is_listed_by_worker_and_interval(store: Store) -> None:
    """A last heartbeat that names parts to be sent, and nothing after: they are unrecovered."""
    run = healthy_run("validity-unsent")
    run.write(store)
    key = run.layout.status(1, "worker-1")
    status = store.get_message(key, Status)
    assert status is not None
    status.unshipped, status.at_us = {"01-sustained": 2}, run.start_us("cooldown")
    store.put_message(key, status)
    with open_run(store, run.run_id) as database:
        (lack,) = summarise(database).samples.unrecovered
        assert (lack.worker, lack.phase, lack.parts, lack.kind) == (
            *("worker-1", "01-sustained", 2),
            "",
        )
        assert lack.to_s == (status.at_us - database.origin_us) / 1e6
        assert lack.from_s is not None
        assert lack.from_s <= lack.to_s


def test_an_invalid_run_is_no_pass_though_its_objectives_are_met() -> None:
    """Verdict and validity are two things; a pass needs both."""
    run = healthy_run("validity-no-pass", phases=PHASES)
    _give_up(run)
    summary = _summary(run)
    assert (summary.verdict, summary.validity, summary.passed) == ("passed", "invalid", False)
