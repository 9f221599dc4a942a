"""SIGTERM, told of a while later: by then a flow has either begun to end, or the signal was lost.

Prefect has SIGTERM raise an error wherever the process just is. In a callback of the event loop,
or in a task beside the flow's own, that error ends nothing but the callback or that task, and the
flow goes on. Prefect knows its handler again, so no other may stand in its place; but Python also
writes each signal's number to a file descriptor, and that is read here.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

GRACE_S = 1.0
"""How long what the handler raised may be on its way through the flow."""


class TerminationWatch:
    """Calls `then` in the loop, `GRACE_S` after each SIGTERM in a `with`.

    Where this is not the main thread, or others read the signals' numbers, it does nothing.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        self._pipe = read, write
        try:
            before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        except ValueError:
            self._close()
            return self
        if before != -1:
            signal.set_wakeup_fd(before)
            self._close()
            return self
        self._loop.add_reader(read, self._came)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            self._loop.remove_reader(self._pipe[0])
            self._close()

    def _came(self) -> None:
        if self._pipe is not None and signal.SIGTERM in os.read(self._pipe[0], 512):
            self._loop.call_later(GRACE_S, self._then, context=self._context)

    def _close(self) -> None:
        for end in self._pipe or ():
            os.close(end)
        self._pipe = None
