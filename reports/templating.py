"""What all pages share: the templates' environment and the style."""

from __future__ import annotations

import functools
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports import wording
from scenarios.durations import format_duration


@functools.cache
def environment() -> Environment:
    """Return the environment of the templates: it escapes, and a name that is not there fails."""
    made = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=wording.number,
        share=wording.share,
        run_time=wording.run_time,
        clock_time=wording.clock_time,
        date_time=wording.date_time,
        dollars=wording.dollars,
        plural=wording.plural,
        in_unit=wording.in_unit,
        duration=format_duration,
    )
    made.globals["figure"] = wording.figure
    return made


def source(*path: str) -> str:
    """Return the text of a file of this package."""
    return resources.files("reports").joinpath(*path).read_text(encoding="utf-8")
