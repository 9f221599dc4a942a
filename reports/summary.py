"""`summary.json`: its model, and the JSON Schema that is published from it.

`python -m reports.summary` writes the schema beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reports.findings.finding import Finding

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("summary.schema.json")

Verdict = Literal["passed", "failed"]
Validity = Literal["valid", "degraded", "invalid"]
Number = int | float
"""A count that is whole unless samples were thinned."""


class Part(BaseModel):
    """Base of all parts of a summary: nothing unknown, nothing changed after it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Distribution(Part):
    """A latency over pooled samples, in milliseconds; all null when `count` is 0.

    Quantiles are exact, linear between closest ranks (Hyndman and Fan's type 7).
    """

    count: Number = 0
    min: float | None = None
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class Connections(Part):
    """Connections: planned, reached, kept. `healthy`: open with the last edit acknowledged."""

    target: int = Field(default=0, description="largest number planned")
    peak: int = Field(default=0, description="largest number open in one second")
    healthy: float | None = Field(
        default=None, description="mean over the seconds of sustained, stress and storm phases"
    )
    health_score: float | None = Field(
        default=None, ge=0, le=100, description="mean share of the target that was healthy, percent"
    )
    attempted: int = Field(default=0, description="sockets opened")
    failed: int = Field(default=0, description="tries that ended before the handshake")
    dropped: int = Field(default=0, description="ended by the relay or the network")
    recovered: int = Field(default=0, description="drops after which the replica synced again")
    closed: int = Field(default=0, description="ended by the plan")
    recovery_p95_ms: float | None = None
    recovery_max_ms: float | None = None


class Edits(Part):
    """Edits of the schedule: `failed` are those tried and not acknowledged.

    `missed` are those that the generator did not start in time: its fault, not in the rate.
    `unreported` are planned, and no sample tells what became of them.
    """

    offered: int = 0
    completed: int = 0
    failed: int = 0
    missed: int = 0
    unreported: int = 0
    unacknowledged: int = Field(default=0, description="of the failed: made, never acknowledged")
    per_second: float | None = Field(default=None, description="completed, over phases with edits")
    error_rate: float | None = Field(default=None, ge=0, le=1, description="failed / tried")
    lost: int | None = Field(
        default=None, description="acknowledged, and not shown by a replica that should"
    )


class Deliveries(Part):
    """Whether edits reached the other connections of their document."""

    count: Number = 0
    repeats: Number = Field(default=0, description="shown a second time by the same replica")
    expected: int = 0
    delivered: int = 0
    share: float | None = Field(default=None, description="of the expected; by weight if thinned")
    edits_delivered_to_all: int | None = Field(
        default=0, description="null where some workers recorded a sample only"
    )
    max_weight: float = Field(default=1, description="above 1: rows stand for several deliveries")


class Sync(Part):
    """Replicas at the last look, while nothing wrote. Null where no replica was looked at."""

    documents: int = 0
    documents_converged: int = 0
    replicas: int = 0
    in_sync: int = 0
    diverged: int | None = None
    converged_max_ms: float | None = Field(
        default=None, description="longest time from a document's last edit to its last change"
    )


class Relay(Part):
    """The relay by its own `/metrics`; null where it gave none."""

    memory_start_mb: float | None = None
    memory_end_mb: float | None = None
    memory_peak_mb: float | None = None
    memory_growth_mb: float | None = None
    peak_connections: int | None = None
    polls: int = 0
    polls_failed: int | None = None
    restarts: int = 0
    uptime_s: float | None = None
    pid: int | None = None
    version: str | None = None


class Storm(Part):
    """A reconnect storm: from the first drop until all that dropped were in sync again."""

    recovery_s: float | None = None
    dropped: int = 0
    recovered: int = 0


class Figures(Part):
    """All that is measured of a run, or of one phase. An objective's metric is a path in it."""

    connections: Connections = Connections()
    edits: Edits = Edits()
    acknowledgement_ms: Distribution = Distribution()
    acknowledgement_service_ms: Distribution = Distribution()
    delivery_ms: Distribution = Field(
        default=Distribution(), description="within workers, from the intended time: the primary"
    )
    delivery_service_ms: Distribution = Distribution()
    delivery_between_workers_ms: Distribution = Field(
        default=Distribution(), description="corrected by clock offsets; see clock.error_max_ms"
    )
    connect_ms: Distribution = Distribution()
    handshake_ms: Distribution = Distribution()
    sync_ms: Distribution = Distribution()
    bootstrap_ms: Distribution = Distribution()
    lateness_ms: Distribution = Field(
        default=Distribution(), description="how late the generator itself began edits"
    )
    deliveries: Deliveries = Deliveries()
    relay: Relay = Relay()
    sync: Sync = Sync()
    storm: Storm = Storm()


class PhaseSummary(Figures):
    """One phase. Times are run time: seconds since the first phase began."""

    label: str
    name: str
    kind: str
    attempt: int
    complete: bool
    started_at: str | None
    from_s: float | None
    to_s: float | None
    planned_s: float
    connections_start: float
    connections_end: float
    edits_per_s_start: float
    edits_per_s_end: float
    edits_planned: int | None
    stopped_early: str


