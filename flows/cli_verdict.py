"""How a run ended, for the command line: the verdict's table, from `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scenarios.durations import format_duration

COLOURS = {"passed": "green", "failed": "red", "valid": "green", "degraded": "yellow"}
FINDINGS_SHOWN = 5


def print_verdict(console: Console, summary: Mapping[str, Any], *, report: Path | None) -> None:
    """Print objectives, main figures, findings and where the report is."""
    verdict, validity = str(summary.get("verdict")), str(summary.get("validity"))
    console.print(
        f"\n[bold]{escape(str(summary.get('scenario')))}[/] {_coloured(verdict)}, "
        f"{_coloured(validity)}   {escape(str(summary.get('run_id')))}, "
        f"{format_duration(_number(summary.get('duration_s')) or 0)}"
    )
    found = _table(summary, "capacity")
    if found.get("sentence"):
        title = escape(str(found.get("title", "Capacity")).lower())
        console.print(f"[bold]{title}[/] {escape(str(found['sentence']))}", soft_wrap=True)
    console.print(_objectives(summary))
    figures = Table.grid(padding=(0, 2))
    for name, value in figures_of(summary):
        figures.add_row(f"[dim]{name}[/]", escape(value))
    console.print(figures)
    findings = summary.get("findings") or []
    for finding in findings[:FINDINGS_SHOWN]:
        console.print(f"[yellow]finding[/] {escape(_finding(finding))}", soft_wrap=True)
    if len(findings) > FINDINGS_SHOWN:
        console.print(f"[dim]and {len(findings) - FINDINGS_SHOWN} more findings in the report[/]")
    if validity in ("degraded", "invalid"):
        console.rule(style="bold yellow")
        console.print(f"[bold yellow]{validity.upper()}: {_meaning(validity)}[/]", soft_wrap=True)
        for reason in summary.get("validity_reasons") or []:
            console.print(f"[yellow]- {escape(str(reason))}[/]", soft_wrap=True)
        console.rule(style="bold yellow")
    if report is not None:
        console.print(f"Report: {report}", markup=False, highlight=False, soft_wrap=True)


def figures_of(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the main figures as names and values with their units."""
    connections = _table(summary, "connections")
    edits, relay = _table(summary, "edits"), _table(summary, "relay")
    errors = _table(summary, "errors", "by_type")
    cost = _table(summary, "cost")
    rate = _number(edits.get("error_rate"))
    failed = _shown(edits.get("failed")) + ("" if rate is None else f" ({rate:.2%})")
    done = f"{_shown(edits.get('completed'))} of {_shown(edits.get('offered'))} completed"
    peak = f"peak {_shown(connections.get('peak'))} of {_shown(connections.get('target'))}"
    memory = [_shown(relay.get(f"memory_{when}_mb")) for when in ("start", "end")]
    usd = [_shown(cost.get(f"{which}_usd"), 2) for which in ("estimated", "actual")]
    named = ", ".join(f"{kind} {_shown(count)}" for kind, count in errors.items())
    return [
        ("connections", peak),
        ("edits", f"{done}, {failed} failed, {_shown(edits.get('per_second'))}/s"),
        ("acknowledgement", _distribution(_table(summary, "acknowledgement_ms"))),
        ("delivery", _distribution(_table(summary, "delivery_ms"))),
        ("relay memory", f"{memory[0]} MB at the start, {memory[1]} MB at the end"),
        ("relay polls", f"{_shown(relay.get('polls_failed'))} failed"),
        ("errors", named or "none"),
        ("cost", f"estimated {usd[0]}, actual {usd[1]} US dollars"),
    ]


def _objectives(summary: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("objective", "wanted", "got", "met"):
        table.add_column(name)
    for row in summary.get("objectives") or []:
        met = {True: "[green]yes[/]", False: "[red]no[/]"}.get(row.get("met"), "[dim]-[/]")
        table.add_row(
            escape(str(row.get("text", ""))),
            escape(_shown(row.get("wanted"))),
            escape(_shown(row.get("got"))),
            met,
        )
    return table


def _finding(finding: Any) -> str:
    if not isinstance(finding, Mapping):
        return str(finding)
    text = next((finding[key] for key in ("sentence", "title", "text") if finding.get(key)), "")
    return f"{finding.get('severity', '')}: {text}".removeprefix(": ")


def _meaning(validity: str) -> str:
    if validity == "invalid":
        return "these figures cannot be believed; they say nothing about the relay"
    return "the generator was not at its best; take these figures with care"


def _coloured(word: str) -> str:
    return f"[bold {COLOURS.get(word, 'red')}]{word.upper()}[/]"


def _distribution(values: Mapping[str, Any]) -> str:
    shown = [f"{name} {_shown(values.get(name))}" for name in ("p50", "p95", "p99", "max")]
    return f"{', '.join(shown)} ms, of {_shown(values.get('count'))}"


def _table(summary: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    found: Any = summary
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(value: Any, digits: int = 1) -> str:
    """Return a figure for people; `-` where there is none."""
    number = _number(value)
    if number is None:
        return "-" if value is None else str(value)
    return f"{number:,.0f}" if number == round(number) and digits == 1 else f"{number:,.{digits}f}"
