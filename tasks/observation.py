"""What there is to see of a run while it goes on, for whoever shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from run_store.messages import Order, PhaseRecord


@dataclass(frozen=True)
class Snapshot:
    """The whole fleet at one instant, as its heartbeats say; latencies are approximate."""

    label: str
    elapsed_s: float
    duration_s: float
    workers_alive: int
    workers: int
    connections_target: int
    connections_open: int
    edits_offered: int
    edits_completed: int
    edits_failed: int
    edits_missed: int
    edits_per_s: float
    acknowledgement_p50_ms: float | None
    acknowledgement_p95_ms: float | None
    delivery_p50_ms: float | None
    delivery_p95_ms: float | None
    errors: int
    errors_by_type: dict[str, int] = field(default_factory=dict)
    lateness_p99_ms: float = 0.0
    cpu_percent: float = 0.0
    relay_memory_mb: float | None = None
    relay_connections: int | None = None


class Observer(Protocol):
    """Told of everything worth showing. Must return quickly and never raise."""

    def step(self, name: str, text: str) -> None:
        """Take that a step (provision, deploy, ...) has begun or has news."""

    def phase_began(self, order: Order, label: str) -> None:
        """Take that a phase's order is written."""

    def saw(self, snapshot: Snapshot) -> None:
        """Take the state of the fleet; about once a second."""

    def phase_ended(self, record: PhaseRecord) -> None:
        """Take that a phase is complete."""

    def warn(self, text: str) -> None:
        """Take something that the user should know at once: a worker lost, a part missing."""


class Silent:
    """An observer that shows nothing."""

    def step(self, name: str, text: str) -> None:
        """Show nothing."""

    def phase_began(self, order: Order, label: str) -> None:
        """Show nothing."""

    def saw(self, snapshot: Snapshot) -> None:
        """Show nothing."""

    def phase_ended(self, record: PhaseRecord) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Show nothing."""


_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def show_with(observer: Observer) -> None:
    """Have the runs of this context shown by `observer`."""
    _observer.set(observer)


@contextmanager
def showing(observer: Observer) -> Iterator[None]:
    """Have the runs inside the `with` shown by `observer`."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def is_shown() -> bool:
    """Say whether somebody shows the runs of this context."""
    return _observer.get() is not None


def current_observer() -> Observer:
    """Return who shows the run that this context belongs to."""
    return _observer.get() or Silent()