class WorkerSummary(Part):
    """One worker. Memory in MiB; CPU in percent of all its cores; lateness in milliseconds."""

    worker: str
    state: str = ""
    lost: bool = False
    connections_peak: int | None = None
    connections_healthy: float | None = None
    edits_offered: int = 0
    edits_completed: int = 0
    edits_failed: int = 0
    edits_missed: int = 0
    edits_per_second: float | None = None
    acknowledgement_ms: Distribution = Distribution()
    delivery_ms: Distribution = Distribution()
    cpu_mean_percent: float | None = None
    cpu_max_percent: float | None = None
    agent_memory_max_mb: float | None = None
    browser_memory_max_mb: float | None = None
    js_heap_max_mb: float | None = None
    lateness_p99_ms: float | None = None
    loop_lag_p99_ms: float | None = None
    page_lag_p99_ms: float | None = None
    errors: Number = 0
    errors_by_type: dict[str, Number] = {}
    clock_offset_ms: float | None = None
    clock_error_ms: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    host: dict[str, str | int | float] = {}


class LostWorkerSummary(Part):
    """A worker that stopped answering, and what went with it."""

    worker: str
    phase: str
    last_seen_s: float
    noticed_s: float
    connections: int
    share: float = Field(description="of the connections planned in that phase")
    reason: str = ""
    replaced_by: str = Field(default="", description="the worker that took its place, if one did")
    replaced_from: str = Field(default="", description="the first phase of that worker")


class ObjectiveRow(Part):
    """One objective: what was wanted, what was got, and whether that is met.

    `met` is null where it could not be measured and that is nobody's fault; `counts` says
    whether it has a part in the verdict. With `window_s`, `got` is that of the worst window,
    which stands in `from_s` and `to_s`.
    """

    text: str
    metric: str
    phase: str | None
    operator: str
    value: float
    wanted: str
    got: float | None
    met: bool | None
    counts: bool
    sentence: str
    stop: bool = False
    window_s: float | None = None
    from_s: float | None = None
    to_s: float | None = None


class ValidityEvidence(Part):
    """One validity rule that spoke: how grave, when, on what figures, as a sentence."""

    rule: str
    level: Literal["invalid", "degraded", "note"]
    sentence: str
    phase: str | None = None
    worker: str | None = None
    from_s: float | None = None
    to_s: float | None = None
    figures: dict[str, float | int | str] = {}


class Errors(Part):
    """Errors by type (weighted); `total` is their sum. Failed edits by what failed them."""

    by_type: dict[str, Number] = {}
    total: Number = 0
    edits_by_type: dict[str, int] = {}
    connections_by_cause: dict[str, int] = {}
    groups: int = Field(default=0, description="how many different errors, numbers aside")


class ClockWorker(Part):
    """One worker's clock: its median offset to the relay's, and the bound of that."""

    worker: str
    offset_ms: float | None
    error_ms: float | None
    drift_ms: float | None = Field(description="largest minus smallest offset in the run")


class Clock(Part):
    """How clocks were brought together. `system`: the machines' own synchronisation was taken."""

    relative_to: Literal["relay", "system"] = "system"
    error_max_ms: float | None = Field(
        default=None, description="bound of the error of a figure between two workers"
    )
    workers: list[ClockWorker] = []


class Cost(Part):
    """US dollars: what was expected before the run, and what it took."""

    estimated_usd: float | None = None
    actual_usd: float | None = None
    usd_per_1000_connection_minutes: float | None = Field(
        default=None, description="what 1000 connections cost that were open for a minute"
    )


class AttemptSummary(Part):
    """One try at the run."""

    number: int
    started_at: str
    ended_at: str | None
    workers: list[str]
    error: str = ""


class Unrecovered(Part):
    """Samples that a worker had taken and that are not in the store.

    `kind` is empty where only the number of parts is known. The interval is in seconds of the
    run, by the samples that are there before and after it, or by the phase; null: not known.
    """

    worker: str
    attempt: int
    phase: str
    kind: str
    parts: int
    from_s: float | None
    to_s: float | None


class Samples(Part):
    """What the figures rest on."""

    counts: dict[str, int] = {}
    parts: int = 0
    missing: list[str] = []
    unreadable: list[str] = []
    unrecovered: list[Unrecovered] = []


class Summary(Figures):
    """A whole run, as machines read it. `passed` is what counts: met, and to be believed."""

    schema_version: Literal[1] = 1
    run_id: str
    scenario: str
    fleet: str
    relay_url: str
    state: str
    running: bool
    passed: bool
    verdict: Verdict
    validity: Validity
    validity_reasons: list[str] = []
    validity_evidence: list[ValidityEvidence] = []
    started_at: str
    ended_at: str | None
    duration_s: float
    objectives: list[ObjectiveRow] = []
    phases: list[PhaseSummary] = []
    workers: list[WorkerSummary] = []
    lost_workers: list[LostWorkerSummary] = []
    not_recovered: int = Field(default=0, description="connections that dropped and stayed away")
    errors: Errors = Errors()
    clock: Clock = Clock()
    cost: Cost = Cost()
    capacity: dict[str, Any] | None = None
    findings: list[Finding] = []
    samples: Samples = Samples()
    attempts: list[AttemptSummary] = []
    versions: dict[str, str] = {}
    problems: list[str] = []


def json_schema() -> str:
    """Return the JSON Schema of `summary.json`, as it is published."""
    schema = Summary.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"relay-load summary, version {SCHEMA_VERSION}"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema(), encoding="utf-8")
