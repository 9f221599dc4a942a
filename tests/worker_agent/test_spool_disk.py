"""A spool whose disk is full, or nearly so."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from run_store.agent_config import AgentConfig
from run_store.samples import SCHEMAS
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.samples import PHASE, batch, deliveries, edits, numbers, rows, spool_at
from tests.worker_agent.small_disk import SmallDisk
from worker_agent.journal import Journal, read_batches
from worker_agent.shipping import spool_of
from worker_agent.spool import Spool


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
    spool = spool_at(disk.folder / "spool", server.store(), tmp_path.name)
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


def test_that_the_disk_was_full_is_told_once_room_was_made(
    disk: SmallDisk, small_spool: Spool
) -> None:
    """Whoever looks each second must not miss it because the spool has emptied itself since."""
    for number in range(50):
        small_spool.append(PHASE, "edits", edits(range(number * 200, number * 200 + 200)))
    small_spool.freeze()
    small_spool.ship()
    assert small_spool.take_full() == ""
    disk.fill()
    while not small_spool.is_full:
        small_spool.append(PHASE, "edits", edits(range(200)))
    small_spool.make_room()
    assert not small_spool.is_full
    assert "takes no more" in small_spool.take_full()
    assert small_spool.take_full() == ""


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
