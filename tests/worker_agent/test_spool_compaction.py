"""Compaction: one object in the place of a phase's parts, whenever its writer dies."""

import signal
from contextlib import closing
from pathlib import Path

import pytest

from run_store.agent_config import AgentConfig
from run_store.errors import StoreError
from run_store.layout import without_covered
from tests.store_server import StoreServer
from tests.worker_agent.samples import PHASE, StartWriter, edits, numbers, parts, rows, spool_at
from worker_agent.shipping import spool_of
from worker_agent.spool import Spool


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
    start_writer: StartWriter, config: AgentConfig, server: StoreServer
) -> None:
    """Between the put of the whole and the delete of the small ones a reader sees each row once."""
    writer = start_writer("compact")
    assert writer.wait(timeout=60) == -signal.SIGKILL
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


def test_dying_behind_a_compaction_doubles_nothing(
    start_writer: StartWriter, config: AgentConfig, server: StoreServer
) -> None:
    """A successor that finds some parts still on its disk, and has more to add, repeats none."""
    writer = start_writer("empty")
    assert writer.wait(timeout=60) == -signal.SIGKILL
    assert [(p.first, p.last) for p in parts(server.store(), config.run_id)] == [(1, 3)]
    held = [path.stat().st_size > 0 for path in sorted(config.spool.glob("**/shipped/*/*.arrows"))]
    assert sum(held) == 2
    with closing(spool_of(config)) as spool:
        spool.append(PHASE, "edits", edits([3]))
        spool.freeze()
        spool.ship()
        spool.compact(PHASE)
    assert numbers(rows(server.store(), config.run_id, "edits")) == [0, 1, 2, 3]


def test_a_compaction_that_fails_is_done_later(tmp_path: Path) -> None:
    """When S3 goes away before the whole is written, the small parts stay and nothing is lost."""
    with StoreServer(tmp_path / "s3") as server:
        spool = spool_at(tmp_path / "spool", server.store(timeout_s=20, tries=1), "away")
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
