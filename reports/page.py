"""`report.html`: one file that says how a run went."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports.engine import RunDatabase
from reports.summary import Summary
from scenarios.durations import format_duration


def render(database: RunDatabase, summary: Summary) -> bytes:
    """Return the page of a run, whole: it needs no other file and no network."""
    page = _environment().get_template("report.html.jinja")
    return page.render(
        summary=summary, errors=database.rows("errors_grouped"), duration=format_duration
    ).encode()


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment


def _number(value: float | None, decimals: int = 1) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"
