"""Small drawings as SVG, without a script: points and lines over an axis that may be of ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 36
_TICKS = 6


@dataclass(frozen=True)
class Series:
    """Points that belong together, in one colour.

    `is_line` joins them in the order of x; `has_dots` draws each.
    """

    label: str
    colour: str
    points: tuple[tuple[float, float], ...]
    is_line: bool = True
    has_dots: bool = True


@dataclass(frozen=True)
class Mark:
    """A line across the drawing: `across` at a y, else upright at an x; with its words."""

    label: str
    at: float
    colour: str
    across: bool = True


@dataclass(frozen=True)
class Plot:
    """One drawing. `words` are the texts of some x, where numbers say nothing."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    band: tuple[float, float] | None = None
    is_log_x: bool = False
    is_log_y: bool = False
    words: tuple[tuple[float, str], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(series.points for series in self.series)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    from_px: float
    to_px: float
    is_log: bool

    def px(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.from_px + (self.to_px - self.from_px) * share

    def ticks(self) -> list[float]:
        if not self.is_log:
            return _even_ticks(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks = [
            each * 10.0**decade
            for decade in decades
            for each in (1, 2, 5)
            if self.low <= each * 10.0**decade <= self.high
        ]
        return ticks if len(ticks) > 1 else _even_ticks(self.low, self.high)


def drawn(plot: Plot) -> str:
    """Return a drawing as one SVG element; empty if there is nothing to draw."""
    if plot.is_empty:
        return ""
    xs = [x for series in plot.series for x, _ in series.points]
    ys = [y for series in plot.series for _, y in series.points]
    xs += [mark.at for mark in plot.marks if not mark.across] + list(plot.band or ())
    ys += [mark.at for mark in plot.marks if mark.across]
    x = _axis(xs, _LEFT, WIDTH - _RIGHT, is_log=plot.is_log_x, from_zero=False)
    y = _axis(ys, HEIGHT - _BOTTOM, _TOP, is_log=plot.is_log_y, from_zero=not plot.is_log_y)
    parts = [
        (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="curve" '
            f'aria-label="{escape(plot.title)}" font-size="12" fill="currentColor">'
        ),
        *_band(plot, x, y),
        *_grid(plot, x, y),
        *(text for mark in plot.marks for text in _mark(mark, x, y)),
        *(text for series in plot.series for text in _series(series, x, y)),
        "</svg>",
    ]
    return f"<figcaption>{escape(plot.title)}</figcaption>" + "".join(parts) + _legend(plot)


def _axis(
    values: Sequence[float], from_px: float, to_px: float, *, is_log: bool, from_zero: bool
) -> _Axis:
    if is_log:
        above = [value for value in values if value > 0] or [1.0]
        return _Axis(min(above) / 1.15, max(above) * 1.15, from_px, to_px, is_log=True)
    low, high = min(values), max(values)
    low = min(low, 0.0) if from_zero else low
    room = (high - low or abs(high) or 1.0) * 0.06
    return _Axis(low if from_zero else low - room, high + room, from_px, to_px, is_log=False)


def _even_ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9) / _TICKS))
    step *= next((each for each in (1, 2, 5, 10) if (high - low) / (step * each) <= _TICKS), 10)
    first = math.ceil(low / step)
    return [step * place for place in range(first, math.floor(high / step) + 1)]


def _grid(plot: Plot, x: _Axis, y: _Axis) -> list[str]:
    texts = []
    for tick in y.ticks():
        at = y.px(tick)
        texts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" '
            f'stroke="currentColor" opacity=".15"/>'
            f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        )
    named = plot.words or tuple((tick, _number(tick)) for tick in x.ticks())
    texts += [
        f'<text x="{x.px(at):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
        f"{escape(word)}</text>"
        for at, word in named
    ]
    texts.append(
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 4}" text-anchor="end" opacity=".7">'
        f"{escape(plot.x_label)}</text>"
    )
    return texts


def _band(plot: Plot, x: _Axis, y: _Axis) -> list[str]:
    if plot.band is None:
        return []
    left, right = (x.px(at) for at in plot.band)
    return [
        (
            f'<rect x="{left:.1f}" width="{max(right - left, 1):.1f}" y="{y.to_px}" '
            f'height="{y.from_px - y.to_px}" fill="currentColor" opacity=".08"/>'
        )
    ]


def _mark(mark: Mark, x: _Axis, y: _Axis) -> list[str]:
    at = y.px(mark.at) if mark.across else x.px(mark.at)
    x1, x2 = (_LEFT, WIDTH - _RIGHT) if mark.across else (at, at)
    y1, y2 = (at, at) if mark.across else (y.to_px, y.from_px)
    text_x, text_y = (_LEFT + 4, at - 4) if mark.across else (at + 4, _TOP + 10)
    return [
        (
            f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" '
            f'stroke="{mark.colour}" stroke-dasharray="5 4"/>'
            f'<text x="{text_x:.1f}" y="{text_y:.1f}" fill="{mark.colour}">'
            f"{escape(mark.label)}</text>"
        )
    ]


def _series(series: Series, x: _Axis, y: _Axis) -> list[str]:
    placed = [(x.px(at), y.px(value)) for at, value in sorted(series.points)]
    texts = []
    if series.is_line and len(placed) > 1:
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in placed)
        texts.append(f'<polyline points="{path}" fill="none" stroke="{series.colour}"/>')
    texts += [
        f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3.2" fill="{series.colour}"/>'
        for left, top in (placed if series.has_dots else [])
    ]
    return texts


def _legend(plot: Plot) -> str:
    entries = " ".join(
        f'<span><span style="color:{series.colour}">●</span> {escape(series.label)}</span>'
        for series in plot.series
        if series.points
    )
    return f'<p class="unit">{escape(plot.y_label)} {entries}</p>'


def _number(value: float) -> str:
    if abs(value) >= 1000:  # noqa: PLR2004 - where a separator helps
        return f"{value:,.0f}"
    return f"{value:.4g}"
