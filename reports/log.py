"""`test.log`: the run's summary as text that reads well in a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from reports.summary import Distribution, ObjectiveRow, PhaseSummary, Summary
from run_store.messages import RECONNECT
from scenarios.durations import format_duration

_DASH = "-"


def log_text(summary: Summary) -> str:
    """Return the whole summary as plain text, at most a hundred columns where it can be."""
    sections = [
        _head(summary),
        _section("Objectives", _objectives(summary)),
        _section("Validity", [f"{e.level}: {e.sentence}" for e in summary.validity_evidence]),
        _section("Findings", [f"{found.severity}: {found.sentence}" for found in summary.findings]),
        _section("Load", _load(summary)),
        _section("Latency, ms (from the intended time, all samples pooled)", _latencies(summary)),
        _section("Phases", _phases(summary)),
        _section("Workers", _workers(summary)),
        _section("Relay", _relay(summary)),
        _section("Errors", _errors(summary)),
        _section("Problems", summary.problems),
    ]
    return printable("\n\n".join(section for section in sections if section)) + "\n"


def printable(text: str) -> str:
    """Return text without control characters: an error message must not steer a terminal."""
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)


def _head(summary: Summary) -> str:
    verdict = summary.verdict.upper() + (", still running" if summary.running else "")
    lines = [
        f"{verdict}  ({summary.validity})  {summary.scenario}  {summary.run_id}",
        (
            f"{summary.started_at}, {format_duration(summary.duration_s)}, {summary.relay_url}, "
            f"{len(summary.workers)} workers ({summary.fleet})"
        ),
    ]
    if summary.validity == "invalid":
        lines.append("These figures cannot be believed; see Validity.")
    if summary.cost.estimated_usd is not None or summary.cost.actual_usd is not None:
        lines.append(
            f"cost: {_number(summary.cost.actual_usd, 2)} USD, "
            f"estimated {_number(summary.cost.estimated_usd, 2)} USD"
        )
    return "\n".join(lines)


def _objectives(summary: Summary) -> list[str]:
    return [f"{_mark(row)}  {row.sentence}" for row in summary.objectives] or ["none were set"]


def _mark(row: ObjectiveRow) -> str:
    if row.met is None:
        return "open  "
    return ("met   " if row.met else "MISSED") if row.counts else "bound "


def _load(summary: Summary) -> list[str]:
    edits, connections, deliveries = summary.edits, summary.connections, summary.deliveries
    rate = "-" if edits.error_rate is None else f"{edits.error_rate * 100:.3g} %"
    lines = [
        (
            f"connections  target {connections.target}, peak {connections.peak}, healthy "
            f"{_number(connections.healthy, 1)} (score {_number(connections.health_score, 1)} %), "
            f"failed {connections.failed}, dropped {connections.dropped}, "
            f"recovered {connections.recovered}, not back {summary.not_recovered}"
        ),
        (
            f"edits        offered {edits.offered}, completed {edits.completed}, "
            f"failed {edits.failed} ({rate}), missed {edits.missed}, "
            f"lost {_number(edits.lost, 0)}, {_number(edits.per_second, 2)}/s"
        ),
        (
            f"deliveries   {deliveries.count:,} seen, {deliveries.delivered:,} of "
            f"{deliveries.expected:,} expected, {deliveries.repeats:,} repeated"
        ),
    ]
    if summary.sync.replicas:
        lines.append(
            f"replicas     {summary.sync.replicas} looked at, {summary.sync.diverged} diverged, "
            f"converged {_number(summary.sync.converged_max_ms, 0)} ms after the last edit"
        )
    return lines


def _latencies(summary: Summary) -> list[str]:
    named: list[tuple[str, Distribution]] = [
        ("acknowledgement", summary.acknowledgement_ms),
        ("  from its start", summary.acknowledgement_service_ms),
        ("delivery", summary.delivery_ms),
        ("  from its start", summary.delivery_service_ms),
        ("  between workers", summary.delivery_between_workers_ms),
        ("handshake", summary.handshake_ms),
    ]
    rows = [
        [
            name,
            *(_number(v, 1) for v in (d.min, d.mean, d.p50, d.p95, d.p99, d.max)),
            f"{d.count:,}",
        ]
        for name, d in named
        if d.count
    ]
    return _table(["", "min", "mean", "p50", "p95", "p99", "max", "count"], rows)


def _is_done(phase: PhaseSummary) -> bool:
    """Say whether a phase is complete; what a retry reconnects with is of no scenario's phases."""
    return phase.complete or phase.name == RECONNECT


def _phases(summary: Summary) -> list[str]:
    rows = [
        [
            phase.label + ("" if _is_done(phase) else " (not complete)"),
            format_duration((phase.to_s or 0) - (phase.from_s or 0)),
            str(phase.connections.peak),
            str(phase.edits.completed),
            str(phase.edits.failed),
            _number(phase.acknowledgement_ms.p95, 1),
            _number(phase.delivery_ms.p95, 1),
            str(phase.connections.dropped),
        ]
        for phase in summary.phases
    ]
    head = ["", "length", "open", "edits", "failed", "ack p95", "delivery p95", "dropped"]
    return _table(head, rows)


def _workers(summary: Summary) -> list[str]:
    rows = [
        [
            worker.worker + (" (lost)" if worker.lost else ""),
            _number(worker.connections_peak, 0),
            str(worker.edits_completed),
            _number(worker.delivery_ms.p95, 1),
            _number(worker.cpu_max_percent, 0),
            _number(worker.agent_memory_max_mb, 0),
            _number(worker.browser_memory_max_mb, 0),
            _number(worker.lateness_p99_ms, 1),
            f"{worker.errors:,}",
        ]
        for worker in summary.workers
    ]
    head = ["", "open", "edits", "delivery p95", "cpu %", "agent MiB", "browsers MiB"]
    return _table([*head, "late p99", "errors"], rows)


def _relay(summary: Summary) -> list[str]:
    relay = summary.relay
    if not relay.polls:
        return ["its /metrics was not sampled"]
    return [
        (
            f"memory {_number(relay.memory_start_mb, 1)} -> {_number(relay.memory_end_mb, 1)} MiB "
            f"(growth {_number(relay.memory_growth_mb, 1)}), connections at most "
            f"{_number(relay.peak_connections, 0)}, polls {relay.polls}, failed "
            f"{_number(relay.polls_failed, 0)}, restarts {relay.restarts}"
        )
    ]


def _errors(summary: Summary) -> list[str]:
    lines = [f"{count:,} x {kind}" for kind, count in list(summary.errors.by_type.items())[:20]]
    lines += [
        f"{count:,} edits failed: {kind}"
        for kind, count in list(summary.errors.edits_by_type.items())[:20]
    ]
    return lines or ["none"]


def _section(title: str, lines: Iterable[str]) -> str:
    body = [f"  {line}" for line in lines]
    return "\n".join([title, _DASH * len(title), *body]) if body else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"
