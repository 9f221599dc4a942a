"""`report.html`: one file that says how a run went."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from reports import wording
from reports.capacity_chart import capacity_section
from reports.charts import ChartSet, chart_set
from reports.engine import RunDatabase, query_answers, query_names, query_text
from reports.findings.finding import SEVERITIES
from reports.headline import headline_of
from reports.stress import capacity_of
from reports.summary import Summary
from reports.templating import environment, source

_MOST_WORKERS = 200
_MOST_LISTED = 100
_MOST_FINDINGS = 200
_MOST_DOCUMENTS = 50


def render(database: RunDatabase, summary: Summary) -> bytes:
    """Return the page of a run, whole: it needs no other file and no network.

    Its size is bounded for any run: series have at most `charts.POINTS` values, and every list
    is cut at a length that the page then says.
    """
    drawn = chart_set(database)
    script = f"{source('templates', 'vendor', 'uPlot.iife.min.js')}\n{_script()}"
    findings = _findings(database, summary)
    body = (
        environment()
        .get_template("report.html.jinja")
        .render(
            summary=summary,
            headline=headline_of(summary),
            drawn=drawn,
            capacity=_capacity(database),
            findings=findings,
            most_findings=_MOST_FINDINGS,
            most_workers=_MOST_WORKERS,
            most_listed=_MOST_LISTED,
            errors=database.rows("errors_grouped"),
            documents=[
                row for row in database.rows("convergence") if row["diverged"] or row["states"] > 1
            ][:_MOST_DOCUMENTS],
            scenario=wording.toml(database.facts.record.scenario),
            queries=[(name, query_answers(name), query_text(name)) for name in query_names()],
            origin_us=database.origin_us,
            data=_json(_data(database, summary, drawn, findings)),
            style=Markup(source("templates", "vendor", "uPlot.min.css") + _style()),  # noqa: S704 - ours
            script=Markup(script),  # noqa: S704 - ours
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return body.encode()


def _capacity(database: RunDatabase) -> Markup | None:
    found = capacity_of(database.facts)
    return capacity_section(*found) if found else None


def _findings(database: RunDatabase, summary: Summary) -> list[dict[str, Any]]:
    """Return the gravest findings in the order of time, numbered as the charts number them."""
    gravest = sorted(summary.findings, key=lambda f: -SEVERITIES.index(f.severity))
    shown = sorted(gravest[:_MOST_FINDINGS], key=lambda f: (f.started_us, f.kind))
    return [
        {
            **finding.model_dump(),
            "number": place,
            "from_s": (finding.started_us - database.origin_us) / 1e6,
            "to_s": (finding.ended_us - database.origin_us) / 1e6,
        }
        for place, finding in enumerate(shown, start=1)
    ]


def _data(
    database: RunDatabase, summary: Summary, drawn: ChartSet, findings: list[dict[str, Any]]
) -> dict[str, Any]:
    quantiles = {
        "acknowledgement": summary.acknowledgement_ms,
        "delivery": summary.delivery_ms,
    }
    return {
        "origin_ms": round(database.origin_us / 1000),
        "at_s": drawn.at_s,
        "point_s": drawn.point_s,
        "phases": [
            {"name": phase.name, "kind": phase.kind, "from_s": phase.from_s, "to_s": phase.to_s}
            for phase in summary.phases
            if phase.from_s is not None and phase.to_s is not None
        ],
        "findings": [
            {key: finding[key] for key in ("number", "severity", "from_s", "to_s")}
            for finding in findings
        ],
        "charts": [
            {
                "key": chart.key,
                "unit": chart.unit,
                "has_log": chart.has_log,
                "alarms": chart.alarms,
                "series": [
                    {"label": s.label, "role": s.role, "unit": s.unit, "values": s.values}
                    for s in chart.series
                    if not s.is_empty
                ],
            }
            for chart in drawn.charts
        ],
        "maps": [
            {
                **asdict(latency_map),
                "quantiles": {
                    name: getattr(quantiles[latency_map.key], name)
                    for name in ("p50", "p95", "p99")
                },
            }
            for latency_map in drawn.maps
        ],
    }


def _json(value: object) -> Markup:
    """Return JSON that can stand inside a script element: no text in it can end that element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(  # noqa: S704 - escaped here
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    )


def _script() -> str:
    return "{\n" + source("page", "report.js") + "}\n"


def _style() -> str:
    return source("page", "report.css")
