"""Ctrl-C on a running flow: once ends it in order, twice ends it now; teardown always runs."""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
from typing import Self

from run_store.errors import InterruptedRunError
from tasks.conductor import Conductor
from tasks.observation import current_observer


class Interrupts:
    """Holds SIGINT for as long as a `with` lasts, where this is the main thread.

    The first asks the conductor to end in order, or cancels what comes before there is one; the
    second cancels; further ones do nothing, so that a teardown is never cut.
    """

    def __init__(self) -> None:
        self.count = 0
        self._conductor: Conductor | None = None
        self._task: asyncio.Task[object] | None = None
        self._installed = False
        self._protected = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupted)
            self._installed = True
        except (ValueError, RuntimeError, NotImplementedError):
            # Not the main thread: whoever called us keeps its own handling.
            self._installed = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def conduct(self, conductor: Conductor) -> None:
        """Name who ends the load in order from now on."""
        self._conductor = conductor

    def protect(self) -> None:
        """Let nothing be cancelled any more: what is left is teardown and report."""
        self._protected = True

    def as_error(self, error: BaseException) -> BaseException:
        """Return a cancellation that came from Ctrl-C as InterruptedRunError."""
        if self.count and isinstance(error, asyncio.CancelledError):
            if self._task is not None:
                self._task.uncancel()
            return InterruptedRunError(
                "The run was interrupted.", hint="Everything was given back."
            )
        return error

    def _interrupted(self) -> None:
        self.count += 1
        if self._protected:
            current_observer().warn("ending already: what is left is teardown and report")
        elif self.count == 1 and self._conductor is not None:
            self._conductor.end("interrupted")
            current_observer().warn("ending in order; press Ctrl-C again to stop now")
        elif self._task is not None:
            current_observer().warn("stopping now")
            self._task.cancel()
