from __future__ import annotations

import csv
import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from reports.build import build_report
from reports.log import printable
from reports.summary import SCHEMA_FILE, Summary, json_schema
from run_store.errors import NoSuchRunError
from run_store.layout import RunLayout
from run_store.messages import Line, LostWorker, Order, PhaseRef
from run_store.store import Store
from tasks.plan import Progress, reconnect_order
from tests.reports.synthetic import PHASES, RunWriter, healthy_run

FILES = {
    "report.html",
    "summary.json",
    "metrics.csv",
    "metrics.json",
    "errors.json",
    "test.log",
    "junit.xml",
}
SCHEMA = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
NASTY = "<script>alert('x')</script> & \x1b[31mred\x00"


def _built(store: Store, run: RunWriter, into: Path) -> tuple[Summary, dict[str, Any]]:
    """Write and report a run; return the summary, and that of the file after validating it."""
    run.write(store)
    summary = build_report(store, run.run_id, into=into)
    read = json.loads((into / "summary.json").read_text())
    SCHEMA.validate(read)
    assert Summary.model_validate(read) == summary
    return summary, read


def _error_run(run_id: str) -> RunWriter:
    run = healthy_run(run_id)
    run.samples["errors", "01-sustained", "worker-1"] = {
        "at_us": [run.start_us("sustained") + 1_000_000],
        "type": ["<b>bad</b>"],
        "message": [NASTY],
        "connection": [0],
        "weight": [1.0],
    }
    return run


def test_all_files_stand_in_the_bucket_and_in_the_folder(store: Store, tmp_path: Path) -> None:
    """Each file is the same in both places."""
    run = healthy_run("build-files")
    _built(store, run, tmp_path / "results")
    assert {path.name for path in (tmp_path / "results").iterdir()} == FILES
    for name in FILES:
        assert (
            store.get(RunLayout(run.run_id).report(name))
            == (tmp_path / "results" / name).read_bytes()
        )


def test_what_a_retry_reconnects_with_is_not_said_to_be_cut_short(
    store: Store, tmp_path: Path
) -> None:
    """It is told of as a phase, but has no record that could call it complete."""
    run = healthy_run("build-reconnect")
    order = reconnect_order(
        1,
        connections=4,
        progress=Progress.of_attempt(1),
        slots=run.workers,
        starts_at_us=run.start_us("sustained") - 3_000_000,
    )
    store.put_message(RunLayout(run.run_id).order(1, order.number), order)
    _built(store, run, tmp_path)
    said = (tmp_path / "test.log").read_text()
    assert "01-reconnect" in said
    assert "(not complete)" not in said


def test_the_summary_has_what_readers_ask_for(store: Store, tmp_path: Path) -> None:
    """Every key that is promised is there, with the figures of the run."""
    summary, read = _built(store, healthy_run("build-summary"), tmp_path)
    assert read["run_id"] == "build-summary"
    assert (read["verdict"], read["validity"], read["passed"]) == ("passed", "valid", True)
    assert read["connections"]["target"] == read["connections"]["peak"] == 8
    assert read["edits"]["offered"] == read["edits"]["completed"] == 125
    assert set(read["delivery_ms"]) == {"min", "mean", "p50", "p95", "p99", "max", "count"}
    assert read["relay"]["memory_growth_mb"] == pytest.approx(4.6)
    assert read["errors"]["by_type"] == {}
    cost = read["cost"]
    assert (cost["estimated_usd"], cost["actual_usd"]) == (0.25, 0.125)
    # Eight connections at the most, for 47 s.
    assert cost["usd_per_1000_connection_minutes"] > 0.125 / (8 * 47 / 60) * 1000
    assert [phase["name"] for phase in read["phases"]] == ["warmup", "sustained", "cooldown"]
    assert [worker["worker"] for worker in read["workers"]] == ["worker-1", "worker-2"]
    assert read["duration_s"] == 47
    assert datetime.fromisoformat(read["started_at"]).timestamp() == 1_760_000_000
    assert read["capacity"] is None
    assert summary.deliveries.share == 1


