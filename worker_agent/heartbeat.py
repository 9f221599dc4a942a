"""The worker's heartbeat: its status in the bucket, rewritten every second or so."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import platform
from collections.abc import Callable

import psutil

from run_store.errors import StoreError
from run_store.messages import Status
from run_store.store import Store

log = logging.getLogger(__name__)


class Heartbeat:
    """Writes `status`; `fill` brings it up to date before each beat."""

    def __init__(
        self,
        *,
        store: Store,
        key: str,
        status: Status,
        fill: Callable[[Status], None],
        every_s: float,
    ) -> None:
        self.status = status
        self._store = store
        self._key = key
        self._fill = fill
        self._every_s = every_s
        self._lock = asyncio.Lock()
        self._last = asyncio.Event()
        self._written = True

    async def run(self) -> None:
        """Beat until `end()`."""
        while not self._last.is_set():
            await self.beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._last.wait()

    async def beat(self) -> None:
        """Write the status as it is now; a store that does not take it is only logged."""
        # One at a time, each to its end: an older status must never come after a newer one.
        async with self._lock:
            self._fill(self.status)
            self.status.beat += 1
            status = self.status.model_copy(deep=True)
            try:
                await asyncio.to_thread(self._store.put_message, self._key, status)
            except StoreError as error:
                # Once, not each second of an outage.
                if self._written:
                    log.warning("no heartbeat was written: %s", error)
                self._written = False
            else:
                self._written = True

    def end(self) -> None:
        """Have `run` return after the beat that it is at."""
        self._last.set()


def versions() -> dict[str, str]:
    """Return the versions that a report names."""
    found = {"python": platform.python_version()}
    for package in ("relay-load", "playwright", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def host_facts() -> dict[str, str | int | float]:
    """Return what a report says of this machine."""
    return {
        "cpus": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "machine": platform.machine(),
    }
