"""Whether the relay met the scenario's objectives: pure functions of what was measured.

An objective without a window is judged on the phase's or the run's own figure. One that says
`for 30s` is judged on every window of 30 s, each a second after the one before: the worst must
meet it. What was not measured is not met, because a figure that is missing is no evidence that
it was good; only `relay.*` without a `/metrics` to ask stays open and does not count. A stop
objective of a stress phase bounds the capacity and does not count either; one of the whole run
is judged on the other phases, the worst of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from reports.summary import ObjectiveRow, Verdict
from scenarios.durations import format_duration
from scenarios.objectives import Objective

WINDOWED = frozenset({"edits", "connections", "relay"})
"""Metrics besides the latencies that a window can be judged on."""
NEVER_WINDOWED = frozenset({"edits.lost", "sync.diverged", "storm.recovery_s"})
"""Metrics of a whole phase: they are judged there, whatever window an objective names."""


@dataclass(frozen=True)
class Measured:
    """A metric's value, in its own unit, and the window that it is of (run time, seconds).

    `why_not` says why there is no value; `can_be` is False if nothing could have measured it.
    """

    value: float | None
    from_s: float | None = None
    to_s: float | None = None
    why_not: str = ""
    can_be: bool = True


def value_at(figures: BaseModel, metric: str) -> float | None:
    """Return the figure that a metric such as `delivery_ms.p95` names."""
    at: object = figures
    for name in metric.split("."):
        at = getattr(at, name)
    return float(at) if isinstance(at, int | float) else None


def is_windowed(objective: Objective) -> bool:
    """Say whether an objective is judged on windows rather than on its phase as a whole."""
    return objective.window_s is not None and objective.metric not in NEVER_WINDOWED


def worst(objective: Objective, windows: Sequence[Measured]) -> Measured:
    """Return the window furthest from what is wanted; windows without a value are passed over."""
    measured = [window for window in windows if window.value is not None]
    if not measured:
        return Measured(None, why_not="no window holds a sample")
    return min(measured, key=lambda window: _margin(objective, window.value or 0.0))


def judge(
    objective: Objective, measured: Measured, *, counts: bool, where: str = ""
) -> ObjectiveRow:
    """Return an objective's row: wanted, got, met. `where` says what part of the run it is of."""
    got = measured.value
    met = objective.is_met_by(got) if got is not None else (False if measured.can_be else None)
    sentence = objective.sentence(got) + where
    if got is None and measured.why_not:
        sentence += f": {measured.why_not}"
    elif is_windowed(objective) and measured.from_s is not None and not met:
        sentence += f" in the window from {measured.from_s:.0f} s of the run"
    return ObjectiveRow(
        text=objective.text,
        metric=objective.metric,
        phase=objective.phase,
        operator=objective.operator,
        value=objective.value,
        wanted=_wanted(objective),
        got=got,
        met=met,
        counts=counts and (got is not None or measured.can_be),
        sentence=sentence,
        stop=objective.stop,
        window_s=objective.window_s,
        from_s=measured.from_s,
        to_s=measured.to_s,
    )


def counts_for_verdict(objective: Objective, phase_kind: str | None) -> bool:
    """Say whether an objective sets the verdict: not if it only bounds a stress phase."""
    return not (objective.stop and phase_kind == "stress")


def verdict_of(rows: Iterable[ObjectiveRow]) -> Verdict:
    """Return `passed` if every objective that counts is met (also if there is none)."""
    return "passed" if all(row.met for row in rows if row.counts) else "failed"


def _margin(objective: Objective, value: float) -> float:
    """Return by how much a value is on the right side; the smallest is the worst."""
    if objective.operator in ("<", "<="):
        return objective.value - value
    if objective.operator in (">", ">="):
        return value - objective.value
    distance = abs(value - objective.value)
    return -distance if objective.operator == "==" else distance


def _wanted(objective: Objective) -> str:
    value = objective.value
    shown = f"{value * 100:g} %" if objective.metric.endswith("error_rate") else f"{value:g}"
    head, _, last = objective.metric.rpartition(".")
    unit = next(
        (
            text
            for suffix, text in (("_ms", " ms"), ("_mb", " MiB"), ("_s", " s"))
            if head.endswith(suffix) or last.endswith(suffix)
        ),
        "",
    )
    window = f" for {format_duration(objective.window_s)}" if objective.window_s else ""
    return f"{objective.operator} {shown}{unit}{window}"
