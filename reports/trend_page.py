"""The page of a trend: capacity and latencies over the runs, with the changes of level."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reports.capacity import number as load_text
from reports.history import Line
from reports.templating import environment, source
from reports.trend import Change, Trend, fallen_to
from reports.wording import date_time, number

WIDTH, HEIGHT = 1000, 260
_LEFT, _BOTTOM, _MARGIN = 64, 24, 20
_TICKS = 4
_MOST_DATES = 8


@dataclass(frozen=True)
class Point:
    """A run's place in a chart; `low` and `high` are the ends of its interval."""

    x: float
    y: float
    low: float
    high: float
    says: str


@dataclass(frozen=True)
class Chart:
    """Lines of points in units of the chart's box, ticks, and where the level changes."""

    title: str
    look_for: str
    series: tuple[tuple[str, str, tuple[Point, ...]], ...]
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]
    changes: tuple[float, ...] = ()
    median: float | None = None


def render_trend(trend: Trend, scenario: str) -> bytes:
    """Return the page, whole: it needs no other file and no network, and has no script."""
    page = (
        environment()
        .get_template("trend.html.jinja")
        .render(
            trend=trend,
            scenario=scenario,
            charts=[chart for chart in (capacity_chart(trend), latency_chart(trend)) if chart],
            began=began,
            capacity_text=capacity_text,
            change_text=change_text,
            width=WIDTH,
            height=HEIGHT,
            left=_LEFT,
            base=HEIGHT - _BOTTOM,
            style=Markup(source("page", "report.css")),  # noqa: S704 - ours
        )
    )
    return page.encode()


def began(line: Line) -> str:
    """Return when a run began, in UTC."""
    return date_time(dt.datetime.fromtimestamp(line.at_us / 1e6, dt.UTC).isoformat())


def capacity_text(line: Line) -> str:
    """Return a capacity with its interval, as far as it is known."""
    if line.is_below and line.high is not None:
        at = ": the relay died at it" if line.kind == "died" else ""
        return f"below {load_text(line.high)}{at}"
    if line.value is None:
        return "-"
    if line.kind == "died":
        return f"{load_text(line.value)} before the relay died"
    if line.capacity is None or line.low is None or line.high is None:
        return f"{'' if line.capacity is not None else 'at least '}{load_text(line.value)}"
    return f"{load_text(line.capacity)} ({load_text(line.low)} to {load_text(line.high)})"


def level_of(line: Line) -> float | None:
    """Return the height of a run in a chart: its capacity, or the bound that is known of it."""
    return line.value if line.value is not None else fallen_to(line)


def change_text(change: Change) -> str:
    """Return a change of level as a sentence."""
    versions = ""
    if change.version_after and change.version_after != change.version_before:
        versions = f"; version {change.version_before or 'unknown'} to {change.version_after}"
    levels = f"{load_text(change.before)} to {load_text(change.after)}"
    return f"The level changed at {change.run_id}: {levels} ({change.share:+.1%}){versions}."


def capacity_chart(trend: Trend) -> Chart | None:
    """Return the capacities with their intervals; None if none is known."""
    known = [
        (place, line, value)
        for place, line in enumerate(trend.lines)
        if (value := level_of(line)) is not None
    ]
    if not known:
        return None
    top = _top([max(value, line.high or 0) for _, line, value in known])
    points = []
    for place, line, value in known:
        ends = (value if line.low is None else line.low, value if line.high is None else line.high)
        points.append(
            Point(
                x=_x(place, len(trend.lines)),
                y=_y(value, top),
                low=_y(ends[0], top),
                high=_y(ends[1], top),
                says=f"{line.run_id}, {began(line)}: {capacity_text(line)}",
            )
        )
    places = {line.run_id: place for place, line in enumerate(trend.lines)}
    newest = trend.lines[-1]
    return Chart(
        title="Capacity, " + ("edits/s" if newest.over == "edits" else "connections"),
        look_for="A bar is the interval of one answer. A dashed upright line is a change of "
        "level, the level dashed line the median that the newest run is held against.",
        series=(("capacity", "a", tuple(points)),),
        rows=_rows(top, ""),
        columns=_columns(trend.lines),
        changes=tuple(
            round(_x(places[change.run_id] - 0.5, len(places)), 1) for change in trend.changes
        ),
        median=None if trend.median is None else _y(trend.median, top),
    )


def latency_chart(trend: Trend) -> Chart | None:
    """Return p95 of delivery and of acknowledgement at each search's first step; None without."""
    named = (
        ("delivery p95", "b", [line.delivery_p95_ms for line in trend.lines]),
        ("acknowledgement p95", "c", [line.acknowledgement_p95_ms for line in trend.lines]),
    )
    known = [value for _, _, values in named for value in values if value is not None]
    if not known:
        return None
    top = _top(known)
    series = []
    for name, role, values in named:
        points = []
        for place, (line, value) in enumerate(zip(trend.lines, values, strict=True)):
            if value is not None:
                y = _y(value, top)
                says = f"{line.run_id}, {name}: {number(value, 'ms')}"
                points.append(Point(_x(place, len(values)), y, y, y, says))
        series.append((name, role, tuple(points)))
    return Chart(
        title="Latency at the first step",
        look_for="The first step's load is the same in all searches of a scenario: what rises "
        "here while the capacity stays is lost long before the relay breaks.",
        series=tuple(series),
        rows=_rows(top, "ms"),
        columns=_columns(trend.lines),
    )


def _top(values: Sequence[float]) -> float:
    """Return the end of an axis from zero: four steps of 1, 2, 2.5 or 5 times a power of ten."""
    wanted = max(max(values) * 1.05 / _TICKS, 1e-3)
    power = 10.0 ** math.floor(math.log10(wanted))
    steps = (power * times for times in (1, 2, 2.5, 5, 10))
    return next(step for step in steps if step >= wanted) * _TICKS


def _x(place: float, count: int) -> float:
    wide = WIDTH - _LEFT - 2 * _MARGIN
    return round(_LEFT + _MARGIN + (place / (count - 1) if count > 1 else 0.5) * wide, 1)


def _y(value: float, top: float) -> float:
    return round((HEIGHT - _BOTTOM) * (1 - value / top), 1)


def _rows(top: float, unit: str) -> tuple[tuple[float, str], ...]:
    ticks = [top * tick / _TICKS for tick in range(_TICKS)]
    return tuple((_y(tick, top), number(tick, unit)) for tick in ticks)


def _columns(lines: Sequence[Line]) -> tuple[tuple[float, str], ...]:
    every = math.ceil(len(lines) / _MOST_DATES)
    return tuple(
        (_x(place, len(lines)), f"{dt.datetime.fromtimestamp(line.at_us / 1e6, dt.UTC):%d %b %y}")
        for place, line in enumerate(lines)
        if place % every == 0
    )
