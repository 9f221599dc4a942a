"""The page of a comparison: tables and one chart, in one file without any script."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from reports import wording
from reports.compare import ComparedRun, Comparison
from reports.templating import environment, source

WIDTH, HEIGHT = 1000, 260
_LEFT, _BOTTOM = 56, 24
_MOST_POINTS = 500
_TICKS = 4
_SHOWN_SHARE = 0.995
"""The chart's height is that of this share of the values; single outliers are cut off."""


@dataclass(frozen=True)
class Chart:
    """A line chart in units of its own box: a path for each run, and ticks as place and text."""

    baseline: str
    other: str
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]


def render_comparison(comparison: Comparison) -> bytes:
    """Return the page, whole: it needs no other file and no network, and has no script."""
    page = (
        environment()
        .get_template("compare.html.jinja")
        .render(
            comparison=comparison,
            runs=[("A, the baseline", comparison.baseline), ("B", comparison.other)],
            chart=chart_of(comparison),
            width=WIDTH,
            height=HEIGHT,
            left=_LEFT,
            base=HEIGHT - _BOTTOM,
            style=Markup(source("page", "report.css")),  # noqa: S704 - ours
        )
    )
    return page.encode()


def chart_of(comparison: Comparison) -> Chart | None:
    """Return per-second delivery p50 of both runs over the time in their phases; None without."""
    lines = _lines(comparison)
    values = sorted(value for line in lines for _, value in line)
    if not values:
        return None
    step = _round_step(values[round(_SHOWN_SHARE * (len(values) - 1))] * 1.1 / _TICKS)
    top = step * _TICKS
    end_s = max(at for line in lines for at, _ in line) + 1.0

    def x(at_s: float) -> float:
        return _LEFT + at_s / end_s * (WIDTH - _LEFT)

    def y(value: float) -> float:
        return (HEIGHT - _BOTTOM) * (1 - min(value / top, 1.0))

    width_s = max(1.0, end_s / _MOST_POINTS)
    paths = ["".join(_path([(x(a), y(v)) for a, v in _thinned(line, width_s)])) for line in lines]
    ticks = [place / _TICKS for place in range(_TICKS + 1)]
    return Chart(
        baseline=paths[0],
        other=paths[1],
        rows=tuple((round(y(t * top), 1), wording.number(t * top, "ms")) for t in ticks[:-1]),
        columns=tuple((round(x(t * end_s), 1), wording.run_time(t * end_s)) for t in ticks[:-1]),
    )


def _round_step(wanted: float) -> float:
    """Return the next step upwards that is easy to read: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(wanted, 1e-3)))
    return next(power * times for times in (1, 2, 2.5, 5, 10) if power * times >= wanted)


def _lines(comparison: Comparison) -> list[list[tuple[float, float]]]:
    """Return (second, milliseconds) of each run; its phases stand behind one another."""
    both = (comparison.baseline, comparison.other)
    lines: list[list[tuple[float, float]]] = [[], []]
    before_s = 0.0
    for phase in comparison.phases:
        for line, run in zip(lines, both, strict=True):
            line += [
                (before_s + row["at_s"], row["delivery_p50_ms"])
                for row in run.seconds
                if row["phase"] == phase and row["delivery_p50_ms"] is not None
            ]
        before_s += max(_length_s(run, phase) for run in both)
    return lines


def _length_s(run: ComparedRun, phase: str) -> float:
    return max((row["at_s"] + 1.0 for row in run.seconds if row["phase"] == phase), default=0.0)


def _thinned(line: Sequence[tuple[float, float]], width_s: float) -> list[tuple[float, float]]:
    bins: dict[int, list[float]] = {}
    for at_s, value in line:
        bins.setdefault(int(at_s // width_s), []).append(value)
    return [(place * width_s, median(values)) for place, values in bins.items()]


def _path(points: Sequence[tuple[float, float]]) -> Iterator[str]:
    for place, (x, y) in enumerate(points):
        yield f"{'L' if place else 'M'}{x:.1f} {y:.1f}"
