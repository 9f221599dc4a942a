import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pyarrow as pa
import pytest

from run_store.agent_config import AgentConfig
from run_store.errors import CannotRunError, StoreError
from run_store.layout import RunLayout, without_covered
from run_store.samples import KINDS, SCHEMAS
from tests.relay_process import ROOT
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.samples import PHASE, deliveries, edits, parts, rows
from tests.worker_agent.small_disk import SmallDisk
from worker_agent import spool as spool_module
from worker_agent.journal import Journal, read_batches
from worker_agent.shipping import spool_of
from worker_agent.spool import Spool

WRITER = ROOT / "tests/worker_agent/spool_writer.py"


@pytest.fixture
def config(server: StoreServer, tmp_path: Path) -> AgentConfig:
    """Give the config of a worker in a run of the test's own."""
    return AgentConfig(
        run_id=tmp_path.name,
        attempt=1,
        worker="w",
        store=server.address,
        relay_url="ws://127.0.0.1:1/",
        scenario={},
        spool=tmp_path / "spool",
    )


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start_writer(config: AgentConfig, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a process which writes into the spool of `config`."""
    config.to_file(tmp_path / "agent.json")
    started: list[subprocess.Popen[str]] = []

    def start(mode: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(WRITER), str(tmp_path / "agent.json"), mode],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def numbers(store_rows: list[dict[str, object]]) -> list[object]:
    return [row["edit"] for row in store_rows]


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
    start_writer: Start, config: AgentConfig, server: StoreServer, after: int
) -> None:
    """Whatever a process had appended when SIGKILL came is in the bucket once, in order."""
    writer = start_writer("append")
    out = writer.stdout
    assert out is not None
    kept = [int(out.readline()) for _ in range(after)]
    writer.kill()
    kept += [int(line) for line in out.read().splitlines()]
    with closing(spool_of(config)) as spool:
        spool.ship()
        found = numbers(rows(server.store(), config.run_id, "edits"))
        # One more may have been kept and not yet told.
        assert found in (kept, [*kept, len(kept)])
        assert spool.numbers(PHASE) == {"edits": len(parts(server.store(), config.run_id))}
        assert spool.unshipped() == {}


def test_numbers_have_no_gaps_over_restarts(
    start_writer: Start, config: AgentConfig, server: StoreServer
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


def batch(columns: dict[str, list[object]], kind: str = "edits") -> pa.RecordBatch:
    arrays = [
        pa.array(columns.get(field.name, [None] * len(columns["edit"])), type=field.type)
        for field in SCHEMAS[kind]
    ]
    return pa.record_batch(arrays, schema=SCHEMAS[kind])


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


def test_compaction_is_the_concatenation(spool: Spool, server: StoreServer) -> None:
    """The one object that takes the parts' place holds their rows in their order."""
    run_id = spool.folder.parent.name
    for number in range(6):
        spool.append(PHASE, "edits", edits(range(number * 3, number * 3 + 3)))
        spool.append(PHASE, "errors", {"at_us": [number], "type": ["x"], "weight": [1.0]})
        spool.append("01-other", "edits", edits([number]))
        spool.freeze()
    spool.ship()
    before = {kind: rows(server.store(), run_id, kind, phase=PHASE) for kind in ("edits", "errors")}
    assert numbers(before["edits"]) == list(range(18))
    spool.compact(PHASE)
    after = {kind: rows(server.store(), run_id, kind, phase=PHASE) for kind in ("edits", "errors")}
    assert after == before
    left = [
        (part.phase, part.kind, part.first, part.last) for part in parts(server.store(), run_id)
    ]
    assert [one for one in left if one[0] == PHASE] == [
        (PHASE, "edits", 1, 6),
        (PHASE, "errors", 1, 6),
    ]
    assert sum(one[0] != PHASE for one in left) == 6


def test_what_comes_after_a_compaction_is_numbered_on(spool: Spool, server: StoreServer) -> None:
    """Late rows of a phase that is over become parts behind the whole one, and compact again."""
    run_id = spool.folder.parent.name
    for number in range(7):
        spool.append(PHASE, "edits", edits([number]))
        spool.freeze()
        if number == 3:
            spool.ship()
            spool.compact(PHASE)
            spool.compact(PHASE)
    spool.ship()
    assert [(p.first, p.last) for p in parts(server.store(), run_id)] == [
        *((1, 4), (5, 5), (6, 6), (7, 7)),
    ]
    spool.compact(PHASE)
    assert [(p.first, p.last) for p in parts(server.store(), run_id)] == [(1, 4), (5, 7)]
    assert numbers(rows(server.store(), run_id, "edits")) == list(range(7))
    assert spool.numbers(PHASE) == {"edits": 7}


def test_numbers_go_on_after_a_compaction_and_a_restart(
    config: AgentConfig, server: StoreServer
) -> None:
    """A successor knows the numbers of parts whose rows are on its disk no more."""
    for start in (0, 3):
        with closing(spool_of(config)) as spool:
            for number in range(start, start + 3):
                spool.append(PHASE, "edits", edits([number]))
                spool.freeze()
            spool.ship()
            spool.compact(PHASE)
            assert spool.numbers(PHASE) == {"edits": start + 3}
    assert numbers(rows(server.store(), config.run_id, "edits")) == list(range(6))
    found = parts(server.store(), config.run_id)
    assert [(part.first, part.last) for part in found] == [(1, 3), (4, 6)]


def test_dying_in_a_compaction_doubles_nothing(
    start_writer: Start, config: AgentConfig, server: StoreServer
) -> None:
    """Between the put of the whole and the delete of the small ones a reader sees each row once."""
    writer = start_writer("compact")
    assert writer.wait(timeout=20) == -signal.SIGKILL
    both = parts(server.store(), config.run_id)
    assert sorted((part.first, part.last) for part in both) == [(1, 1), (1, 3), (2, 2), (3, 3)]
    assert len(without_covered(both)) == 1
    assert numbers(rows(server.store(), config.run_id, "edits")) == [0, 1, 2]
    # A successor finds it half done, adds a part and compacts in its turn.
    with closing(spool_of(config)) as spool:
        spool.append(PHASE, "edits", edits([3]))
        spool.freeze()
        spool.ship()
        assert numbers(rows(server.store(), config.run_id, "edits")) == [0, 1, 2, 3]
        spool.compact(PHASE)
        assert numbers(rows(server.store(), config.run_id, "edits")) == [0, 1, 2, 3]
        assert spool.numbers(PHASE) == {"edits": 4}


def test_a_store_that_goes_away_and_comes_back_misses_nothing(tmp_path: Path) -> None:
    """While S3 is away rows stay on disk; once it is back all of them are there, once."""
    with StoreServer(tmp_path / "s3") as server:
        spool = Spool(
            tmp_path / "spool",
            store=server.store(timeout_s=1, tries=1),
            layout=RunLayout("away"),
            attempt=1,
            worker="w",
        )
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


def test_a_compaction_that_fails_is_done_later(tmp_path: Path) -> None:
    """When S3 goes away before the whole is written, the small parts stay and nothing is lost."""
    with StoreServer(tmp_path / "s3") as server:
        spool = Spool(
            tmp_path / "spool",
            store=server.store(timeout_s=1, tries=1),
            layout=RunLayout("away"),
            attempt=1,
            worker="w",
        )
        for number in range(3):
            spool.append(PHASE, "edits", edits([number]))
            spool.freeze()
        spool.ship()
        server.stop()
        with pytest.raises(StoreError):
            spool.compact(PHASE)
        server.start()
        spool.compact(PHASE)
        assert [(p.first, p.last) for p in parts(server.store(), "away")] == [(1, 3)]
        assert numbers(rows(server.store(), "away", "edits")) == [0, 1, 2]
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
    start_writer: Start, config: AgentConfig, server: StoreServer, tmp_path: Path
) -> None:
    """`python -m worker_agent.shipping` sends all that a killed agent had, also a second time."""
    writer = start_writer("append")
    out = writer.stdout
    assert out is not None
    for _ in range(20):
        out.readline()
    writer.kill()
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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Give a small file system; only root can mount one."""
    disk = SmallDisk.mount(tmp_path / "disk")
    if disk is None:
        pytest.skip("a file system can be mounted by root only")
    with disk:
        yield disk


@pytest.fixture
def small_spool(disk: SmallDisk, server: StoreServer, tmp_path: Path) -> Iterator[Spool]:
    """Give a spool on the small disk."""
    spool = Spool(
        disk.folder / "spool",
        store=server.store(),
        layout=RunLayout(tmp_path.name),
        attempt=1,
        worker="w",
    )
    yield spool
    spool.close()


def test_rows_wait_in_memory_while_the_disk_is_full(
    disk: SmallDisk, small_spool: Spool, server: StoreServer, tmp_path: Path
) -> None:
    """A full disk fails no append; it is said, and once there is room every row is there, once."""
    small_spool.append(PHASE, "edits", edits(range(10)))
    assert small_spool.trouble == ""
    disk.fill()
    for number in range(10, 1000):
        small_spool.append(PHASE, "edits", edits([number]))
    small_spool.append("01-next", "errors", {"at_us": [1], "type": ["x"], "weight": [1.0]})
    assert small_spool.is_full
    assert "No space left" in small_spool.trouble
    assert set(small_spool.unshipped()) == {PHASE, "01-next"}
    small_spool.freeze()
    small_spool.ship()
    disk.clear()
    assert small_spool.retry()
    assert small_spool.trouble == ""
    small_spool.freeze()
    small_spool.ship()
    assert numbers(rows(server.store(), tmp_path.name, "edits")) == list(range(1000))
    assert len(rows(server.store(), tmp_path.name, "errors")) == 1
    assert small_spool.take_lost() == {}


def test_a_batch_that_fits_only_partly_leaves_no_trace(disk: SmallDisk) -> None:
    """What of a batch was written before the disk was full is gone from its journal again."""
    journal = Journal(disk.folder / "j.arrows", SCHEMAS["edits"])
    written = []
    for number in range(0, 60, 2):
        journal.append(batch(edits([number])))
        disk.fill()
        for _ in range(5):  # until a batch reaches beyond the last page of the file
            try:
                journal.append(batch(edits([number + 1])))
            except OSError:
                break
            written.append(number + 1)
        written.append(number)
        disk.clear()
    journal.close()
    read = pa.Table.from_batches(read_batches(journal.path), schema=SCHEMAS["edits"])
    assert set(read.column("edit").to_pylist()) == set(written)
    assert read.num_rows == len(written)
    assert journal.path.stat().st_size == journal.size


def test_a_disk_full_of_own_samples_empties_into_the_bucket(
    disk: SmallDisk, small_spool: Spool, server: StoreServer, tmp_path: Path
) -> None:
    """What is in the bucket gives its place on the disk to what is not."""
    draw = random.Random(1)  # noqa: S311 - rows that do not compress
    wanted = []
    while not small_spool.is_full:
        block = [draw.randrange(2**60) for _ in range(2000)]
        small_spool.append(PHASE, "edits", edits(block))
        wanted += block
    small_spool.freeze()
    small_spool.ship()
    small_spool.make_room()
    assert not small_spool.is_full
    small_spool.append(PHASE, "edits", edits([1]))
    small_spool.freeze()
    small_spool.ship()
    assert numbers(rows(server.store(), tmp_path.name, "edits")) == [*wanted, 1]
    assert disk.folder.is_mount()


def test_deliveries_are_thinned_before_the_disk_is_full(
    disk: SmallDisk, small_spool: Spool, server: StoreServer, tmp_path: Path
) -> None:
    """On a disk that is nearly full a tenth of the deliveries stands for all; edits are kept."""
    disk.fill(leaving=150_000)
    assert "nearly full" in small_spool.trouble or "left" in small_spool.trouble
    assert not small_spool.is_full
    for start in range(0, 20_000, 1000):
        small_spool.append(PHASE, "deliveries", deliveries(range(start, start + 1000)))
    small_spool.append(PHASE, "edits", edits(range(50)))
    small_spool.freeze()
    small_spool.ship()
    kept = rows(server.store(), tmp_path.name, "deliveries")
    assert 1500 < len(kept) < 2500
    assert {row["weight"] for row in kept} == {10.0}
    # Kept whatever they are: neither early nor late ones are favoured.
    assert sum(row["edit"] for row in kept) / len(kept) == pytest.approx(9999.5, rel=0.1)
    assert len(rows(server.store(), tmp_path.name, "edits")) == 50


def test_memory_is_bounded_while_the_disk_is_full(
    disk: SmallDisk, small_spool: Spool, server: StoreServer, tmp_path: Path
) -> None:
    """Deliveries give way first, with their weight kept; only then are rows lost, and counted."""
    small_spool._backlog._limit_bytes = 200_000  # noqa: SLF001 - 64 MiB would take seconds
    disk.fill()
    sent = 0
    for start in range(0, 40_000, 1000):
        small_spool.append(PHASE, "deliveries", deliveries(range(start, start + 1000)))
        small_spool.append(PHASE, "edits", edits(range(start // 100, start // 100 + 10)))
        sent += 1000
        assert small_spool._backlog._bytes <= 200_000  # noqa: SLF001 - as above
    assert small_spool.take_lost() == {}
    disk.clear()
    assert small_spool.retry()
    small_spool.freeze()
    small_spool.ship()
    kept = rows(server.store(), tmp_path.name, "deliveries")
    # Thinned on the way in (the disk was low) and again: many times over, so only roughly.
    assert sum(row["weight"] for row in kept) == pytest.approx(sent, rel=0.3)
    assert numbers(rows(server.store(), tmp_path.name, "edits")) == list(range(400))
    disk.fill()
    for start in range(0, 40_000, 1000):
        small_spool.append(PHASE, "edits", edits(range(start, start + 1000)))
    lost = small_spool.take_lost()["edits"]
    assert 20_000 < lost < 40_000
    disk.clear()
    small_spool.retry()
    small_spool.freeze()
    small_spool.ship()
    assert len(rows(server.store(), tmp_path.name, "edits")) == 400 + 40_000 - lost


def test_a_spool_that_starts_on_a_full_disk_recovers(
    disk: SmallDisk, config: AgentConfig, server: StoreServer
) -> None:
    """An agent restarted on a full disk finds what was left, and its own first rows wait."""
    config = config.model_copy(update={"spool": disk.folder})
    with closing(spool_of(config)) as spool:
        spool.append(PHASE, "edits", edits([0]))
    disk.fill()
    with closing(spool_of(config)) as spool:
        spool.append(PHASE, "edits", edits([1]))
        spool.append("01-new", "edits", edits([2]))
        spool.ship()
        assert numbers(rows(server.store(), config.run_id, "edits")) == [0]
        disk.clear()
        wait_for(spool.retry)
        spool.freeze()
        spool.ship()
    assert numbers(rows(server.store(), config.run_id, "edits")) == [0, 1, 2]
