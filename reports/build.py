"""The report of a run: everything computed, written to the bucket and to a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.capacity import saturation_of
from reports.capacity_chart import capacity_facts
from reports.circumstances import clock_of, errors_of, lost_workers_of, samples_of
from reports.engine import RunDatabase, open_run
from reports.evidence import gather
from reports.export import errors_json, junit_xml, metrics_csv, metrics_json
from reports.facts import RunFacts
from reports.figures import iso_time, run_figures
from reports.findings import find
from reports.log import log_text
from reports.objectives import judge_objectives
from reports.page import render
from reports.stress import capacity_of
from reports.summary import AttemptSummary, Cost, Summary
from reports.validity import judge_validity, validity_of
from reports.verdict import verdict_of
from run_store.layout import RunLayout
from run_store.store import Store

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".xml": "application/xml",
}


def build_report(store: Store, run_id: str, *, into: Path | None = None) -> Summary:
    """Compute a run's report from the bucket, write its files there and into a folder.

    Works on a run that still goes on, and on one without any sample. Raises NoSuchRunError,
    and StoreError if the store refuses or does not answer.
    """
    with open_run(store, run_id) as database:
        summary = summarise(database)
        files = report_files(database, summary)
    for name, body in files.items():
        store.put(
            RunLayout(run_id).report(name), body, content_type=CONTENT_TYPES[Path(name).suffix]
        )
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(body)
    return summary


def report_files(database: RunDatabase, summary: Summary) -> Mapping[str, bytes]:
    """Return the report's files by name; `summary.json` last, so that it marks a whole report."""
    timeline = database.columns("timeline_1s")
    return {
        "metrics.csv": metrics_csv(timeline),
        "metrics.json": metrics_json(database, summary, timeline),
        "errors.json": errors_json(database, summary),
        "test.log": log_text(summary).encode(),
        "junit.xml": junit_xml(summary),
        "report.html": render(database, summary),
        "summary.json": summary.model_dump_json(indent=2).encode() + b"\n",
    }


def summarise(database: RunDatabase) -> Summary:
    """Return a run's summary: figures, verdict and validity."""
    record = database.facts.record
    figures = run_figures(database)
    objectives = judge_objectives(database, figures)
    verdict = verdict_of(objectives)
    ended_s = max((phase.to_s or 0.0 for phase in figures.phases), default=0.0)
    began_us = database.origin_us
    draft = Summary(
        **{name: getattr(figures.run, name) for name in type(figures.run).model_fields},
        run_id=record.run_id,
        scenario=str(record.scenario.get("name", "")),
        fleet=record.fleet,
        relay_url=record.relay_url,
        state=_state(database.facts),
        running=database.facts.is_running,
        passed=False,
        verdict=verdict,
        validity="invalid",
        started_at=iso_time(began_us) or "",
        ended_at=None
        if database.facts.is_running
        else iso_time(record.ended_us or began_us + round(ended_s * 1e6)),
        duration_s=ended_s,
        objectives=objectives,
        phases=list(figures.phases),
        workers=list(figures.workers),
        lost_workers=lost_workers_of(database),
        not_recovered=database.row("not_recovered")["connections"],
        errors=errors_of(database),
        clock=clock_of(database),
        cost=_cost(database),
        capacity=_capacity(database),
        samples=samples_of(database),
        attempts=[
            AttemptSummary(
                number=attempt.number,
                started_at=iso_time(attempt.started_us) or "",
                ended_at=iso_time(attempt.ended_us),
                workers=attempt.workers,
                error=attempt.error,
            )
            for attempt in record.attempts
        ],
        versions=_versions(database),
        problems=[
            *record.problems,
            *(f"{key} cannot be read" for key in database.facts.unreadable),
        ],
    )
    said = judge_validity(gather(database, draft))
    validity = validity_of(said)
    return draft.model_copy(
        update={
            "validity": validity,
            "validity_evidence": said,
            "validity_reasons": [entry.sentence for entry in said if entry.level != "note"],
            "findings": find(database),
            "passed": verdict == "passed" and validity != "invalid",
        }
    )


def _cost(database: RunDatabase) -> Cost:
    record = database.facts.record
    minutes = database.row("connection_minutes")["connection_minutes"]
    usd = record.actual_usd
    return Cost(
        estimated_usd=record.estimate_usd,
        actual_usd=usd,
        usd_per_1000_connection_minutes=usd / minutes * 1000 if usd and minutes else None,
    )


def _state(facts: RunFacts) -> str:
    """Return how a run stands with this report: one whose load has ended well is reported."""
    over = facts.record.state == "running" and not facts.is_running
    return "reported" if over else facts.record.state


def _capacity(database: RunDatabase) -> dict[str, Any] | None:
    found = capacity_of(database.facts)
    if found is None:
        return None
    result, steps = found
    return capacity_facts(result, saturation_of(steps, result))


def _versions(database: RunDatabase) -> dict[str, str]:
    """Return the versions that the run and its workers tell; a worker's own where they differ."""
    versions = dict(database.facts.record.versions)
    for status in database.facts.statuses:
        for name, version in status.versions.items():
            if versions.setdefault(name, version) != version:
                versions[f"{name} ({status.worker})"] = version
    return versions
