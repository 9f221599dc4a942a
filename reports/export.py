"""The report's files for machines: CSV and JSON by the second, errors, JUnit."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from reports.engine import RunDatabase
from reports.figures import iso_time
from reports.summary import SCHEMA_VERSION, Figures, Summary

_SERIES_DECIMALS = 3
_UNITS = (
    ("_ms", "ms"),
    ("_mb", "MiB"),
    ("_percent", "% of all cores"),
    ("_percent_max", "% of all cores"),
    ("_s", "s"),
    ("_seconds", "s"),
)
_PER_SECOND = ("edits_offered", "edits_completed", "edits_failed", "edits_missed", "deliveries")
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def unit_of(column: str) -> str:
    """Return the unit of a column of a series, by its name; empty for counts and names."""
    if column in _PER_SECOND or column in ("errors", "polls", "polls_failed"):
        return "1/s"
    if column in ("connections_failed", "connections_dropped"):
        return "1/s"
    return next((unit for suffix, unit in _UNITS if column.endswith(suffix)), "")


def metrics_csv(timeline: Mapping[str, list[Any]]) -> bytes:
    """Return the run by the second as CSV: a header with units, then a row for each second.

    Text that a spreadsheet would take for a formula cannot occur: all columns are numbers but
    the time and the phase's label.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    columns = [name for name in timeline if name not in ("second", "phase", "at_us")]
    rows.writerow(["run time (s)", "time (UTC)", "phase", *map(_header, columns)])
    for i, second in enumerate(timeline.get("second", [])):
        rows.writerow(
            [
                second,
                iso_time(timeline["at_us"][i]),
                timeline["phase"][i] or "",
                *(_plain(timeline[name][i]) for name in columns),
            ]
        )
    # Spreadsheets take a file without this mark for their own code page.
    return text.getvalue().encode("utf-8-sig")


def metrics_json(
    database: RunDatabase, summary: Summary, timeline: Mapping[str, list[Any]]
) -> bytes:
    """Return every figure and series of the run as JSON, with units."""
    workers: dict[str, dict[str, list[Any]]] = {}
    for row in database.rows("timeline_workers"):
        series = workers.setdefault(row["worker"], {})
        for name, value in row.items():
            if name not in ("worker", "phase"):
                series.setdefault(name, []).append(_plain(value))
    return _json(
        {
            "schema_version": SCHEMA_VERSION,
            "run_id": summary.run_id,
            "origin": summary.started_at,
            "units": {name: unit_of(name) for name in timeline if unit_of(name)},
            "timeline": {name: [_plain(v) for v in values] for name, values in timeline.items()},
            "workers": workers,
            "errors_by_second": _rows(database, "timeline_errors"),
            "figures": {
                "run": summary.model_dump(mode="json", include=set(Figures.model_fields)),
                "phases": {phase.label: phase.model_dump(mode="json") for phase in summary.phases},
                "workers": {
                    worker.worker: worker.model_dump(mode="json") for worker in summary.workers
                },
            },
            "histograms": {
                name: _rows(database, "latency_histogram", metric=name)
                for name in ("acknowledgement_ms", "delivery_ms", "delivery_between_workers_ms")
            },
            "phases": _rows(database, "phases"),
            "relay": _rows(database, "relay_figures"),
            "connections": _rows(database, "connection_counts"),
            "recoveries": _rows(database, "recoveries"),
            "convergence": _rows(database, "convergence"),
            "expected_deliveries": _rows(database, "expected_deliveries"),
            "clocks": _rows(database, "clock_figures"),
        }
    )


def errors_json(database: RunDatabase, summary: Summary) -> bytes:
    """Return the run's errors as JSON: by type, grouped, of edits, of connections, of parts."""
    return _json(
        {
            "schema_version": SCHEMA_VERSION,
            "run_id": summary.run_id,
            "by_type": _rows(database, "errors_by_type"),
            "groups": _rows(database, "errors_grouped"),
            "edits": _rows(database, "edit_failures"),
            "connections": _rows(database, "connection_causes")[:1000],
            "lost_edits": _rows(database, "lost_edits"),
            "unreadable_parts": summary.samples.unreadable,
            "missing_parts": summary.samples.missing,
        }
    )


def junit_xml(summary: Summary) -> bytes:
    """Return a JUnit file: a test case for each objective, and one for the run's validity."""
    suite = ET.Element("testsuite", name=f"relay-load.{summary.scenario}")
    failures = skipped = 0
    for row in summary.objectives:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"{summary.scenario}.{row.phase or 'run'}",
            name=_xml_text(row.text),
            time="0",
        )
        if row.met is None or not row.counts:
            skipped += 1
            ET.SubElement(case, "skipped", message=_xml_text(row.sentence))
        elif not row.met:
            failures += 1
            ET.SubElement(case, "failure", message=_xml_text(row.sentence), type="objective")
    case = ET.SubElement(
        suite, "testcase", classname=f"{summary.scenario}.run", name="validity", time="0"
    )
    reasons = _xml_text("; ".join(summary.validity_reasons))
    if summary.validity == "invalid":
        failures += 1
        ET.SubElement(case, "failure", message=reasons, type="validity")
    elif reasons:
        ET.SubElement(case, "system-out").text = reasons
    suite.attrib |= {
        "tests": str(len(summary.objectives) + 1),
        "failures": str(failures),
        "errors": "0",
        "skipped": str(skipped),
        "time": f"{summary.duration_s:.3f}",
        "timestamp": summary.started_at,
    }
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _header(column: str) -> str:
    unit = unit_of(column)
    for suffix, name in _UNITS:
        if unit == name and column.endswith(suffix):
            column = column.removesuffix(suffix) + ("_max" if suffix == "_percent_max" else "")
            break
    return f"{column.replace('_', ' ')} ({unit})" if unit else column.replace("_", " ")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _SERIES_DECIMALS) if math.isfinite(value) else None
    return value


def _rows(database: RunDatabase, name: str, **parameters: Any) -> list[dict[str, Any]]:
    return [
        {column: _plain(value) for column, value in row.items()}
        for row in database.rows(name, **parameters)
    ]


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _xml_text(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
