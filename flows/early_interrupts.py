"""Ctrl-C before a run has begun: remembered, so that none is lost on the way there.

Python drops the KeyboardInterrupt that strikes in a callback of its own, as there are many while
modules are imported (the locks of imports are freed by weak references), and a library may turn
it into an error of its own (pydantic does, where it strikes in a serializer). The run would then
go on as if nobody had pressed anything. This module imports next to nothing: it comes first.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class EarlyInterrupts:
    """Raises KeyboardInterrupt as Python does, and knows afterwards that it was raised."""

    def __init__(self) -> None:
        self._pressed = False
        self._is_held = False

    def hold(self) -> bool:
        """Remember from now on; say whether this began it. Others' handlers are left alone."""
        ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if ours:
            self._pressed, self._is_held = False, True
            signal.signal(signal.SIGINT, self._on_signal)
        return ours

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed, whatever became of its first one."""
        if self._pressed:
            raise KeyboardInterrupt

    def let_go(self) -> None:
        """Leave Ctrl-C to Python again; raise KeyboardInterrupt if it was pressed until now."""
        if self._is_held and threading.current_thread() is threading.main_thread():
            self._is_held = False
            # Who has set a handler of their own since keeps it.
            if signal.getsignal(signal.SIGINT) == self._on_signal:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            pressed, self._pressed = self._pressed, False
            if pressed:
                raise KeyboardInterrupt

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt


EARLY = EarlyInterrupts()


@contextlib.contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Let no Ctrl-C be lost in a `with`; gives what raises KeyboardInterrupt if it was pressed.

    An error that Ctrl-C was turned into leaves the `with` as KeyboardInterrupt. Inside of
    another such `with` this one adds nothing but its checks.
    """
    began = EARLY.hold()
    try:
        yield EARLY.check
    except Exception:
        EARLY.check()
        raise
    else:
        EARLY.check()
    finally:
        if began:
            EARLY.let_go()
