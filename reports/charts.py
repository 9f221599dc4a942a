"""The series of the page's charts: thinned in SQL, on one axis of run time that all share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.engine import RunDatabase

POINTS = 1440
"""No series is longer: a pixel of a wide screen each. An hour is shown in points of 3 s."""
SLICES = 240
"""Columns of a heat map."""
_LONGEST_GAP_S = 60
_WORKERS_DRAWN = 10
_TYPES_DRAWN = 7
_WORKER_POINTS = 12_000
"""Values in all lines of a chart with a line for each worker, so that the page stays small."""

Values = list[float | None]


@dataclass(frozen=True)
class Series:
    """One line. `role` is what it stands for, and so its colour, the same in every chart."""

    label: str
    role: str
    values: Values
    unit: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no value in it."""
        return all(value is None for value in self.values)


@dataclass(frozen=True)
class Chart:
    """One chart over time: what it shows, in which unit, and what to look for."""

    key: str
    title: str
    unit: str
    look_for: str
    series: tuple[Series, ...]
    has_log: bool = False
    alarms: tuple[float, ...] = ()
    alarm_says: str = ""
    empty: str = "There are no samples of this kind in the run."

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return all(series.is_empty for series in self.series)


@dataclass(frozen=True)
class LatencyMap:
    """Counts of one latency over time and over its logarithm.

    Column, bucket and count of each cell that is not empty: columns of `slice_s` seconds,
    buckets of a tenth of a decade. Bucket b begins at 10^(b / 10) milliseconds.
    """

    key: str
    title: str
    slice_s: int
    columns: list[int]
    buckets: list[int]
    counts: list[float]


@dataclass(frozen=True)
class ChartSet:
    """All that is drawn: the shared times (run time in seconds), charts and latency maps."""

    at_s: Values
    point_s: int
    charts: tuple[Chart, ...]
    maps: tuple[LatencyMap, ...]


def chart_set(database: RunDatabase) -> ChartSet:
    """Return everything that the page draws; an empty run has no points and empty charts."""
    span = database.row("chart_span")
    point_s = max(1, math.ceil(span["seconds"] / POINTS))
    points = database.columns("chart_points", bin_s=point_s)
    axis = _Axis(points["at_s"], points["point"], point_s)
    latencies = {
        name: axis.columns(database.columns("chart_latency", bin_s=point_s, metric=name))
        for name in ("acknowledgement_ms", "delivery_ms")
    }
    charts = (
        _connections(axis, database),
        _edits(axis, database),
        _latency(
            "acknowledgement",
            "Acknowledgement",
            "From the time an edit was meant to be made until the relay's heads cover it. All "
            "three lines rising together is the relay; p99 alone is a few slow edits.",
            latencies["acknowledgement_ms"],
            point_s,
        ),
        _latency(
            "delivery",
            "Delivery",
            "From the time an edit was meant to be made until another connection of the same "
            "worker shows it. Compare with acknowledgement: what is only here was spent in "
            "fan-out.",
            latencies["delivery_ms"],
            point_s,
        ),
        _errors(axis, database),
        *_relay(axis, database),
        *_workers(axis, database, span["workers"]),
        _generator(axis, database),
    )
    slice_s = max(1, math.ceil(span["last_s"] / SLICES))
    maps = (
        _latency_map(database, "acknowledgement_ms", "Acknowledgement", slice_s),
        _latency_map(database, "delivery_ms", "Delivery", slice_s),
    )
    return ChartSet(at_s=axis.at_s, point_s=point_s, charts=charts, maps=maps)


class _Axis:
    """The shared times; where the run pauses for a retry, an empty point parts the lines."""

    def __init__(self, at_s: Sequence[float], points: Sequence[int], point_s: int) -> None:
        self.point_s = point_s
        self.at_s: Values = []
        self._source: list[int | None] = []
        self._place: dict[int, int] = {}
        for index, at in enumerate(at_s):
            before = self.at_s[-1] if self.at_s else None
            if before is not None and at - before > _LONGEST_GAP_S + point_s:
                self.at_s.append(before + point_s)
                self._source.append(None)
            self._place[points[index]] = len(self.at_s)
            self.at_s.append(at)
            self._source.append(index)

    def columns(self, table: dict[str, list[Any]]) -> dict[str, Values]:
        """Return columns of a table that has a row for each point, with the gaps put in."""
        return {
            name: [None if i is None else rounded(values[i]) for i in self._source]
            for name, values in table.items()
        }

    def scattered(
        self, points: Sequence[int], values: Sequence[float], empty: float | None
    ) -> Values:
        """Return values that stand at some points only; `empty` at the others."""
        line: Values = [None if i is None else empty for i in self._source]
        for point, value in zip(points, values, strict=True):
            if point in self._place:
                line[self._place[point]] = rounded(value)
        return line


def rounded(value: float | None) -> float | None:
    """Return a value to four significant digits: more cannot be seen, and costs space."""
    if value is None or not math.isfinite(value):
        return None
    if value == 0:
        return 0
    short = round(value, 3 - math.floor(math.log10(abs(value))))
    return int(short) if short == int(short) else short


def _connections(axis: _Axis, database: RunDatabase) -> Chart:
    table = axis.columns(database.columns("chart_connections", bin_s=axis.point_s))
    return Chart(
        key="connections",
        title="Connections",
        unit="connections",
        look_for="Open should lie on the target. Open below the target: the relay refuses or "
        "drops, or the workers cannot keep up. The relay's own count above open: sockets it has "
        "not let go of.",
        series=(
            Series("target", "wanted", table["target"]),
            Series("open", "good", table["open"]),
            Series("healthy", "fine", table["healthy"]),
            Series("the relay's own count", "own", table["relay"]),
        ),
    )


