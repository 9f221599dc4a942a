"""`relay-load trend`: capacity and latencies over the runs of a scenario, and their changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli_options import RESULTS, Json, Results, StoreUrl
from flows.cli_print import new_table, print_json, print_table
from run_store.errors import CannotRunError, UsageError

if TYPE_CHECKING:
    from reports.history import Line
    from reports.trend import Trend

_BARS = "▁▂▃▄▅▆▇█"
_REGRESSED = 3


def trend(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario's name; without it, the only one there is.")
    ] = None,
    *,
    html: Annotated[
        Path | None, typer.Option("--html", dir_okay=False, help="Write a page to this file.")
    ] = None,
    allowed_fall: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The fall that is none yet: 0.1 (the default) is 10 %."),
    ] = None,
    as_json: Json = False,
    store: StoreUrl = None,
    results: Results = RESULTS,
) -> None:
    """Show a scenario's capacity over all runs, and end with whether it has fallen."""
    from reports.history import lines
    from reports.trend import FALL, trend_of
    from tasks.stores import opened_store

    with opened_store(store, results) as opened:
        known = lines(opened) if opened else []
    name = scenario_of(known, scenario, where=str(store or results))
    of_scenario = [line for line in known if line.scenario == name]
    told = trend_of(of_scenario, allowed_fall=FALL if allowed_fall is None else allowed_fall)
    if html is not None:
        _write_page(told, name, html)
    if as_json:
        print_json(as_dict(told, name))
    else:
        _print(told, name)
    if told.has_regressed:
        raise typer.Exit(_REGRESSED)


def scenario_of(known: Sequence[Line], asked: str | None, *, where: str) -> str:
    """Return the scenario that is meant. Raises CannotRunError, UsageError."""
    names = sorted({line.scenario for line in known})
    if asked in names:
        return str(asked)
    if asked is not None or not names:
        of = f" of {asked}" if asked else ""
        others = f" There is one of {', '.join(names)}." if names else ""
        search = f"relay-load capacity {asked or 'SCENARIO'}"
        raise CannotRunError(
            f"There is no history{of} in {where}.{others}",
            hint=f"Each capacity search adds a point to it: {search}. --store names another store.",
        )
    if len(names) > 1:
        raise UsageError(
            f"There is a history of {', '.join(names)}.",
            hint=f"Say one: relay-load trend {names[0]}.",
        )
    return names[0]


def as_dict(told: Trend, scenario: str) -> dict[str, Any]:
    """Return a trend as `--json` prints it."""
    return {
        "scenario": scenario,
        "sentence": told.sentence,
        "regressed": told.has_regressed,
        "median": told.median,
        "compared_with": told.compared_with,
        "fall": told.fall,
        "allowed_fall": told.allowed_fall,
        "runs": [asdict(line) for line in told.lines],
        "changes": [{**asdict(change), "share": change.share} for change in told.changes],
        "left_out": [{"run_id": left.line.run_id, "why": left.why} for left in told.left_out],
    }


def sparkline(values: Sequence[float | None]) -> str:
    """Return a bar for each value, from zero to the largest; a gap where there is none."""
    top = max((value for value in values if value is not None), default=0.0)
    if top <= 0:
        return ""
    steps = len(_BARS) - 1
    return "".join(" " if value is None else _BARS[round(value / top * steps)] for value in values)


def _print(told: Trend, scenario: str) -> None:
    from reports.trend_page import began, capacity_text, change_text, level_of
    from reports.wording import in_unit

    changed = {change.run_id: change for change in told.changes}
    table = new_table("run", "began (UTC)", "capacity", "delivery p95", "ack p95", "version", "")
    for line in told.lines:
        change = changed.get(line.run_id)
        table.add_row(
            line.run_id,
            began(line),
            capacity_text(line),
            in_unit(line.delivery_p95_ms, "ms"),
            in_unit(line.acknowledgement_p95_ms, "ms"),
            line.relay_version or "-",
            f"{change.share:+.0%} from here" if change else "",
        )
    print_table(table)
    bars = sparkline([level_of(line) for line in told.lines])
    _say(f"\n{scenario}, capacity from zero: {bars}")
    for change in told.changes:
        _say(change_text(change))
    for left in told.left_out:
        _say(f"left out: {left.line.run_id}, because {left.why}", "yellow")
    _say(told.sentence, "bold red" if told.has_regressed else "bold")


def _say(text: str, style: str = "") -> None:
    Console().print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _write_page(told: Trend, scenario: str, file: Path) -> None:
    from reports.trend_page import render_trend

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(render_trend(told, scenario))
    except OSError as error:
        raise CannotRunError(f"{file} cannot be written: {error}.") from None
