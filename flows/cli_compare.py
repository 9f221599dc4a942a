"""`relay-load compare`: two runs side by side, and whether the second one is slower."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli_options import RESULTS, Json, Results, StoreUrl
from flows.cli_print import new_table, print_json, print_table
from run_store.errors import CannotRunError, UsageError

if TYPE_CHECKING:
    from reports.compare import ComparedRun, Comparison, Shift

EXIT_CODES = {"no regression": 0, "regression": 3, "undecided": 1}
_STYLES = {"no regression": "bold green", "regression": "bold red", "undecided": "bold yellow"}
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def compare(
    run_a: Annotated[
        str, typer.Argument(metavar="RUN_A", help="The baseline: a run's id, or an end of it.")
    ],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run to judge, likewise.")],
    *,
    as_json: Json = False,
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs that differ, or are invalid, as well.")
    ] = False,
    min_effect: Annotated[
        str, typer.Option(metavar="PERCENT", help="The least change that matters.")
    ] = "10%",
    html: Annotated[
        Path | None, typer.Option("--html", dir_okay=False, help="Write a page to this file.")
    ] = None,
    store: StoreUrl = None,
    results: Results = RESULTS,
) -> None:
    """Compare two runs of one scenario, and end with whether the second one is slower."""
    from flows.cli_runs import find_run
    from reports.compare import compare_runs, read_both
    from tasks.stores import opened_store

    least = share_of(min_effect)
    with opened_store(store, results) as opened:
        found_a, found_b = (find_run(opened, run, results=results) for run in (run_a, run_b))
        if opened is None:
            return
        baseline, other = read_both(opened, (found_a, found_b), force=force)
    comparison = compare_runs(baseline, other, min_effect=least, force=force)
    if html is not None:
        _write_page(comparison, html)
    if as_json:
        print_json(as_dict(comparison))
    else:
        _print(comparison)
    raise typer.Exit(EXIT_CODES[comparison.verdict])


def share_of(text: str) -> float:
    """Return a percentage as a share of 1. Raises UsageError if it is none."""
    match = _PERCENT.fullmatch(text.strip())
    if not match:
        raise UsageError(f"--min-effect {text} is no percentage.", hint="Say 10%, for example.")
    return float(match[1]) / 100


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as `--json` prints it."""
    return {
        "verdict": comparison.verdict,
        "headline": comparison.headline,
        "min_effect": comparison.min_effect,
        "baseline": _run(comparison.baseline),
        "other": _run(comparison.other),
        "phases": list(comparison.phases),
        "latencies": [_latency(shift) for shift in comparison.shifts],
        "figures": [
            {
                "name": row.name,
                "unit": row.unit,
                "baseline": row.baseline,
                "other": row.other,
                "difference": row.difference,
                "ratio": row.ratio,
            }
            for row in comparison.figures
        ],
        "differences": list(comparison.differences),
        "warnings": list(comparison.warnings),
    }


def _run(run: ComparedRun) -> dict[str, Any]:
    names = ("run_id", "scenario", "started_at", "relay_url", "verdict", "validity", "versions")
    return {name: getattr(run.summary, name) for name in names}


def _latency(shift: Shift) -> dict[str, Any]:
    ratio = shift.ratio
    return {
        "metric": f"{shift.metric}.{shift.statistic}",
        "change": shift.change,
        "seconds": list(shift.seconds),
        "median_ms": list(shift.medians),
        "ratio": ratio and ratio.ratio,
        "interval_95": ratio and [ratio.low, ratio.high],
        "p": ratio and ratio.p,
        "p_adjusted": shift.p,
        "significant": shift.is_significant,
        "block_s": ratio and list(ratio.blocks),
        "cliffs_delta": shift.delta,
    }


def _print(comparison: Comparison) -> None:
    from reports.wording import date_time, in_unit

    for letter, run in (("A", comparison.baseline), ("B", comparison.other)):
        summary = run.summary
        began = date_time(summary.started_at)
        _say(f"{letter}  {summary.run_id}  {summary.scenario}, {began}, {summary.validity}")
    figures = new_table("figure", "A", "B", "difference", "B / A")
    for row in comparison.figures:
        cells = (in_unit(value, row.unit) for value in (row.baseline, row.other))
        difference = in_unit(row.difference, row.unit)
        sign = "+" if (row.difference or 0) > 0 else ""
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        figures.add_row(row.name, *cells, f"{sign}{difference}", ratio)
    print_table(figures)
    phases = ", ".join(comparison.phases) or "no phase"
    _say(f"\nMedians of per-second values in {phases}:")
    shifts = new_table("", "A", "B", "B / A", "95 % interval", "p", "Cliff's delta", "change")
    for shift in comparison.shifts:
        shifts.add_row(
            f"{shift.metric.removesuffix('_ms')} {shift.statistic}",
            *(in_unit(value, "ms") for value in shift.medians),
            *_judged(shift),
            shift.change,
        )
    print_table(shifts)
    for text in comparison.differences:
        _say(f"not comparable: {text}", "bold yellow")
    for text in comparison.warnings:
        _say(f"warning: {text}", "yellow")
    _say(comparison.headline, _STYLES[comparison.verdict])


def _judged(shift: Shift) -> tuple[str, str, str, str]:
    ratio = shift.ratio
    if ratio is None or shift.delta is None or shift.p is None:
        return "-", f"{shift.seconds[0]} and {shift.seconds[1]} s are too few", "-", "-"
    interval = f"{ratio.low:.3f} to {ratio.high:.3f}"
    return f"{ratio.ratio:.3f}", interval, f"{shift.p:.2g}", f"{shift.delta:+.2f}"


def _say(text: str, style: str = "") -> None:
    Console().print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _write_page(comparison: Comparison, file: Path) -> None:
    from reports.compare_page import render_comparison

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(render_comparison(comparison))
    except OSError as error:
        raise CannotRunError(f"{file} cannot be written: {error}.") from None
