"""The orchestrator's lease: a counter that is raised while this process lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Self

from run_store.errors import StoreError
from run_store.messages import Lease
from tasks.run_context import RunContext

log = logging.getLogger(__name__)

EVERY_S = 2.0
EXPIRES_AFTER_S = 30.0


class LeaseKeeper:
    """Raises the lease of an attempt for as long as an `async with` lasts."""

    def __init__(self, context: RunContext) -> None:
        self._key = self._key_of(context)
        self._store = context.store()
        self._counter = 0
        self._task: asyncio.Task[None] | None = None

    def _key_of(self, context: RunContext) -> str:
        return context.layout.lease(context.attempt)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._raise)
        self._task = asyncio.create_task(self._keep(), name="lease")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _raise(self) -> None:
        self._counter += 1
        lease = Lease(counter=self._counter, every_s=EVERY_S, expires_after_s=EXPIRES_AFTER_S)
        self._store.put_message(self._key, lease)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await asyncio.to_thread(self._raise)
            except StoreError as error:
                log.warning("the lease could not be raised: %s", error)


class PresenceKeeper(LeaseKeeper):
    """Raises what tells others that a process looks after an attempt, its report included."""

    def _key_of(self, context: RunContext) -> str:
        return context.layout.presence(context.attempt)
