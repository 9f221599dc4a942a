"""The figures of two runs that a comparison shows side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from reports.summary import Summary

_STATISTICS = ("min", "mean", "p50", "p95", "p99")
Unit = Literal["ms", "/s", "share", "", "MB"]


@dataclass(frozen=True)
class FigureRow:
    """One figure of both runs, over the whole run; None where it was not measured."""

    name: str
    unit: Unit
    baseline: float | None
    other: float | None

    @property
    def difference(self) -> float | None:
        """The other's less the baseline's."""
        if self.baseline is None or self.other is None:
            return None
        return self.other - self.baseline

    @property
    def ratio(self) -> float | None:
        """How many times the baseline's the other's is; None where that says nothing."""
        if not self.baseline or self.baseline < 0 or self.other is None:
            return None
        return self.other / self.baseline


def figure_rows(baseline: Summary, other: Summary) -> tuple[FigureRow, ...]:
    """Return the figures that are shown side by side, in their order."""

    def row(name: str, unit: Unit, *path: str) -> FigureRow:
        return FigureRow(name, unit, _at(baseline, path), _at(other, path))

    latencies = [
        row(f"{kind} {statistic}", "ms", f"{kind}_ms", statistic)
        for kind in ("acknowledgement", "delivery")
        for statistic in _STATISTICS
    ]
    return (
        *latencies,
        row("edits per second", "/s", "edits", "per_second"),
        row("error rate", "share", "edits", "error_rate"),
        row("lost edits", "", "edits", "lost"),
        row("peak connections", "", "connections", "peak"),
        row("relay memory growth", "MB", "relay", "memory_growth_mb"),
    )


def _at(summary: Summary, path: tuple[str, ...]) -> float | None:
    value: Any = summary
    for name in path:
        value = getattr(value, name)
    return None if value is None else float(value)
