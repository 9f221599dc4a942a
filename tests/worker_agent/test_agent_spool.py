import random
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import IO

import pyarrow as pa
import pytest

from run_store.agent_config import AgentConfig
from run_store.errors import CannotRunError, StoreError
from run_store.layout import RunLayout
from run_store.samples import KINDS, SCHEMAS
from tests.relay_process import ROOT
from tests.store_server import StoreServer
from tests.worker_agent.samples import (
    PHASE,
    StartWriter,
    batch,
    edits,
    numbers,
    parts,
    rows,
    spool_at,
)
from worker_agent import spool as spool_module
from worker_agent.journal import Journal, read_batches
from worker_agent.shipping import spool_of
from worker_agent.spool import Spool


def test_rows_are_in_the_bucket_as_they_were(spool: Spool, server: StoreServer) -> None:
    """Every kind of sample has all of its declared columns; those not given are null."""
    run_id = spool.folder.parent.name
    given = {
        kind: {"at_us" if "at_us" in SCHEMAS[kind].names else "edit": [5, 6]} for kind in KINDS
    }
    for kind in KINDS:
        spool.append(PHASE, kind, given[kind])
    spool.freeze()
    assert spool.ship() == len(KINDS)
    for kind in KINDS:
        found = rows(server.store(), run_id, kind)
        assert len(found) == 2
        for row, value in zip(found, (5, 6), strict=True):
            for name in SCHEMAS[kind].names:
                assert row[name] == (value if name in given[kind] else None)


@pytest.mark.parametrize("after", [37, 260])
def test_a_killed_writer_loses_nothing_that_it_appended(
    start_writer: StartWriter, config: AgentConfig, server: StoreServer, after: int
) -> None:
    """Whatever a process had appended when SIGKILL came is in the bucket once, in order."""
    writer = start_writer("append")
    out = writer.stdout
    assert out is not None
    kept = [int(out.readline()) for _ in range(after)]
    writer.kill()
    writer.wait()
    kept += [int(line) for line in out.read().splitlines()]
    with closing(spool_of(config)) as spool:
        spool.ship()
        found = numbers(rows(server.store(), config.run_id, "edits"))
        # One more may have been kept and not yet told.
        assert found in (kept, [*kept, len(kept)])
        assert spool.numbers(PHASE) == {"edits": len(parts(server.store(), config.run_id))}
        assert spool.unshipped() == {}


def test_numbers_have_no_gaps_over_restarts(
    start_writer: StartWriter, config: AgentConfig, server: StoreServer
) -> None:
    """Killed writers and their successors number their parts from 1 on."""
    written = 0
    for after in (5, 110):
        writer = start_writer("append")
        out = writer.stdout
        assert out is not None
        for _ in range(after):
            out.readline()
        writer.kill()
        writer.wait()
        rest: IO[str] = out
        written += after + len(rest.read().splitlines())
    with closing(spool_of(config)) as spool:
        spool.ship()
    found = parts(server.store(), config.run_id)
    assert [part.first for part in found] == list(range(1, len(found) + 1))
    assert len(found) >= 4
    assert 0 <= len(rows(server.store(), config.run_id, "edits")) - written <= 2


def test_half_a_batch_costs_only_itself(tmp_path: Path) -> None:
    """Wherever a journal is cut, every batch that is whole before the cut is read."""
    path = tmp_path / "j.arrows"
    journal = Journal(path, SCHEMAS["edits"])
    ends = []
    for number in range(4):
        journal.append(batch(edits(range(number * 10, number * 10 + 10))))
        ends.append(journal.size)
    journal.close()
    whole = path.read_bytes()
    for cut in {
        *range(0, len(whole), 97),
        *ends,
        *(end - 1 for end in ends),
        *(e + 1 for e in ends),
    }:
        path.write_bytes(whole[:cut])
        read = pa.Table.from_batches(read_batches(path), schema=SCHEMAS["edits"])
        assert read.column("edit").to_pylist() == list(range(10 * sum(end <= cut for end in ends)))


def test_a_torn_journal_is_shipped_as_far_as_it_goes(
    config: AgentConfig, server: StoreServer
) -> None:
    """After a restart the whole batches are in the bucket, and what follows has the next number."""
    with closing(spool_of(config)) as spool:
        for number in range(3):
            spool.append(PHASE, "edits", edits([number]))
        spool.append(PHASE, "errors", {"at_us": [1], "type": ["x"]})
    journal = next(config.spool.glob("**/journal/*/edits.arrows"))
    journal.write_bytes(journal.read_bytes()[:-5])
    errors = next(config.spool.glob("**/journal/*/errors.arrows"))
    errors.write_bytes(errors.read_bytes()[:20])
    with closing(spool_of(config)) as spool:
        spool.append(PHASE, "edits", edits([7]))
        spool.freeze()
        spool.ship()
        assert numbers(rows(server.store(), config.run_id, "edits")) == [0, 1, 7]
        # Of the errors not one row was left: no number is used up for nothing.
        assert spool.numbers(PHASE) == {"edits": 2}


def test_sending_a_part_again_changes_nothing(config: AgentConfig, server: StoreServer) -> None:
    """A part that was sent, and is sent again after a crash, has the same key and bytes."""
    with closing(spool_of(config)) as spool:
        spool.append(PHASE, "edits", edits(range(100)))
        spool.freeze()
        ready = next(config.spool.glob("**/ready/*/*.arrows"))
        frozen = ready.read_bytes()
        spool.ship()
        (part,) = parts(server.store(), config.run_id)
        first = server.store().get(part.key)
    # As if the agent had died after the put and before it noted that.
    ready.write_bytes(frozen)
    with closing(spool_of(config)) as spool:
        assert spool.ship() == 1
    (again,) = parts(server.store(), config.run_id)
    assert (again, server.store().get(again.key)) == (part, first)