def test_the_published_schema_is_current() -> None:
    """`python -m reports.summary` was run after the model last changed."""
    assert SCHEMA_FILE.read_text() == json_schema()
    SCHEMA.check_schema(SCHEMA.schema)


def test_the_schema_refuses_what_the_model_does_not_know(store: Store, tmp_path: Path) -> None:
    """A summary with an unknown key, or without a known one, does not validate."""
    _, read = _built(store, healthy_run("build-schema"), tmp_path)
    for spoilt in ({**read, "extra": 1}, {k: v for k, v in read.items() if k != "verdict"}):
        with pytest.raises(jsonschema.ValidationError):
            SCHEMA.validate(spoilt)


def test_reporting_twice_gives_the_same_files(store: Store, tmp_path: Path) -> None:
    """A report follows from the bucket alone."""
    run = healthy_run("build-twice")
    _built(store, run, tmp_path / "one")
    build_report(store, run.run_id, into=tmp_path / "two")
    for name in FILES - {"report.html", "metrics.json"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_csv_has_a_row_for_each_second_under_a_header_with_units(
    store: Store, tmp_path: Path
) -> None:
    """A spreadsheet opens it: one table, units in the header, empty cells for no sample."""
    run = healthy_run("build-csv")
    _built(store, run, tmp_path)
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8-sig") as file:
        head, *rows = list(csv.reader(file))
    assert len(rows) == 47
    assert {len(row) for row in rows} == {len(head)}
    assert head[:3] == ["run time (s)", "time (UTC)", "phase"]
    for column in (
        "connections open",
        "edits offered (1/s)",
        "delivery p99 (ms)",
        "relay memory (MiB)",
        "cpu max (% of all cores)",
    ):
        assert column in head
    assert sum(int(row[head.index("edits completed (1/s)")]) for row in rows) == 125
    assert rows[-1][head.index("delivery p99 (ms)")] == ""


def test_the_metrics_hold_every_series_and_figure(store: Store, tmp_path: Path) -> None:
    """Series of one length, workers by name, figures by phase."""
    _, read = _built(store, healthy_run("build-metrics"), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {len(values) for values in metrics["timeline"].values()} == {47}
    assert set(metrics["workers"]) == {"worker-1", "worker-2"}
    assert metrics["figures"]["run"]["delivery_ms"] == read["delivery_ms"]
    assert metrics["figures"]["phases"]["01-sustained"]["edits"]["completed"] == 120
    assert metrics["units"]["delivery_p95_ms"] == "ms"


def test_junit_has_an_entry_for_each_objective(store: Store, tmp_path: Path) -> None:
    """Missed objectives fail, open ones are skipped, and the validity has an entry of its own."""
    run = healthy_run(
        "build-junit",
        objectives=("delivery_ms.p50 < 1ms", "edits.lost == 0", "relay.polls_failed == 0"),
    )
    run.record_changes = {"has_metrics": False}
    for key in [key for key in run.samples if key[0] == "relay"]:
        del run.samples[key]
    summary, _ = _built(store, run, tmp_path)
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314 - our own file
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == [*(row.text for row in summary.objectives), "validity"]
    failure = cases["delivery_ms.p50 < 1ms"].find("failure")
    assert failure is not None
    assert failure.get("message") == summary.objectives[0].sentence
    assert cases["edits.lost == 0"].find("failure") is None
    assert cases["relay.polls_failed == 0"].find("skipped") is not None
    counts = [suite.get(name) for name in ("tests", "failures", "skipped")]
    assert counts == ["4", "1", "1"]


def test_what_a_relay_says_cannot_act_in_any_file(store: Store, tmp_path: Path) -> None:
    """Markup is escaped in the page, control characters never reach a terminal or XML."""
    run = _error_run("build-nasty")
    run.record_changes = {"problems": [NASTY]}
    run.phase_changes["01-sustained"] = {"stopped_early": NASTY}
    _built(store, run, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<b>bad" not in page
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    log = (tmp_path / "test.log").read_text()
    assert "\x1b" not in log
    assert "\x00" not in log
    assert "<script>" in log
    ET.parse(tmp_path / "junit.xml")  # noqa: S314 - our own file
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["groups"][0]["example"] == NASTY


def test_a_terminal_gets_plain_text() -> None:
    """Control characters become a mark; line ends and letters stay."""
    assert printable("a\x1b[0m\tb\nü\u202e") == "a\ufffd[0m\ufffdb\nü\ufffd"


def test_a_run_without_samples_says_what_happened(store: Store, tmp_path: Path) -> None:
    """A deploy that failed leaves a report with its error, failed and invalid."""
    run = healthy_run("build-no-samples")
    run.samples.clear()
    run.edits_planned.clear()
    run.incomplete = ("warmup", "sustained", "cooldown")
    run.record_changes = {"state": "failed", "problems": ["no host could be reached"]}
    summary, _ = _built(store, run, tmp_path)
    assert (summary.verdict, summary.validity) == ("failed", "invalid")
    assert "no host could be reached" in summary.validity_reasons[0]
    assert "no host could be reached" in (tmp_path / "test.log").read_text()
    assert summary.duration_s == 0


def test_a_run_that_still_goes_on_is_reported_as_far_as_it_is(store: Store, tmp_path: Path) -> None:
    """The phase in progress comes from its order and ends with its last sample."""
    run = healthy_run("build-running")
    run.incomplete = ("sustained", "cooldown")
    run.record_changes = {"state": "running", "ended_us": None}
    for key in [key for key in run.samples if key[1] == "02-cooldown"]:
        del run.samples[key]
    order = Order(
        number=2,
        attempt=1,
        action="run",
        starts_at_us=run.start_us("sustained"),
        duration_s=300,
        phase=PhaseRef(index=1, name="sustained", kind="sustained"),
        connections=Line(start=8, end=8),
        edits_per_s=Line(start=4, end=4),
    )
    store.put_message(run.layout.order(1, 2), order)
    summary, _ = _built(store, run, tmp_path)
    assert summary.running
    assert summary.ended_at is None
    assert [phase.complete for phase in summary.phases] == [True, False]
    sustained = summary.phases[1]
    assert (sustained.from_s, sustained.planned_s) == (6.0, 300)
    assert sustained.to_s == pytest.approx(35.3)
    assert sustained.edits.completed == 120
    assert summary.validity == "valid"
    assert [entry.rule for entry in summary.validity_evidence] == ["running"]


def test_a_phase_known_by_its_samples_only_is_reported(store: Store, tmp_path: Path) -> None:
    """Even without record and order, what was sampled is shown under its phase."""
    run = healthy_run("build-orphaned")
    run.incomplete = ("warmup", "sustained", "cooldown")
    run.record_changes = {"state": "failed"}
    summary, _ = _built(store, run, tmp_path)
    assert [phase.kind for phase in summary.phases] == ["warmup", "sustained", "cooldown"]
    assert summary.edits.completed == 125
    assert summary.validity == "invalid"


def test_parts_of_one_worker_missing_are_named_and_the_rest_is_reported(
    store: Store, tmp_path: Path
) -> None:
    """A truncated part lowers the validity and is named; other figures stand."""
    run = healthy_run("build-truncated")
    run.write(store)
    key = run.layout.part("resources", attempt=1, phase="01-sustained", worker="worker-2", first=1)
    body = store.get(key)
    assert body is not None
    store.put(key, body[:-50])
    summary = build_report(store, run.run_id, into=tmp_path)
    assert summary.validity == "invalid"
    assert "resources of worker-2 in 01-sustained" in summary.validity_reasons[0]
    assert key in summary.samples.unreadable[0]
    assert summary.edits.completed == 125


def test_a_lost_worker_is_named_with_when_and_what_went_with_it(
    store: Store, tmp_path: Path
) -> None:
    """Half of the load gone: invalid, and the report says who, when and how many."""
    run = healthy_run("build-lost-worker")
    at_us = run.start_us("sustained") + 10_000_000
    run.lost["01-sustained"] = [
        LostWorker(
            worker="worker-2",
            phase="01-sustained",
            last_seen_us=at_us,
            noticed_us=at_us + 9_000_000,
            connections=4,
            reason="no heartbeat",
        )
    ]
    summary, _ = _built(store, run, tmp_path)
    (lost,) = summary.lost_workers
    assert (lost.worker, lost.last_seen_s, lost.connections, lost.share) == ("worker-2", 16, 4, 0.5)
    assert [worker.lost for worker in summary.workers] == [False, True]
    assert summary.validity_reasons[0] == (
        "worker-2 was lost in 01-sustained at 16s into the run, "
        "and with it 4 connections, 50 % of the plan"
    )
    assert summary.validity == "invalid"


def test_a_replaced_worker_is_missing_until_its_substitute_joined(
    store: Store, tmp_path: Path
) -> None:
    """A later phase's record knows who replaced it; the loss stands where it was, and degrades."""
    run = healthy_run("build-replaced-worker")
    at_us = run.start_us("sustained") - 1_000_000
    lost = LostWorker(
        worker="worker-1", phase="00-warmup", last_seen_us=at_us, noticed_us=at_us, connections=4
    )
    joined = {"replaced_by": "worker-2", "replaced_from": "01-sustained"}
    run.lost["00-warmup"] = [lost]
    run.lost["01-sustained"] = [lost.model_copy(update=joined)]
    summary, _ = _built(store, run, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (said,) = summary.lost_workers
    assert (said.phase, said.replaced_by, said.replaced_from) == (
        "00-warmup",
        "worker-2",
        "01-sustained",
    )
    (entry,) = [one for one in summary.validity_evidence if one.rule == "lost_worker"]
    assert (entry.level, entry.phase) == ("degraded", "00-warmup")
    assert entry.sentence.endswith("of the plan; replaced by worker-2 from 01-sustained on")
    assert "replaced by worker-2 from 01-sustained on" in page
    (finding,) = [one for one in summary.findings if one.kind == "worker_lost"]
    assert finding.ended_us == run.start_us("sustained")
    assert "before worker-2 took its place in 01-sustained" in finding.sentence


def test_a_scenario_that_cannot_be_read_any_more_still_has_its_figures(
    store: Store, tmp_path: Path
) -> None:
    """A run of another version is reported without its objectives."""
    run = healthy_run("build-other-version")
    run.scenario = {"name": "old", "unknown": True}
    summary, _ = _built(store, run, tmp_path)
    assert summary.objectives == []
    assert summary.edits.completed == 125
    assert (summary.validity, summary.passed) == ("invalid", False)


def test_an_unknown_run_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """No folder and no object for a run that is not there."""
    with pytest.raises(NoSuchRunError):
        build_report(store, "build-nowhere", into=tmp_path / "results")
    assert not (tmp_path / "results").exists()
    assert store.keys(RunLayout("build-nowhere").root) == []


def test_a_report_says_that_it_is_there(store: Store, tmp_path: Path) -> None:
    """A run whose load has ended well counts as reported in its own report already."""
    run = healthy_run("build-state")
    run.record_changes = {"state": "running"}
    summary, _ = _built(store, run, tmp_path)
    assert (summary.state, summary.running) == ("reported", False)


def test_a_run_in_which_nothing_is_written_is_reported(store: Store, tmp_path: Path) -> None:
    """A load of connections alone has no latencies, says so, and is no pass of an objective."""
    run = healthy_run(
        "build-no-edits",
        phases=tuple(dataclasses.replace(phase, edits_per_s=0) for phase in PHASES),
        objectives=("delivery_ms.p95 < 1s", "connections.peak >= 8"),
    )
    summary, read = _built(store, run, tmp_path)
    assert (summary.edits.offered, summary.edits.error_rate) == (0, None)
    assert (summary.delivery_ms.count, summary.delivery_ms.p95) == (0, None)
    met = {row["text"]: (row["got"], row["met"]) for row in read["objectives"]}
    assert met["connections.peak >= 8"] == (8, True)
    got, was_met = met["delivery_ms.p95 < 1s"]
    assert got is None
    assert not was_met
    assert (summary.validity, summary.findings) == ("valid", [])
    assert "not measured" in (tmp_path / "report.html").read_text()
