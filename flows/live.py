"""What a run looks like while it goes on, where the command line does not show it.

A run that was started from Python or by a Prefect worker is shown as lines of its flow run's log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from flows.cli_show import figures
from run_store.messages import Order, PhaseRecord
from scenarios.durations import format_duration
from tasks.observation import Snapshot, is_shown, showing

LINE_EVERY_S = 5.0


class LogLines:
    """An observer that writes lines to a log."""

    def __init__(
        self, say: Callable[[str], None], warn: Callable[[str], None] | None = None
    ) -> None:
        self._say = say
        self._warn = warn or say
        self._last_line_s = 0.0

    def step(self, name: str, text: str) -> None:
        """Write what step has begun."""
        self._say(f"{name}: {text}")

    def phase_began(self, order: Order, label: str) -> None:
        """Write how long the phase lasts and where its connections go."""
        self._last_line_s = time.monotonic()
        connections = order.connections
        self._say(
            f"{label}: {format_duration(order.duration_s)}, "
            f"connections {connections.start:,.0f} to {connections.end:,.0f}"
        )

    def saw(self, snapshot: Snapshot) -> None:
        """Write the fleet's state every few seconds."""
        now = time.monotonic()
        if now - self._last_line_s < LINE_EVERY_S:
            return
        self._last_line_s = now
        shown = "; ".join(f"{name} {value}" for name, value in figures(snapshot))
        self._say(f"{snapshot.label} {format_duration(snapshot.elapsed_s)}: {shown}")

    def phase_ended(self, record: PhaseRecord) -> None:
        """Write that the phase is complete, or why it is not."""
        self._say(f"{record.label}: {record.stopped_early or 'complete'}")

    def warn(self, text: str) -> None:
        """Write what the user should know at once."""
        self._warn(text)


@contextmanager
def shown() -> Iterator[None]:
    """Have the runs inside the `with` shown in the flow run's log, if nobody shows them yet."""
    if is_shown():
        yield
        return
    try:
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_run_logger()
    except MissingContextError:
        logger = logging.getLogger(__name__)
    with showing(LogLines(logger.info, logger.warning)):
        yield
