"""When samples go to the bucket, and what is said when they cannot.

    python -m worker_agent.shipping --config FILE

ships what an agent left in its spool, where that agent is no more; exit code 0 if nothing is
left, 1 if something is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from run_store.agent_config import AgentConfig
from run_store.errors import RelayLoadError, StoreError
from run_store.layout import RunLayout
from run_store.store import Store
from worker_agent.recording import Recording
from worker_agent.spool import Spool

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
ROOM_WITHIN_S = 20.0
"""How long a phase that is over waits for room on the disk before it is done without."""
TROUBLES = ("", "disk_low", "disk_full")
"""What may be wrong with the disk, the gravest last: each is told once, until all is well."""


def spool_of(config: AgentConfig) -> Spool:
    """Return the spool of an agent: a folder of its run, attempt and worker below `spool`.

    A machine may serve several runs one after another, and a retry comes while the samples of
    the attempt before may still be there: they are never mixed.
    """
    folder = config.spool / config.run_id / f"attempt={config.attempt}" / config.worker
    return Spool(
        folder,
        # A client of its own: a slow upload delays no heartbeat.
        store=Store(config.store, timeout_s=30.0, tries=2),
        layout=RunLayout(config.run_id),
        attempt=config.attempt,
        worker=config.worker,
    )


class Shipper:
    """Keeps a spool's samples on their way, and says when its disk is in trouble."""

    def __init__(
        self, spool: Spool, recording: Recording, now_us: Callable[[], int], *, every_s: float
    ) -> None:
        self._spool = spool
        self._recording = recording
        self._now_us = now_us
        self._every_s = every_s
        self._lock = asyncio.Lock()
        self._said = ""

    async def run(self) -> None:
        """Ship each `every_s`, and at once while the disk is full, until cancelled."""
        shipped_at = time.monotonic()
        while True:
            await asyncio.sleep(min(self._every_s, LOOK_EVERY_S))
            due = time.monotonic() - shipped_at >= self._every_s
            if not due and not self._spool.is_full:
                continue
            shipped_at = time.monotonic()
            try:
                async with self._lock:
                    await asyncio.to_thread(self._ship)
            except (StoreError, OSError) as error:
                log.warning("samples wait: %s", error)

    async def watch_disk(self) -> None:
        """Look at the spool's disk each second until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._look_at_disk()

    def _look_at_disk(self) -> None:
        """Write what waits for room; say if the disk has got into trouble, or rows are lost."""
        self._spool.retry()
        full, trouble = self._spool.take_full(), self._spool.trouble
        kind = "disk_full" if full else "disk_low" if trouble else ""
        if TROUBLES.index(kind) > TROUBLES.index(self._said):
            log.error("%s", full or trouble)
            self._recording.error(self._now_us(), kind, full or trouble)
            self._said = kind
        elif self._said and not kind:
            log.warning("the spool's disk has room again")
            self._said = kind
        for of_kind, rows in self._spool.take_lost().items():
            message = f"{rows} rows of {of_kind} found no room on the disk nor in memory"
            log.error("%s", message)
            self._recording.error(self._now_us(), "samples_lost", message, weight=rows)

    async def finish(self, phase: str, *, give_up: Callable[[], bool]) -> bool:
        """Ship and compact a phase that is over; False if we had to give up before."""
        deadline = time.monotonic() + ROOM_WITHIN_S
        while True:
            try:
                async with self._lock:
                    await asyncio.to_thread(self._ship, phase)
                    if self._spool.retry() or time.monotonic() > deadline:
                        await asyncio.to_thread(self._spool.compact, phase)
                        return True
            except (StoreError, OSError) as error:
                log.warning("samples wait: %s", error)
            if give_up():
                return False
            await asyncio.sleep(LOOK_EVERY_S)

    async def ship_all(self, patience_s: Callable[[], float]) -> bool:
        """Ship all that is left, for as long as `patience_s` says; False if something stays."""
        while True:
            try:
                async with self._lock:
                    await asyncio.to_thread(self._ship)
                    for phase in self._spool.phases():
                        await asyncio.to_thread(self._spool.compact, phase)
            except (StoreError, OSError) as error:
                log.warning("samples wait: %s", error)
            if not self._spool.unshipped():
                return True
            if patience_s() <= 0:
                log.error("samples stay in the spool: %s", self._spool.unshipped())
                return False
            await asyncio.sleep(LOOK_EVERY_S)

    def _ship(self, phase: str | None = None) -> None:
        self._spool.freeze(phase)
        self._spool.ship()
        if self._spool.is_full:
            self._spool.make_room()


def main(arguments: list[str]) -> int:
    """Ship what an agent left; return an exit code."""
    parser = argparse.ArgumentParser(prog="worker_agent.shipping", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the agent's config")
    config = AgentConfig.from_file(parser.parse_args(arguments).config)
    try:
        with contextlib.closing(spool_of(config)) as spool:
            sent = spool.ship()
    except (RelayLoadError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the module's own command line
        return 1
    print(f"{sent} parts were sent")  # noqa: T201 - likewise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