def test_a_store_that_goes_away_and_comes_back_misses_nothing(tmp_path: Path) -> None:
    """While S3 is away rows stay on disk; once it is back all of them are there, once."""
    with StoreServer(tmp_path / "s3") as server:
        spool = spool_at(tmp_path / "spool", server.store(timeout_s=20, tries=1), "away")
        spool.append(PHASE, "edits", edits([0]))
        spool.freeze()
        assert spool.ship() == 1
        server.stop()
        for number in range(1, 4):
            spool.append(PHASE, "edits", edits([number]))
            spool.freeze()
            with pytest.raises(StoreError):
                spool.ship()
        assert spool.unshipped() == {PHASE: 3}
        server.start()
        assert spool.ship() == 3
        assert spool.unshipped() == {}
        spool.compact(PHASE)
        assert numbers(rows(server.store(), "away", "edits")) == [0, 1, 2, 3]
        spool.close()


def test_a_large_journal_is_frozen_before_its_time(
    spool: Spool, server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part never grows far beyond its size, however rarely the agent ships."""
    monkeypatch.setattr(spool_module, "PART_BYTES", 20_000)
    draw = random.Random(1)  # noqa: S311 - rows that do not compress
    for _ in range(30):
        spool.append(PHASE, "edits", edits(draw.randrange(2**40) for _ in range(200)))
    ready = list(spool.folder.glob("ready/*/*.arrows"))
    assert len(ready) >= 3
    assert all(20_000 <= path.stat().st_size < 40_000 for path in ready)
    spool.freeze()
    spool.ship()
    assert len(rows(server.store(), spool.folder.parent.name, "edits")) == 6000


def test_freezing_while_another_thread_appends_loses_nothing(
    spool: Spool, server: StoreServer
) -> None:
    """The agent appends from its loop while a thread freezes, ships and compacts."""
    done = threading.Event()

    def keep_shipping() -> None:
        while not done.is_set():
            spool.freeze()
            spool.ship()
            spool.compact(PHASE)

    shipping = threading.Thread(target=keep_shipping)
    shipping.start()
    try:
        for number in range(1500):
            spool.append(PHASE, "edits", edits([number]))
    finally:
        done.set()
        shipping.join()
    spool.freeze()
    spool.ship()
    found = numbers(rows(server.store(), spool.folder.parent.name, "edits"))
    assert sorted(found, key=str) == sorted(range(1500), key=str)


def test_a_spool_has_one_agent(spool: Spool, server: StoreServer) -> None:
    """A second agent on the same folder is refused; when the first is gone there is room."""

    def another() -> Spool:
        return Spool(
            spool.folder,
            store=server.store(),
            layout=RunLayout("r-1"),
            attempt=1,
            worker="w",
        )

    with pytest.raises(CannotRunError, match="Another agent"):
        another()
    spool.close()
    another().close()


def test_runs_attempts_and_workers_never_share_a_spool(config: AgentConfig) -> None:
    """One folder in the config serves all runs of a machine; each agent has its own below it."""
    others = [
        config,
        config.model_copy(update={"run_id": "other-run"}),
        config.model_copy(update={"attempt": 2}),
        config.model_copy(update={"worker": "v"}),
    ]
    spools = [spool_of(one) for one in others]
    assert len({spool.folder for spool in spools}) == 4
    for spool in spools:
        spool.append(PHASE, "edits", edits([1]))
        spool.close()


def test_values_of_another_type_are_refused_whole(spool: Spool) -> None:
    """A batch that does not fit its schema is an error, and leaves the journal as it was."""
    spool.append(PHASE, "edits", edits([1]))
    for bad in (
        {"edit": ["x"]},
        {"edit": [1, 2], "document": [2**40, 1]},
        {"edit": [1], "held": [3]},
    ):
        with pytest.raises((pa.ArrowException, OverflowError, TypeError, ValueError)):
            spool.append(PHASE, "edits", bad)
    spool.append(PHASE, "edits", edits([2]))
    spool.freeze()
    ready = next(spool.folder.glob("ready/*/*.arrows"))
    table = pa.Table.from_batches(read_batches(ready))
    assert table.column("edit").to_pylist() == [1, 2]


def test_what_an_agent_left_can_be_shipped_by_itself(
    start_writer: StartWriter, config: AgentConfig, server: StoreServer, tmp_path: Path
) -> None:
    """`python -m worker_agent.shipping` sends all that a killed agent had, also a second time."""
    writer = start_writer("append")
    out = writer.stdout
    assert out is not None
    for _ in range(20):
        out.readline()
    writer.kill()
    writer.wait()
    kept = 20 + len(out.read().splitlines())
    command = [
        sys.executable,
        "-m",
        "worker_agent.shipping",
        "--config",
        str(tmp_path / "agent.json"),
    ]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = numbers(rows(server.store(), config.run_id, "edits"))
        assert found == list(range(len(found)))
        assert kept <= len(found) <= kept + 1


def test_shipping_by_itself_says_why_it_could_not(config: AgentConfig, tmp_path: Path) -> None:
    """Where S3 cannot be reached the exit code is 1, the reason one line, and the spool stays."""
    with closing(spool_of(config)) as spool:
        spool.append(PHASE, "edits", edits([1]))
    nowhere = config.store.model_copy(update={"endpoint_url": "http://127.0.0.1:1"})
    config.model_copy(update={"store": nowhere}).to_file(tmp_path / "agent.json")
    command = [
        sys.executable,
        "-m",
        "worker_agent.shipping",
        "--config",
        str(tmp_path / "agent.json"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    with closing(spool_of(config)) as spool:
        assert spool.unshipped() == {PHASE: 1}
