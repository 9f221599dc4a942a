"""Two runs of one scenario side by side, and whether the second one is slower.

Four latencies are judged, and any one that is slower makes a regression: four chances of a false
alarm, not one. So their p-values are adjusted by Holm's method, and the chance of any false one
is that of a single test, whatever the four have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from reports.bootstrap import SIGNIFICANT, Ratio, cliffs_delta, holm, ratio_of_medians
from reports.build import summarise
from reports.comparable import differences
from reports.compared_figures import FigureRow, figure_rows
from reports.engine import RunDatabase, open_run
from reports.facts import RunFacts, read_facts
from reports.summary import Summary
from run_store.errors import CannotRunError
from run_store.store import Store

JUDGED = (
    ("delivery_ms", "p50"),
    ("delivery_ms", "p95"),
    ("acknowledgement_ms", "p50"),
    ("acknowledgement_ms", "p95"),
)
"""What sets the verdict: each of these for every second."""
FEWEST_SECONDS = 30
"""In fewer, there are too few blocks to say how much they vary."""
_MOST_VERSIONS = 6

Change = Literal["slower", "faster", "below the minimum", "not significant", "not judged"]
Verdict = Literal["no regression", "regression", "undecided"]


class NotComparableError(CannotRunError):
    """Two runs cannot be held against each other, or one of them cannot be believed."""


@dataclass(frozen=True)
class ComparedRun:
    """One of the two: what it was told, what came of it, and its judged phases by the second.

    `seconds` are the rows of `compare_seconds`.
    """

    facts: RunFacts
    summary: Summary
    seconds: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Shift:
    """How a latency's per-second values changed; medians over seconds, in milliseconds.

    `delta` is Cliff's, from -1 (all faster) to 1 (all slower); `p` is the ratio's, adjusted for
    all that are judged. They are None with `ratio` where one run has too few seconds.
    """

    metric: str
    statistic: str
    seconds: tuple[int, int]
    medians: tuple[float | None, float | None]
    ratio: Ratio | None
    delta: float | None
    change: Change
    p: float | None = None

    @property
    def is_significant(self) -> bool:
        """Say whether it changed at all, large enough or not."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class Comparison:
    """All that is said of two runs. `phases` are those whose seconds were compared.

    `differences` are what makes the two hard to compare, `warnings` what else to know.
    """

    baseline: ComparedRun
    other: ComparedRun
    min_effect: float
    phases: tuple[str, ...]
    figures: tuple[FigureRow, ...]
    shifts: tuple[Shift, ...]
    differences: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The verdict in a sentence, with the latencies that set it."""
        telling = {"regression": "slower", "undecided": "not judged"}.get(self.verdict)
        named = [
            f"{shift.metric.removesuffix('_ms')} {shift.statistic}"
            for shift in self.shifts
            if shift.change == telling
        ]
        said = f"{self.verdict.capitalize()}: {', '.join(named)} {telling}"
        said = said if telling else self.verdict.capitalize()
        return f"{said}. A change counts from {self.min_effect * 100:g} % on."

    @property
    def verdict(self) -> Verdict:
        """Regression if any latency is slower; undecided where one could not be judged.

        A latency that neither run has enough seconds of takes no part, unless all are such.
        """
        if any(shift.change == "slower" for shift in self.shifts):
            return "regression"
        left_out = [shift for shift in self.shifts if shift.change == "not judged"]
        one_sided = [s for s in left_out if max(s.seconds) >= FEWEST_SECONDS]
        if one_sided or len(left_out) == len(self.shifts):
            return "undecided"
        return "no regression"


def read_both(
    store: Store, run_ids: tuple[str, str], *, force: bool = False
) -> tuple[ComparedRun, ComparedRun]:
    """Read both runs from the bucket; their samples only if they are alike, or with `force`.

    Raises NotComparableError, NoSuchRunError, and StoreError if the store does not answer.
    """
    if not force:
        before, after = (read_facts(store, run_id) for run_id in run_ids)
        _refuse(before, after, _unlike(before, after))
    return _read(store, run_ids[0]), _read(store, run_ids[1])


def _read(store: Store, run_id: str) -> ComparedRun:
    with open_run(store, run_id) as database:
        return compared_run(database)


def compared_run(database: RunDatabase) -> ComparedRun:
    """Return what is compared of a run that is open."""
    return ComparedRun(
        facts=database.facts,
        summary=summarise(database),
        seconds=tuple(database.rows("compare_seconds")),
    )


def compare_runs(
    baseline: ComparedRun, other: ComparedRun, *, min_effect: float = 0.1, force: bool = False
) -> Comparison:
    """Compare two runs; `min_effect` is the least change that matters, as a share of 1.

    Raises NotComparableError, which names each reason, unless `force`.
    """
    reasons = [*_unlike(baseline.facts, other.facts), *_invalid(baseline), *_invalid(other)]
    if not force:
        _refuse(baseline.facts, other.facts, reasons)
    phases = steady_phases(baseline, other)
    figures = figure_rows(baseline.summary, other.summary)
    shifts = _judged(
        [_shift(baseline, other, phases, metric, statistic) for metric, statistic in JUDGED],
        min_effect,
    )
    return Comparison(
        baseline=baseline,
        other=other,
        min_effect=min_effect,
        phases=phases,
        figures=figures,
        shifts=shifts,
        differences=tuple(reasons),
        warnings=(*_degraded(baseline, other), *_versions(baseline, other), *_worse(figures)),
    )


def steady_phases(baseline: ComparedRun, other: ComparedRun) -> tuple[str, ...]:
    """Return the phases to compare: the sustained ones that both have, else the stress ones."""
    kinds = {row["phase"]: row["kind"] for row in baseline.seconds}
    shared = [name for name in kinds if any(row["phase"] == name for row in other.seconds)]
    return tuple([name for name in shared if kinds[name] == "sustained"] or shared)


def values_of(run: ComparedRun, phases: Sequence[str], column: str) -> list[list[float]]:
    """Return a column of the seconds, a list for each phase, without seconds that have none."""
    return [
        [row[column] for row in run.seconds if row["phase"] == phase and row[column] is not None]
        for phase in phases
    ]


def _shift(
    baseline: ComparedRun,
    other: ComparedRun,
    phases: Sequence[str],
    metric: str,
    statistic: str,
) -> Shift:
    """Return how a latency moved, without what that says."""
    column = f"{metric.removesuffix('_ms')}_{statistic}_ms"
    before, after = values_of(baseline, phases, column), values_of(other, phases, column)
    flat = [[value for values in series for value in values] for series in (before, after)]
    seconds = (len(flat[0]), len(flat[1]))
    medians = (
        median(flat[0]) if flat[0] else None,
        median(flat[1]) if flat[1] else None,
    )
    if min(seconds) < FEWEST_SECONDS:
        return Shift(metric, statistic, seconds, medians, None, None, "not judged")
    ratio = ratio_of_medians(before, after)
    delta = cliffs_delta(*flat)
    return Shift(metric, statistic, seconds, medians, ratio, delta, "not judged")


def _judged(shifts: Sequence[Shift], min_effect: float) -> tuple[Shift, ...]:
    """Return the latencies with what they say, each in the light of how many there are."""
    ratios = [shift.ratio for shift in shifts if shift.ratio is not None]
    adjusted = iter(holm([ratio.p for ratio in ratios]))
    judged = []
    for shift in shifts:
        if shift.ratio is None:
            judged.append(shift)
            continue
        p = next(adjusted)
        change = change_of(shift.ratio, min_effect, p=p)
        judged.append(replace(shift, change=change, p=p))
    return tuple(judged)


def change_of(ratio: Ratio, min_effect: float, *, p: float) -> Change:
    """Return what a ratio says: a change counts if it is significant and large enough.

    `p` is its p-value, adjusted for those that are judged with it.
    """
    if p >= SIGNIFICANT:
        return "not significant"
    if ratio.ratio >= 1 + min_effect:
        return "slower"
    if ratio.ratio <= 1 / (1 + min_effect):
        return "faster"
    return "below the minimum"


def _unlike(baseline: RunFacts, other: RunFacts) -> list[str]:
    going_on = [facts.record.run_id for facts in (baseline, other) if facts.is_running]
    return [*differences(baseline, other), *(f"{name} is still going on" for name in going_on)]


def _invalid(run: ComparedRun) -> list[str]:
    summary = run.summary
    if summary.running or summary.validity != "invalid":
        return []
    return [f"{summary.run_id} is invalid: {' '.join(summary.validity_reasons)}".rstrip(".")]


def _refuse(baseline: RunFacts, other: RunFacts, reasons: Sequence[str]) -> None:
    if reasons:
        raise NotComparableError(
            f"{baseline.record.run_id} and {other.record.run_id} cannot be compared: "
            f"{'; '.join(reasons)}.",
            hint="--force compares them all the same.",
        )


def _degraded(*runs: ComparedRun) -> list[str]:
    return [
        f"{run.summary.run_id} is degraded: {' '.join(run.summary.validity_reasons)}"
        for run in runs
        if run.summary.validity == "degraded"
    ]


def _versions(baseline: ComparedRun, other: ComparedRun) -> list[str]:
    one, two = baseline.summary.versions, other.summary.versions
    unlike = [
        f"{name} {one[name]} and {two[name]}"
        for name in one
        if one[name] != two.get(name, one[name])
    ]
    return [f"Versions differ: {', '.join(unlike[:_MOST_VERSIONS])}."] if unlike else []


def _worse(figures: Sequence[FigureRow]) -> list[str]:
    """Return what no latency shows: edits that failed or were lost have none."""
    return [
        f"{row.name.capitalize()} rose; the verdict is about latency, which such edits have not."
        for row in figures
        if row.name in ("error rate", "lost edits") and (row.difference or 0) > 0
    ]
