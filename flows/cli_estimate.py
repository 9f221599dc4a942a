"""`relay-load estimate`: what a run will cost, line by line, before anything is started."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli_options import Json, Overrides
from flows.cli_print import new_table, print_json, print_table

if TYPE_CHECKING:
    from scenarios.model import Scenario
    from tasks.cost import Estimate

SEED_USD = {"baseline": 0.10, "moderate": 0.50, "heavy": 1.70, "stress": 2.70}
"""What these scenarios were first said to cost, to be compared with."""
TIMES = "\N{MULTIPLICATION SIGN}"
BEGIN, END = "<!-- estimates: begin -->", "<!-- estimates: end -->"


def estimate(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario's name or file; all that there are without.")
    ] = None,
    *,
    overrides: Overrides = None,
    as_json: Json = False,
    table: Annotated[
        bool, typer.Option("--table", help="Use the project's own prices; do not ask AWS.")
    ] = False,
) -> None:
    """Say what a run will cost, by the prices of now where AWS can be asked."""
    from scenarios.loading import load_scenario, overrides_from, scenario_names
    from tasks.budget import estimated, in_words
    from tasks.cost import check_budget
    from tasks.cost import estimate as by_table

    names = [scenario] if scenario else scenario_names()
    rows = []
    for name in names:
        loaded = load_scenario(name, overrides_from(overrides or []))
        kind = loaded.fleet.kind
        cost = by_table(loaded) if table else asyncio.run(estimated(loaded, kind))
        rows.append((loaded, cost))
    if as_json:
        shown = [_as_json(loaded, cost) for loaded, cost in rows]
        print_json(shown[0] if scenario else shown)
    else:
        for loaded, cost in rows:
            Console().print(f"[bold]{loaded.name}[/]: {loaded.summary_line()}", highlight=False)
            if cost is not None and cost.items:
                _print_items(cost)
            Console().print(in_words(cost), highlight=False, soft_wrap=True)
    for loaded, cost in rows:
        if loaded.fleet.kind == "ec2":
            check_budget(loaded, cost)


def _print_items(cost: Estimate) -> None:
    shown = new_table("what", "count", "hours", "$ an hour", "$")
    for item in cost.items:
        shown.add_row(
            item.what,
            f"{item.count:g}",
            f"{item.hours:.2f}",
            f"{item.usd_per_hour:.4f}",
            f"{item.usd:.3f}",
        )
    print_table(shown)


def _as_json(scenario: Scenario, cost: Estimate | None) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "fleet": scenario.fleet.kind,
        "region": scenario.fleet.region,
        "usd": round(cost.usd, 4) if cost else None,
        "usd_per_hour": round(cost.usd_per_hour, 4) if cost else None,
        "max_usd": scenario.max_usd,
        "max_usd_per_hour": scenario.max_usd_per_hour,
        "prices": cost.source if cost else None,
        "items": [{**asdict(item), "usd": round(item.usd, 4)} for item in cost.items]
        if cost
        else [],
    }


def arithmetic() -> str:
    """Return the arithmetic of each rented scenario by the project's own prices, as Markdown."""
    from scenarios.loading import load_scenario
    from tasks.cost import OVERHEAD_S
    from tasks.cost import estimate as by_table

    lines = [
        f"| | machines {TIMES} hours | each an hour: machine, volume, address, S3 | data | | was |",
        "|---|---|---|---|---|---|",
    ]
    for name, seed_usd in SEED_USD.items():
        scenario = load_scenario(name)
        cost = by_table(scenario)
        if cost is None:
            continue
        minutes = (scenario.duration_s + OVERHEAD_S) / 60
        *each, data = cost.items
        prices = " + ".join(f"{item.usd_per_hour:.4f}" for item in each)
        per_machine = sum(item.usd_per_hour for item in each)
        lines.append(
            f"| {name} | {each[0].count:g} {TIMES} {minutes:g} min / 60 | {prices} = "
            f"${per_machine:.4f} ({each[0].what}) | ${data.usd:.2f} | **${cost.usd:.2f}** | "
            f"${seed_usd:.2f}, {cost.usd / seed_usd:.2f} of it |"
        )
    return "\n".join(lines)


def write_arithmetic(document: Path) -> None:
    """Put the arithmetic between the marks of a document."""
    text = document.read_text(encoding="utf-8")
    block = f"{BEGIN}\n{arithmetic()}\n{END}"
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    document.write_text(re.sub(pattern, lambda _: block, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    write_arithmetic(Path(sys.argv[1]))
