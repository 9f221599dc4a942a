"""`relay-load estimate`: what a run will cost, line by line, before anything is started."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli_options import RESULTS, Json, Overrides, Results, StoreUrl
from flows.cli_print import new_table, print_json, print_table

if TYPE_CHECKING:
    from scenarios.model import Scenario
    from tasks.calibration import Advice
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
    store: StoreUrl = None,
    results: Results = RESULTS,
) -> None:
    """Say what a run will cost, and whether its workers are enough by their calibration."""
    from scenarios.loading import load_scenario, overrides_from, scenario_names
    from tasks.cost import check_budget

    loaded = [
        load_scenario(name, overrides_from(overrides or []))
        for name in ([scenario] if scenario else scenario_names())
    ]
    rows = list(_rows(loaded, asks_aws=not table, store_url=store, results=results))
    if as_json:
        shown = [row.as_json() for row in rows]
        print_json(shown[0] if scenario else shown)
    else:
        for row in rows:
            row.show(Console())
    for row in rows:
        if row.scenario.fleet.kind == "ec2":
            check_budget(row.scenario, row.cost)


@dataclass(frozen=True)
class _Row:
    """One scenario: its cost, what calibrations say of its workers, the cost of as many as that."""

    scenario: Scenario
    cost: Estimate | None
    advice: Advice
    cost_as_advised: Estimate | None = None

    def show(self, console: Console) -> None:
        from tasks.budget import in_words

        line = f"[bold]{self.scenario.name}[/]: {self.scenario.summary_line()}"
        console.print(line, highlight=False)
        if self.cost is not None and self.cost.items:
            _print_items(self.cost)
        console.print(in_words(self.cost), highlight=False, soft_wrap=True)
        if self.advice.sentence:
            console.print(
                f"Workers: {self.advice.sentence}",
                style="yellow" if self.advice.is_warning else None,
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        needed = self.advice.needed
        if needed is not None and self.cost_as_advised is not None:
            console.print(
                f"With {needed.needed} of them it costs {in_words(self.cost_as_advised)}",
                highlight=False,
                soft_wrap=True,
            )

    def as_json(self) -> dict[str, Any]:
        scenario, cost = self.scenario, self.cost
        return {
            "scenario": scenario.name,
            "fleet": scenario.fleet.kind,
            "region": scenario.fleet.region,
            "workers": scenario.fleet.workers,
            "usd": round(cost.usd, 4) if cost else None,
            "usd_per_hour": round(cost.usd_per_hour, 4) if cost else None,
            "max_usd": scenario.max_usd,
            "max_usd_per_hour": scenario.max_usd_per_hour,
            "prices": cost.source if cost else None,
            "items": [{**asdict(item), "usd": round(item.usd, 4)} for item in cost.items]
            if cost
            else [],
            "calibration": self._calibration(),
        }

    def _calibration(self) -> dict[str, Any] | None:
        needed, as_advised = self.advice.needed, self.cost_as_advised
        if needed is None:
            return {"why_not": self.advice.why_not} if self.advice.why_not else None
        known = needed.calibration
        return {
            "workers": needed.needed,
            "too_few": needed.is_too_few,
            "usd": round(as_advised.usd, 4) if as_advised else None,
            "sentence": needed.sentence,
            "measured": needed.date,
            "worker_kind": known.worker_kind,
            "connections": known.connections,
            "edits_per_s": known.edits_per_s,
            "at_least": known.is_at_least,
            "run_id": known.run_id,
        }


def _rows(
    scenarios: list[Scenario], *, asks_aws: bool, store_url: str | None, results: Path
) -> Iterator[_Row]:
    from tasks.budget import prices_for
    from tasks.calibration import advice_from
    from tasks.cost import estimate as estimate_of
    from tasks.prices import TABLE

    with advice_from(store_url, results) as advise:
        for scenario in scenarios:
            kind = scenario.fleet.kind
            prices = asyncio.run(prices_for(scenario, kind)) if asks_aws else TABLE
            cost, told = estimate_of(scenario, prices=prices), advise(scenario, kind)
            other = None
            if kind == "ec2" and told.needed and told.needed.needed != scenario.fleet.workers:
                fleet = scenario.fleet.model_copy(update={"workers": told.needed.needed})
                as_advised = scenario.model_copy(update={"fleet": fleet})
                other = estimate_of(as_advised, prices=prices)
            yield _Row(scenario, cost, told, other)


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
