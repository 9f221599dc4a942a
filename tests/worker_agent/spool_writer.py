"""A process with a spool, for tests that kill it: `spool_writer.py CONFIG MODE`.

append   appends edits 0, 1, 2, … one by one for ever, and prints each number once it is kept;
         freezes and ships now and then
compact  appends and ships three parts, and kills itself between the put of the whole and the
         delete of the small ones
empty    likewise, and kills itself when one of the three is no longer on its disk
"""

import itertools
import os
import signal
import sys
from pathlib import Path

from run_store.agent_config import AgentConfig
from tests.worker_agent.samples import PHASE, edits
from worker_agent import spool as spool_module
from worker_agent.shipping import spool_of
from worker_agent.spool import Spool


def append(spool: Spool) -> None:
    """Append for ever."""
    for number in itertools.count():
        spool.append(PHASE, "edits", edits([number]))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        if number % 50 == 30:
            spool.freeze()
        if number % 100 == 90:
            spool.ship()


def die(*_: object) -> None:
    """End as by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def ship_three(spool: Spool) -> None:
    """Append and ship three parts."""
    for number in range(3):
        spool.append(PHASE, "edits", edits([number]))
        spool.freeze()
    spool.ship()


def compact(spool: Spool) -> None:
    """Die half-way through a compaction."""
    ship_three(spool)
    # There is no other way to die at exactly this point.
    spool._store.delete = die  # type: ignore[method-assign]  # noqa: SLF001
    spool.compact(PHASE)


def empty(spool: Spool) -> None:
    """Die behind a compaction, while the copies of its parts are given up."""
    ship_three(spool)
    give_up, given_up = spool_module._empty, itertools.count()  # noqa: SLF001 - likewise
    spool_module._empty = lambda path: give_up(path) if next(given_up) == 0 else die()  # noqa: SLF001
    spool.compact(PHASE)


if __name__ == "__main__":
    {"append": append, "compact": compact, "empty": empty}[sys.argv[2]](
        spool_of(AgentConfig.from_file(Path(sys.argv[1])))
    )
