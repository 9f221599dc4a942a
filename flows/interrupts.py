"""Ctrl-C on a running flow: once ends it in order, twice ends it now; teardown always runs.

SIGTERM is Prefect's; a flow that goes on in spite of it, because it was lost, is ended now.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
from types import FrameType, TracebackType
from typing import Any, Self

from flows.termination_watch import TerminationWatch
from run_store.errors import InterruptedRunError
from tasks.conductor import Conductor
from tasks.observation import current_observer


class Interrupts:
    """Holds SIGINT for as long as a `with` lasts, where this is the main thread.

    | when | the first | a further one |
    |---|---|---|
    | before the load | cancels | cancels |
    | in the load | asks the conductor to end in order | cancels |
    | in the teardown | changes nothing | changes nothing, but there will be no report |
    | in the report | changes nothing | cancels |

    A cancellation that it caused leaves the `with` as InterruptedRunError.
    """

    def __init__(self) -> None:
        self.count = 0
        self._conductor: Conductor | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: contextvars.Context | None = None
        self._held = contextlib.ExitStack()
        self._stage = "start"

    def __enter__(self) -> Self:
        """Begin to hold it; raise CancelledError if an earlier Ctrl-C was lost on its way here.

        asyncio makes the first one a cancellation of its main task, and what awaits there before
        a flow begins (an HTTP client, a lock) may swallow that: the task still knows of it.
        """
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        if self._task is not None and self._task.cancelling():
            raise asyncio.CancelledError
        self._context = contextvars.copy_context()
        # Off the main thread a signal cannot be held: whoever called us keeps its own handling.
        with contextlib.suppress(ValueError):
            before = signal.signal(signal.SIGINT, self._on_signal)
            if before is not None:
                self._held.callback(signal.signal, signal.SIGINT, before)
        self._held.enter_context(TerminationWatch(self._terminated))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()
        if error is not None and (ours := self.as_error(error)) is not error:
            raise ours from None

    def load_begins(self, conductor: Conductor) -> None:
        """Name who ends the load in order from now on."""
        self._conductor, self._stage = conductor, "load"

    def teardown_begins(self) -> None:
        """Let nothing be cancelled."""
        self._stage = "teardown"

    def report_begins(self) -> None:
        """Let the report be cancelled by those who do not want to wait for it.

        Raises InterruptedRunError if that was already said.
        """
        self._stage = "report"
        if self.count > 1:
            raise InterruptedRunError(
                "The run was stopped at once: it has no report yet.",
                hint="What it measured is in the store: relay-load report makes one.",
            )

    def as_error(self, error: BaseException) -> BaseException:
        """Return a cancellation that came from Ctrl-C as InterruptedRunError."""
        if self.count and isinstance(error, asyncio.CancelledError):
            if self._task is not None:
                self._task.uncancel()
            return InterruptedRunError(
                "The run was interrupted.", hint="Everything was given back."
            )
        return error

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # A handler may run between any two instructions; what it does belongs into the loop.
        if self._loop is not None and not self._loop.is_closed():
            # It runs in whatever context the loop was in; the flow's own knows who shows the run.
            self._loop.call_soon_threadsafe(self._interrupted, context=self._context)

    def _terminated(self) -> None:
        """End the flow if SIGTERM has not: it is neither being cancelled nor torn down."""
        ends = self._stage not in ("start", "load")
        if self._task is not None and not ends and not self._task.cancelling():
            current_observer().warn("stopping now")
            self._task.cancel()

    def _interrupted(self) -> None:
        self.count += 1
        say = current_observer().warn
        if self._stage == "teardown":
            say("everything is being given back; this is not cut short")
        elif self.count == 1 and self._stage == "report":
            say("the report is nearly made; press Ctrl-C again to do without it")
        elif self.count == 1 and self._conductor is not None:
            say("ending in order; press Ctrl-C again to stop now")
            self._conductor.end("interrupted")
        elif self._task is not None:
            say("stopping now")
            self._task.cancel()
