from __future__ import annotations

import time
from pathlib import Path

import pytest

from reports.build import build_report
from run_store.layout import RunLayout
from run_store.messages import Attempt, ReportClaim, RunRecord
from run_store.store import Store
from scenarios.loading import load_scenario
from tasks import owed
from tasks.owed import make_owed_reports, make_report_of_dead, owed_reports, settle_if_dead
from tests.store_server import StoreServer


@pytest.fixture
def store(store_server: StoreServer, tmp_path: Path) -> Store:
    address = store_server.address.model_copy(update={"prefix": f"{tmp_path.name}/"})
    return Store(address)


def put_run(store: Store, run_id: str, **changes: object) -> RunLayout:
    now_us = time.time_ns() // 1000
    record = RunRecord(
        run_id=run_id,
        scenario=load_scenario("local").model_dump(mode="json", by_alias=True),
        relay_url="ws://127.0.0.1:9/",
        fleet="local",
        created_us=now_us,
        attempts=[Attempt(number=1, started_us=now_us)],
    ).model_copy(update=changes)
    store.put_message(RunLayout(run_id).run, record)
    return RunLayout(run_id)


def record_of(store: Store, run_id: str) -> RunRecord:
    record = store.get_message(RunLayout(run_id).run, RunRecord)
    assert record is not None
    return record


def has_report(store: Store, run_id: str) -> bool:
    return store.get(RunLayout(run_id).report("summary.json")) is not None


def test_a_run_that_is_alive_is_left_alone(store: Store, tmp_path: Path) -> None:
    """Whatever was written of a run a moment ago, it may be alive: nothing is made or settled."""
    put_run(store, "run-alive")
    assert make_owed_reports(store, tmp_path) == []
    assert settle_if_dead(store, "run-alive") is False
    assert record_of(store, "run-alive").state == "running"
    assert not has_report(store, "run-alive")


def test_a_dead_run_is_settled_and_reported(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of which nothing is written any more ends as failed, says why, and has its report."""
    monkeypatch.setattr(owed, "QUIET_FOR_S", -1.0)
    put_run(store, "run-dead")
    put_run(store, "run-done", state="reported", verdict="passed", ended_us=1)
    put_run(store, "run-idle", state="stopped", ended_us=1)  # ended before it measured anything
    assert [one.run_id for one in owed_reports(store)] == ["run-dead"]
    assert make_owed_reports(store, tmp_path) == ["run-dead"]
    record = record_of(store, "run-dead")
    assert (record.state, record.validity) == ("failed", "invalid")
    assert record.ended_us is not None
    assert record.attempts[0].error.startswith(owed.WHY)
    assert has_report(store, "run-dead")
    assert store.keys(RunLayout("run-dead").report_claims()) == []
    assert make_owed_reports(store, tmp_path) == [], "there is nothing left to do"


def test_one_report_is_made_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that somebody else is making is theirs, until their claim has run out."""
    monkeypatch.setattr(owed, "QUIET_FOR_S", -1.0)
    layout = put_run(store, "run-claimed")
    claim = f"{layout.report_claims()}other.json"
    store.put_message(claim, ReportClaim(token="other"))
    assert make_owed_reports(store, tmp_path) == []
    assert make_report_of_dead(store, "run-claimed", tmp_path) is False
    monkeypatch.setattr(owed, "CLAIMED_FOR_S", -1.0)
    assert make_owed_reports(store, tmp_path) == ["run-claimed"]
    assert store.keys(layout.report_claims()) == []


def test_one_that_fails_stops_no_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that cannot be made is left alone for a while, with the reason; others are made."""
    monkeypatch.setattr(owed, "QUIET_FOR_S", -1.0)
    put_run(store, "run-good")
    bad = put_run(store, "run-bad")
    real = build_report

    def build(store: Store, run_id: str, *, into: Path | None) -> object:
        if run_id == "run-bad":
            raise MemoryError("too large")
        return real(store, run_id, into=into)

    monkeypatch.setattr(owed, "build_report", build)
    assert make_owed_reports(store, tmp_path) == ["run-good"]
    (key,) = store.keys(bad.report_claims())
    claim = store.get_message(key, ReportClaim)
    assert claim is not None
    assert claim.failed == "too large"
    assert make_owed_reports(store, tmp_path) == []
