"""What a run looks like while it goes on: a display in a terminal, plain lines anywhere else.

Both are observers (`tasks.observation.Observer`) and write to stderr, so that stdout holds the
result alone. Latencies here come from heartbeats and are approximate; the report's are not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from run_store.messages import Order, PhaseRecord
from scenarios.durations import format_duration
from scenarios.model import Scenario
from tasks.observation import Observer, Snapshot

LINE_EVERY_S = 10.0
"""How often a snapshot becomes a line where there is no terminal."""


@contextmanager
def observer_for(console: Console, scenario: Scenario) -> Iterator[Observer]:
    """Give the observer that suits the console, for as long as the `with`."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    display = Display(console, scenario)
    with display.live:
        yield display


def figures(seen: Snapshot) -> list[tuple[str, str]]:
    """Return what is worth knowing of a snapshot, as names and values with their units."""
    relay = "no samples"
    if seen.relay_connections is not None:
        memory = "" if seen.relay_memory_mb is None else f", {seen.relay_memory_mb:,.0f} MB"
        relay = f"{seen.relay_connections:,} connections{memory}"
    failed = seen.edits_failed + seen.edits_missed
    alive = f"{seen.workers_alive} of {seen.workers} workers"
    return [
        ("connections", f"{seen.connections_open:,} of {seen.connections_target:,}"),
        ("edits", f"{seen.edits_per_s:.1f}/s, {seen.edits_completed:,} done, {failed:,} failed"),
        (
            "acknowledgement",
            _latency(seen.acknowledgement_p50_ms, seen.acknowledgement_p95_ms),
        ),
        ("delivery", _latency(seen.delivery_p50_ms, seen.delivery_p95_ms)),
        ("errors", _errors(seen)),
        ("relay", relay),
        (
            "generator",
            f"{alive}, CPU {seen.cpu_percent:.0f} %, late by {seen.lateness_p99_ms:.0f} ms (p99)",
        ),
    ]


class PlainLines:
    """Lines with the time of day, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_line_s = 0.0

    def step(self, name: str, text: str) -> None:
        """Write what step has begun."""
        self._line(f"{name}: {text}")

    def phase_began(self, order: Order, label: str) -> None:
        """Write what the phase plans."""
        self._last_line_s = time.monotonic()
        self._line(f"{label}: {_plan(order)}")

    def saw(self, snapshot: Snapshot) -> None:
        """Write a snapshot now and then."""
        now = time.monotonic()
        if now - self._last_line_s < LINE_EVERY_S:
            return
        self._last_line_s = now
        elapsed = format_duration(max(snapshot.elapsed_s, 0))
        shown = "; ".join(f"{name} {value}" for name, value in figures(snapshot))
        self._line(f"{snapshot.label} {elapsed}: {shown}")

    def phase_ended(self, record: PhaseRecord) -> None:
        """Write that the phase is complete."""
        self._line(f"{record.label}: {_outcome(record)}")

    def warn(self, text: str) -> None:
        """Write what the user should know at once."""
        self._line(f"warning: {text}")

    def _line(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Display:
    """A table that is drawn anew in its place; what happens is written above it."""

    def __init__(self, console: Console, scenario: Scenario) -> None:
        self._console = console
        self._scenario = scenario
        self._done_s = 0.0
        self._now = "starting"
        self._snapshot: Snapshot | None = None
        self.live = Live(
            get_renderable=self._draw, console=console, refresh_per_second=4, transient=True
        )

    def step(self, name: str, text: str) -> None:
        """Write what step has begun."""
        self._now, self._snapshot = name, None
        self._write(f"{name}: {text}", style="dim")

    def phase_began(self, order: Order, label: str) -> None:
        """Show the phase from now on."""
        self._now = label
        self._write(f"{label}: {_plan(order)}")

    def saw(self, snapshot: Snapshot) -> None:
        """Show the snapshot."""
        self._now, self._snapshot = snapshot.label, snapshot

    def phase_ended(self, record: PhaseRecord) -> None:
        """Write that the phase is complete."""
        self._done_s += record.planned_s
        self._snapshot = None
        self._write(f"{record.label}: {_outcome(record)}", style="yellow" if record.lost else "")

    def warn(self, text: str) -> None:
        """Write what the user should know at once."""
        self._write(text, style="bold yellow")

    def _write(self, text: str, *, style: str = "") -> None:
        stamp = Text(time.strftime("%H:%M:%S "), style="dim")
        self._console.print(stamp.append(text, style=style), soft_wrap=True)

    def _draw(self) -> RenderableType:
        seen = self._snapshot
        in_phase_s = min(max(seen.elapsed_s, 0.0), seen.duration_s) if seen else 0.0
        bars = Table.grid(padding=(0, 1))
        whole_s = self._scenario.duration_s
        bars.add_row(*_bar(self._scenario.name, self._done_s + in_phase_s, whole_s))
        if seen is None:
            bars.add_row(Text(self._now, style="bold"))
            return bars
        bars.add_row(*_bar(seen.label, in_phase_s, seen.duration_s))
        table = Table.grid(padding=(0, 2))
        for name, value in figures(seen):
            bad = name == "errors" and seen.errors > 0
            table.add_row(Text(name, style="dim"), Text(value, style="yellow" if bad else ""))
        return Group(bars, table)


def _bar(name: str, done_s: float, whole_s: float) -> tuple[RenderableType, ...]:
    return (
        Text(name, style="bold"),
        ProgressBar(total=max(whole_s, 0.001), completed=done_s, width=40),
        Text(f"{format_duration(done_s)} of {format_duration(whole_s)}"),
    )


def _plan(order: Order) -> str:
    return (
        f"{format_duration(order.duration_s)}, "
        f"connections {_line(order.connections.start, order.connections.end)}, edits a minute "
        f"{_line(order.edits_per_s.start * 60, order.edits_per_s.end * 60)}"
    )


def _line(start: float, end: float) -> str:
    return f"{end:,.0f}" if round(start) == round(end) else f"{start:,.0f} to {end:,.0f}"


def _outcome(record: PhaseRecord) -> str:
    took = format_duration((record.ended_us - record.started_us) / 1e6)
    lost = f", workers lost: {', '.join(lost.worker for lost in record.lost)}"
    cut = f", cut short: {record.stopped_early}" if record.stopped_early else ""
    return f"complete after {took}{lost if record.lost else ''}{cut}"


def _latency(p50_ms: float | None, p95_ms: float | None) -> str:
    if p50_ms is None or p95_ms is None:
        return "none yet"
    return f"p50 {p50_ms:,.0f} ms, p95 {p95_ms:,.0f} ms (so far, approximate)"


def _errors(seen: Snapshot) -> str:
    worst = sorted(seen.errors_by_type.items(), key=lambda entry: -entry[1])[:3]
    named = ", ".join(f"{kind} {count:,}" for kind, count in worst)
    return f"{seen.errors:,} ({named})" if worst else f"{seen.errors:,}"
