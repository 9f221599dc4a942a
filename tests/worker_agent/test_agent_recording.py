from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from run_store.messages import Counts
from tests.store_server import StoreServer
from tests.worker_agent.samples import PHASE, rows
from worker_agent.recording import Recording
from worker_agent.spool import Spool

NOW_US = 1_700_000_000_000_000


@pytest.fixture
def recording(spool: Spool) -> Recording:
    """Give a recording into a real spool, in a phase."""
    recording = Recording(spool, lambda: NOW_US)
    recording.phase = PHASE
    return recording


def shipped(recording: Recording, server: StoreServer, kind: str) -> list[dict[str, Any]]:
    recording.spool.freeze()
    recording.spool.ship()
    return rows(server.store(), recording.spool.folder.parent.name, kind)


def edit_row(edit: int, **given: object) -> dict[str, Any]:
    return {
        "edit": edit,
        "document": 0,
        "generation": 0,
        "connection": 1,
        "intended_us": NOW_US,
        "started_us": NOW_US + 1000,
        "acknowledged_us": NOW_US + 9000,
        "error": None,
        "held": False,
        **given,
    }


def owe(recording: Recording, *edits: int) -> None:
    recording.outstanding = {
        edit: {"document": 0, "generation": 0, "connection": 1, "intended_us": NOW_US}
        for edit in edits
    }


def test_every_owed_edit_gets_exactly_one_row(recording: Recording, server: StoreServer) -> None:
    """What the pages report is not reported again; what they do not is missed, and only once."""
    owe(recording, 1, 2, 3, 4)
    recording.row("edits", **edit_row(2))
    recording.row("edits", **edit_row(4, acknowledged_us=None))
    recording.missed()
    recording.missed()
    found = {row["edit"]: row for row in shipped(recording, server, "edits")}
    assert sorted(found) == [1, 2, 3, 4]
    assert len(shipped(recording, server, "edits")) == 4
    assert [found[edit]["error"] for edit in (1, 2, 3, 4)] == ["missed", None, "missed", None]
    assert found[1]["started_us"] is None
    assert found[1]["intended_us"] == NOW_US
    assert recording.outstanding == {}


def test_counts_tell_completed_failed_and_missed(recording: Recording) -> None:
    """An edit is offered once and is one of completed, failed and missed."""
    owe(recording, 9)
    recording.row("edits", **edit_row(1))
    recording.row("edits", **edit_row(2, acknowledged_us=None))
    recording.row("edits", **edit_row(3, started_us=None, acknowledged_us=None, error="no_relay"))
    recording.missed()
    recording.take(
        {
            "deliveries": {
                "edit": [1, 1],
                "intended_us": [NOW_US, NOW_US],
                "seen_us": [NOW_US + 20_000, NOW_US + 90_000],
                "weight": [10.0, 1.0],
                "same_worker": [True, False],
            },
            "connections": {"at_us": [1] * 4, "event": ["open", "dropped", "failed", "failed"]},
            "errors": {"at_us": [1, 1], "type": ["connect_timeout", "refused"], "weight": [1, 1]},
        }
    )
    assert recording.counts == Counts(
        edits_offered=4,
        edits_completed=1,
        edits_failed=2,
        edits_missed=1,
        deliveries=11,
        drops=1,
        connect_failures=2,
        connect_timeouts=1,
    )
    # Between two workers' clocks a live figure would be the clocks' difference.
    assert recording.delivery.count == 10
    assert recording.delivery.quantile(0.5) == pytest.approx(20, rel=0.03)
    assert recording.acknowledgement.quantile(0.5) == pytest.approx(9, rel=0.03)


def test_errors_are_counted_by_type_with_their_weight(recording: Recording) -> None:
    """A row that stands for many counts as many."""
    recording.error(NOW_US, "page_lost", "page 1 crashed")
    recording.take({"errors": {"at_us": [1, 2], "type": ["a", "page_lost"], "weight": [1.0, 41.0]}})
    assert recording.errors == {"page_lost": 42, "a": 1}


def test_lateness_is_that_of_edits_that_could_start(recording: Recording) -> None:
    """An edit that waited for its connection says nothing of the generator's lateness."""
    assert recording.lateness_p99_ms() == 0
    for edit in range(99):
        recording.row("edits", **edit_row(edit))
    recording.row("edits", **edit_row(99, started_us=NOW_US + 9_000_000, held=True))
    recording.row("edits", **edit_row(100, started_us=None))
    assert recording.lateness_p99_ms() == pytest.approx(1)
    for edit in range(5):
        recording.row("edits", **edit_row(edit, started_us=NOW_US + 200_000))
    assert recording.lateness_p99_ms() == pytest.approx(200)


def test_before_the_first_phase_nothing_is_spooled(
    recording: Recording, server: StoreServer
) -> None:
    """Samples belong to a phase; what happens before any is counted and not kept."""
    recording.phase = ""
    recording.error(NOW_US, "early", "before any phase")
    assert recording.errors["early"] == 1
    assert shipped(recording, server, "errors") == []


def test_rows_that_are_no_samples_are_an_error_sample(
    recording: Recording, server: StoreServer
) -> None:
    """A page or relay that gives nonsense costs those rows, never the others nor the agent."""
    recording.take(
        {
            "connections": {"at_us": ["yesterday"], "event": ["open"]},
            "errors": {"at_us": [1], "type": ["x"], "weight": [1.0]},
        }
    )
    recording.row("relay", at_us=1, connections=2**70)
    found = shipped(recording, server, "errors")
    assert sorted(row["type"] for row in found) == ["bad_sample", "bad_sample", "x"]
    assert recording.errors["bad_sample"] == 2


def test_long_messages_are_cut(recording: Recording, server: StoreServer) -> None:
    """An error's message never makes a part large."""
    recording.error(NOW_US, "long", "x" * 10_000)
    (row,) = shipped(recording, server, "errors")
    assert len(row["message"]) == 500


def test_a_recording_goes_on_where_the_disk_is_gone(server: StoreServer, tmp_path: Path) -> None:
    """Even a spool whose folder was removed takes rows: they wait, and the trouble is said."""
    from run_store.layout import RunLayout  # noqa: PLC0415 - of this test only

    spool = Spool(
        tmp_path / "gone",
        store=server.store(),
        layout=RunLayout("r-1"),
        attempt=1,
        worker="w",
    )
    with closing(spool):
        recording = Recording(spool, lambda: NOW_US)
        recording.phase = PHASE
        (tmp_path / "gone").rename(tmp_path / "elsewhere")
        (tmp_path / "gone").write_text("a file where a folder should be", encoding="utf-8")
        recording.error(NOW_US, "x", "y")
        assert spool.is_full
        (tmp_path / "gone").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "gone")
        assert spool.retry()
