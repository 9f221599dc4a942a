"""Judging a scenario's objectives on a run: each metric is fetched, then judged by `verdict`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from reports.engine import RunDatabase
from reports.figures import RunFigures, rounded
from reports.summary import ObjectiveRow
from reports.verdict import Measured, counts_for_verdict, is_windowed, judge, value_at, worst
from scenarios.objectives import Objective

_SAMPLES_AT_ONCE = 20_000_000
_WINDOW_COLUMNS = {
    "edits.error_rate": "error_rate",
    "edits.failed": "failed",
    "edits.completed": "completed",
    "edits.per_second": "per_second",
    "connections.peak": "peak",
    "connections.healthy": "healthy",
    "connections.health_score": "health_score",
    "connections.dropped": "dropped",
    "connections.failed": "connect_failed",
    "relay.memory_growth_mb": "memory_growth_mb",
    "relay.memory_end_mb": "memory_end_mb",
    "relay.polls_failed": "polls_failed",
}


def judge_objectives(database: RunDatabase, figures: RunFigures) -> list[ObjectiveRow]:
    """Return a row for each objective of the run's scenario, in their order."""
    scenario = database.facts.scenario
    if scenario is None:
        return []
    kinds = {phase.name: phase.kind for phase in scenario.phases}
    rows = []
    for objective in scenario.parsed_objectives:
        bounds_steps = objective.stop and objective.phase is None and "stress" in kinds.values()
        measured = _measured_beside_stress if bounds_steps else _measured
        rows.append(
            judge(
                objective,
                measured(database, figures, objective),
                counts=counts_for_verdict(objective, kinds.get(objective.phase or "")),
                where=" outside the stress phase" if bounds_steps else "",
            )
        )
    return rows


def _measured_beside_stress(
    database: RunDatabase, figures: RunFigures, objective: Objective
) -> Measured:
    """Return the worst that the phases other than stress say of a stop objective of the run.

    In a stress phase it bounds the capacity, as one of that phase would. Cool-downs end no load
    either. Where no other phase could tell it, there is nothing to judge.
    """
    told_by_edits = objective.metric.split(".", maxsplit=1)[0].endswith(("_ms", "edits"))
    others = [
        phase
        for phase in figures.phases
        if phase.kind not in ("stress", "cooldown")
        and (
            phase.edits_planned if told_by_edits else value_at(phase, objective.metric) is not None
        )
    ]
    if not others:
        why_not = "it bounds the stress phase, and no other phase tells it"
        return Measured(None, why_not=why_not, can_be=False)
    found = [
        _measured(database, figures, objective.model_copy(update={"phase": phase.name}))
        for phase in others
    ]
    return next((one for one in found if one.value is None), None) or worst(objective, found)


def _measured(database: RunDatabase, figures: RunFigures, objective: Objective) -> Measured:
    if objective.metric.startswith("relay.") and not database.facts.record.has_metrics:
        return Measured(None, why_not="this relay has no /metrics", can_be=False)
    of = figures.of(objective.phase)
    if of is None:
        return Measured(None, why_not=f"{objective.phase} did not run")
    if is_windowed(objective):
        return worst(objective, _windows(database, objective))
    value = value_at(of, objective.metric)
    if value is None:
        return Measured(None, why_not=_why_not(objective.metric))
    return Measured(value)


def _windows(database: RunDatabase, objective: Objective) -> list[Measured]:
    """Return the metric in every window of the objective's length (in whole seconds)."""
    phases = [
        phase
        for phase in database.rows("phases")
        if objective.phase in (None, phase["name"]) and phase["from_s"] is not None
    ]
    if not phases:
        return []
    head, _, statistic = objective.metric.partition(".")
    span: dict[str, Any] = {
        "phase": None if objective.phase is None else phases[0]["label"],
        "from_s": min(phase["from_s"] for phase in phases),
        "to_s": max(phase["to_s"] for phase in phases),
        "length_s": float(math.ceil(objective.window_s or 1)),
    }
    if head.endswith("_ms"):
        rows, column = list(_latency_windows(database, head, span)), statistic
    else:
        rows, column = database.rows("windows_counts", **span), _WINDOW_COLUMNS[objective.metric]
    return [
        Measured(rounded(row[column]), from_s=rounded(row["from_s"]), to_s=rounded(row["to_s"]))
        for row in rows
    ]


def _latency_windows(
    database: RunDatabase, metric: str, span: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the windows, so many at a time that the samples of all fit into memory.

    Each sample is in as many windows as these are seconds long.
    """
    of_run = database.rows("distribution", metric=metric)
    samples = next((row["samples"] for row in of_run if row["scope"] == "run"), 0)
    length_s, seconds = span["length_s"], max(span["to_s"] - span["from_s"], 1.0)
    at_once = max(1.0, _SAMPLES_AT_ONCE // (length_s * max(samples / seconds, 1.0)))
    from_s = span["from_s"]
    while True:
        to_s = min(from_s + at_once - 1 + length_s, span["to_s"])
        yield from database.rows(
            "windows_latency", **{**span, "metric": metric, "from_s": from_s, "to_s": to_s}
        )
        from_s += at_once
        if from_s + length_s > span["to_s"]:
            return


def _why_not(metric: str) -> str:
    if metric == "storm.recovery_s":
        return "there was no storm, or not every connection came back"
    if metric == "sync.diverged":
        return "no replica was looked at"
    if metric == "edits.lost":
        return "nothing was there to tell: no replica was looked at, and no delivery was due"
    if metric.startswith("delivery_ms"):
        return "no delivery within one worker was seen"
    return "there is no sample of it"