def _edits(axis: _Axis, database: RunDatabase) -> Chart:
    table = axis.columns(database.columns("chart_edits", bin_s=axis.point_s))
    series = [
        Series("offered", "wanted", table["offered"]),
        Series("acknowledged", "good", table["done"]),
        Series("failed or never acknowledged", "bad", table["failed"]),
        Series("missed by the generator", "late", table["missed"]),
    ]
    if not any(table["offered"]) and not any(table["done"]):
        series = []
    return Chart(
        key="edits",
        title="Edits",
        unit="edits/s",
        look_for="Acknowledged should follow offered. A dip that is made up for later is a stall; "
        "one that is not is loss. Missed edits are the generator's fault, not the relay's.",
        series=tuple(series),
        empty="No edits were offered in this run.",
    )


def _latency(key: str, title: str, look_for: str, table: dict[str, Values], point_s: int) -> Chart:
    pooled = f" Each point pools all samples of {point_s} s." if point_s > 1 else ""
    return Chart(
        key=key,
        title=f"{title} latency",
        unit="ms",
        look_for=look_for + pooled,
        series=(
            Series("p99", "p99", table["p99"]),
            Series("p95", "p95", table["p95"]),
            Series("p50", "p50", table["p50"]),
        ),
        has_log=True,
        empty=f"Nothing was measured: there is no {title.lower()} in the run's samples.",
    )


def _errors(axis: _Axis, database: RunDatabase) -> Chart:
    rows = database.rows("chart_errors", bin_s=axis.point_s, types=_TYPES_DRAWN)
    by_type: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        points, values = by_type.setdefault(row["type"] or "unnamed", ([], []))
        points.append(row["point"])
        values.append(row["per_second"])
    return Chart(
        key="errors",
        title="Errors by type",
        unit="errors/s",
        look_for="A burst that begins with a change of load points at capacity; a burst out of "
        "nothing at a fault. One type only is one cause.",
        series=tuple(
            Series(name, f"kind{place}", axis.scattered(points, values, 0))
            for place, (name, (points, values)) in enumerate(by_type.items())
        ),
        empty="No errors were recorded.",
    )


def _relay(axis: _Axis, database: RunDatabase) -> tuple[Chart, ...]:
    table = axis.columns(database.columns("chart_relay", bin_s=axis.point_s))
    silent = tuple(
        at
        for at, failed in zip(axis.at_s, table["polls_failed"], strict=True)
        if failed and at is not None
    )
    return (
        Chart(
            key="relay",
            title="Relay memory and connections",
            unit="MiB",
            look_for="Memory that climbs while connections stay level is a leak. Bars along the "
            "bottom are seconds in which /metrics did not answer.",
            series=(
                Series("memory", "relay", table["memory_mb"]),
                Series("connections", "good", table["connections"], unit="connections"),
            ),
            alarms=silent,
            alarm_says="/metrics did not answer",
            empty="The relay was not sampled: it has no /metrics, or never answered.",
        ),
    )


def _workers(axis: _Axis, database: RunDatabase, workers: int) -> tuple[Chart, ...]:
    drawn = max(1, min(_WORKERS_DRAWN, workers, _WORKER_POINTS // max(1, len(axis.at_s))))
    lines: dict[str, tuple[list[int], list[float], list[float]]] = {}
    for row in database.rows("chart_workers", bin_s=axis.point_s, workers=drawn):
        points, cpu, memory = lines.setdefault(row["worker"], ([], [], []))
        points.append(row["point"])
        cpu.append(math.nan if row["cpu_percent"] is None else row["cpu_percent"])
        memory.append(math.nan if row["memory_mb"] is None else row["memory_mb"])
    some = f" The {drawn} busiest of {workers} workers are drawn." if drawn < workers else ""
    return (
        Chart(
            key="worker-cpu",
            title="Worker CPU",
            unit="% of the machine",
            look_for="Above 85 % the generator's own delay enters the latencies. One worker above "
            "the others is that machine's trouble, not the relay's." + some,
            series=tuple(
                Series(worker, f"kind{place}", axis.scattered(points, cpu, None))
                for place, (worker, (points, cpu, _)) in enumerate(lines.items())
            ),
        ),
        Chart(
            key="worker-memory",
            title="Worker memory",
            unit="MiB",
            look_for="Agent (RSS) and all its browser processes (PSS) together. It should level "
            "off with the connections; what keeps growing will end in lost pages." + some,
            series=tuple(
                Series(worker, f"kind{place}", axis.scattered(points, memory, None))
                for place, (worker, (points, _, memory)) in enumerate(lines.items())
            ),
        ),
    )


def _generator(axis: _Axis, database: RunDatabase) -> Chart:
    table = axis.columns(database.columns("chart_generator", bin_s=axis.point_s))
    return Chart(
        key="lateness",
        title="Generator lateness",
        unit="ms",
        look_for="How late the generator itself was, worst of all workers. Latencies of the same "
        "size as this are the generator's own and say nothing of the relay.",
        series=(
            Series("edits against their schedule, p99", "late", table["lateness_p99_ms"]),
            Series("page timers, worst", "p95", table["page_lag_ms"]),
            Series("agents' event loops, worst", "p50", table["loop_lag_ms"]),
        ),
        has_log=True,
    )


def _latency_map(database: RunDatabase, metric: str, title: str, slice_s: int) -> LatencyMap:
    table = database.columns("latency_heatmap", metric=metric, slice_s=slice_s)
    return LatencyMap(
        key=metric.removesuffix("_ms"),
        title=title,
        slice_s=slice_s,
        columns=[int(at) // slice_s for at in table["from_s"]],
        buckets=[round(math.log10(ms) * 10) for ms in table["from_ms"]],
        counts=[rounded(count) or 0 for count in table["count"]],
    )
