from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast
from urllib.response import addinfourl

import pytest

from run_store.layout import RunLayout
from run_store.messages import RunRecord
from run_store.store import Store, StoreAddress
from tests.command_line import (
    PROGRAM,
    environment,
    relay_load,
    store_arguments,
    store_environment,
)
from tests.reports.synthetic import RunWriter, healthy_run
from tests.waiting import wait_for


@pytest.fixture
def run(store_address: StoreAddress) -> RunWriter:
    """Give a run that is still going, in a store of the test's own."""
    run = healthy_run("watched-run")
    run.record_changes = {"state": "running", "ended_us": None, "verdict": ""}
    run.write(Store(store_address))
    return run


@contextlib.contextmanager
def watching(
    run: RunWriter, address: StoreAddress, folder: Path
) -> Iterator[tuple[subprocess.Popen[str], TextIO, str]]:
    """Watch a run; give the process, what it says, and the address of the page."""
    with subprocess.Popen(
        [str(PROGRAM), "watch", run.run_id, *store_arguments(address), "--every", "2"],
        cwd=folder,
        env=environment(folder, **store_environment(address)),
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stderr is not None
        yield watch, cast("TextIO", watch.stderr), watch.stderr.readline().split()[1]


def test_a_run_is_watched_until_it_ends(
    run: RunWriter, store_address: StoreAddress, tmp_path: Path
) -> None:
    """The page asks for its successor while the run goes on; the last one does not."""
    with watching(run, store_address, tmp_path) as (watch, said, url):

        def page() -> addinfourl | None:
            try:
                answer: addinfourl = urllib.request.urlopen(url, timeout=60)  # noqa: S310 - ours
            except urllib.error.HTTPError:
                return None
            return answer

        first = wait_for(page, within_s=90)
        assert first is not None
        assert first.headers["Refresh"] == "2"
        assert b"still going on" in first.read()
        store, layout = Store(store_address), RunLayout(run.run_id)
        record = store.get_message(layout.run, RunRecord)
        assert record is not None
        ended = {"state": "reported", "ended_us": record.created_us + 60_000_000}
        store.put_message(layout.run, record.model_copy(update=ended))

        def last() -> addinfourl | None:
            found = page()
            return found if found is not None and found.headers["Refresh"] is None else None

        final = wait_for(last, within_s=90)
        assert final is not None
        assert b"still going on" not in final.read()
        assert watch.wait(90) == 0
        assert "has ended: passed, valid" in said.read()


def test_ctrl_c_ends_the_watch_alone(
    run: RunWriter, store_address: StoreAddress, tmp_path: Path
) -> None:
    """The watch ends with 130, and has written nothing to the bucket."""
    before = Store(store_address).keys(RunLayout(run.run_id).root)
    with watching(run, store_address, tmp_path) as (watch, said, url):
        assert "still going: 4" in said.readline()
        with urllib.request.urlopen(f"{url}summary.json", timeout=60) as summary:  # noqa: S310 - ours
            assert json.load(summary)["running"] is True
        watch.send_signal(signal.SIGINT)
        assert watch.wait(90) == 130
    assert Store(store_address).keys(RunLayout(run.run_id).root) == before


def test_a_run_that_is_not_there_cannot_be_watched(
    store_address: StoreAddress, tmp_path: Path
) -> None:
    """An unknown run ends with 1 and says where to look."""
    ended = relay_load(
        "watch",
        "no-such-run",
        *store_arguments(store_address),
        cwd=tmp_path,
        variables=store_environment(store_address),
    )
    assert ended.code == 1
    assert "relay-load runs" in ended.told
