"""The capacity in a report: its sentence, its charts, and the steps that it rests on."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from reports.capacity import load_of, saturation_of
from reports.curves import Mark, Plot, Series, drawn
from reports.saturation import Saturation
from reports.templating import environment
from run_store.capacity import CapacityResult
from run_store.errors import ScenarioError
from run_store.steps import Step
from scenarios.objectives import Objective, parse_objective

_BLUE, _GREEN, _RED, _PURPLE = "#3b82c4", "#00906a", "#cc5200", "#a8508a"
Figure = Callable[[Step], float | None]


def capacity_section(result: CapacityResult, steps: Sequence[Step]) -> Markup:
    """Return the part of a page that tells a search's answer, with charts and steps."""
    ordered = sorted(steps, key=lambda step: step.number)
    fit = saturation_of(ordered, result)
    plots = [drawn(plot) for plot in (_latency(ordered, result, fit), _errors(ordered, result))]
    plots.append(drawn(_throughput(ordered, result, fit)))
    return Markup(  # noqa: S704 - the template escapes what it is given
        environment()
        .get_template("capacity.html.jinja")
        .render(
            result=result,
            fit=fit,
            fit_says=fit.sentence(result.unit),
            plots=[Markup(plot) for plot in plots if plot],  # noqa: S704 - drawn by us
            good=_step(ordered, result.last_good),
            bad=_step(ordered, result.first_bad),
            steps=ordered,
            load_of=lambda step: load_of(step, result),
        )
    )


def capacity_facts(result: CapacityResult, fit: Saturation) -> dict[str, Any]:
    """Return what `summary.json` holds of a capacity."""
    told = result.model_dump(
        mode="json",
        include={
            *("sentence", "kind", "over", "capacity", "low", "high", "objective", "why"),
            *("explanation", "is_precise", "precision", "start", "limit", "steps"),
            *("last_good", "first_bad"),
        },
    )
    told |= {"title": result.title, "unit": result.unit}
    told["saturation"] = {
        "is_good": fit.is_good,
        "sentence": fit.sentence(result.unit),
        "knee": fit.knee,
        "limit": fit.limit,
        "limit_throughput": fit.limit_throughput,
        "gamma": fit.gamma,
        "sigma": fit.sigma,
        "kappa": fit.kappa,
        "r2": fit.r2,
    }
    return told


def _latency(steps: Sequence[Step], result: CapacityResult, fit: Saturation) -> Plot:
    kinds: tuple[tuple[str, str, Figure], ...] = (
        ("delivery p95", _BLUE, lambda step: step.figures.delivery_ms.p95),
        ("acknowledgement p95", _GREEN, lambda step: step.figures.acknowledgement_ms.p95),
    )
    objective = _objective(result.objective)
    marks = []
    if objective is not None and objective.metric.partition(".")[0].endswith("_ms"):
        marks.append(Mark(f"objective: {objective.text}", objective.value, _RED))
    if fit.is_good and fit.knee is not None and not fit.is_extrapolated:
        marks.append(Mark("knee", fit.knee, _PURPLE, across=False))
    return Plot(
        title="Latency over load",
        x_label=result.unit,
        y_label="ms",
        series=tuple(
            Series(name, colour, _points(steps, result, figure)) for name, colour, figure in kinds
        ),
        marks=tuple(marks),
        band=_band(result),
        is_log_x=True,
        is_log_y=True,
    )


def _errors(steps: Sequence[Step], result: CapacityResult) -> Plot:
    objective = _objective(result.objective)
    marks = []
    if objective is not None and objective.metric == "edits.error_rate":
        marks.append(Mark(f"objective: {objective.text}", objective.value * 100, _RED))
    return Plot(
        title="Errors over load",
        x_label=result.unit,
        y_label="%",
        series=(
            Series(
                "edits failed",
                _RED,
                _points(steps, result, lambda step: _percent(step.figures.error_rate)),
            ),
            Series("connections refused or lost", _PURPLE, _points(steps, result, _not_open)),
        ),
        marks=tuple(marks),
        band=_band(result),
        is_log_x=True,
    )


def _throughput(steps: Sequence[Step], result: CapacityResult, fit: Saturation) -> Plot:
    measured = tuple((point.load, point.throughput) for point in fit.points)
    curve: tuple[tuple[float, float], ...] = ()
    if fit.is_good and measured:
        first, last = measured[0][0], measured[-1][0]
        loads = [first * (last / first) ** (place / 40) for place in range(41)]
        curve = tuple((load, fit.at(load)) for load in loads)
    handed_on = result.over != "edits"
    return Plot(
        title="Throughput over load, and the law fitted to it",
        x_label=result.unit,
        y_label="edits handed on, a second" if handed_on else "edits acknowledged, a second",
        series=(
            Series("measured", _BLUE, measured, is_line=False),
            Series("Universal Scalability Law", _GREEN, curve, has_dots=False),
        )
        if steps
        else (),
        is_log_x=True,
    )


def _points(
    steps: Sequence[Step], result: CapacityResult, figure: Figure
) -> tuple[tuple[float, float], ...]:
    """Return a point for each load: the median, where it was tried more than once."""
    by_load: dict[float, list[float]] = {}
    for step in steps:
        value, load = figure(step), load_of(step, result)
        if value is not None and load > 0:
            by_load.setdefault(load, []).append(value)
    return tuple((load, statistics.median(values)) for load, values in sorted(by_load.items()))


def _not_open(step: Step) -> float | None:
    if not step.connections:
        return None
    missing = step.connections - step.figures.connections_open
    return 100 * max(missing, 0) / step.connections


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100


def _band(result: CapacityResult) -> tuple[float, float] | None:
    if result.low is None or result.high is None or result.low <= 0:
        return None
    return result.low, result.high


def _objective(text: str) -> Objective | None:
    try:
        return parse_objective(text)
    except ScenarioError:
        return None


def _step(steps: Sequence[Step], number: int | None) -> Step | None:
    return next((step for step in steps if step.number == number), None)
