"""What orchestrator and workers write for each other: run record, lease, orders, statuses."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from run_store.histogram import Histogram


class Message(BaseModel):
    """Base of all messages; unknown keys of a newer writer are ignored."""

    model_config = ConfigDict(extra="ignore")


class Line(Message):
    """A value that moves in a straight line over a phase."""

    start: float
    end: float

    def at(self, share: float) -> float:
        """Return the value when `share` (0 to 1) of the phase is over."""
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)


RECONNECT = "reconnect"
"""The name of what a retry brings its connections back with: no phase of the scenario's."""


class PhaseRef(Message):
    """Which phase: its place in the scenario (from 0), its name and kind."""

    index: int
    name: str
    kind: str


class Order(Message):
    """What all workers of an attempt do from one instant on.

    Connection `c` is worker `slots[c % len(slots)]`'s; a slot whose worker is lost is empty.
    Which worker makes which edit follows from this alone (see `schedule`). Several orders may
    follow one another in a phase: steps of load, or a course that was changed on its way.
    `connections_within_s` is when the connections are at their end; 0: with the order's own.
    A `stop` that `is_last_word` comes from one who will not give the workers' machines back: an
    agent on one that its run has rented ships all it has for as long as it takes, and powers off.
    """

    number: int
    attempt: int
    action: Literal["run", "stop"]
    starts_at_us: int
    duration_s: float = 0.0
    phase: PhaseRef | None = None
    connections: Line = Line(start=0, end=0)
    connections_within_s: float = 0.0
    edits_per_s: Line = Line(start=0, end=0)
    slots: list[str] = []
    first_edit: int = 0
    document_edits: dict[int, int] = {}
    relay_samplers: list[str] = []
    drop_share: float = 0.0
    check_replicas: bool = False
    reason: str = ""
    is_last_word: bool = False

    @property
    def moves_within_s(self) -> float:
        """How long the connections move, in seconds from the order's instant."""
        within_s = self.connections_within_s or self.duration_s
        return min(within_s, self.duration_s)

    def connections_at(self, at_s: float) -> float:
        """Return how many connections are planned `at_s` into the order."""
        return self.connections.at(at_s / self.moves_within_s if self.moves_within_s else 1.0)


class Lease(Message):
    """A counter that the orchestrator keeps raising while it lives.

    Its age is measured by each agent on its own monotonic clock.
    """

    counter: int
    every_s: float
    expires_after_s: float


class Counts(Message):
    """Sums since the agent started, for the live display."""

    edits_offered: int = 0
    edits_completed: int = 0
    edits_failed: int = 0
    edits_missed: int = 0
    deliveries: float = 0
    drops: int = 0
    connect_failures: int = 0
    connect_timeouts: int = 0


class Vitals(Message):
    """The worker's state at this heartbeat.

    The relay's figures are of this worker's last poll of it, at `relay_at_us`; None where it
    polls none. `relay_error` says why that poll had no answer.
    """

    connections_target: int = 0
    connections_open: int = 0
    connections_synced: int = 0
    connections_healthy: int = 0
    lateness_p99_ms: float = 0.0
    page_lag_ms: float = 0.0
    cpu_percent: float = 0.0
    memory_mb: float = 0.0
    browser_memory_mb: float = 0.0
    clock_offset_ms: float | None = None
    clock_error_ms: float | None = None
    relay_memory_mb: float | None = None
    relay_connections: int | None = None
    relay_at_us: int | None = None
    relay_error: str = ""
    relay_uptime_s: float | None = None
    relay_cpu_seconds: float | None = None
    spool_mb: float = 0.0


class PhaseDone(Message):
    """This worker has done a phase's order, and shipped all of its samples.

    `parts` names the last part's number for each kind: parts are numbered from 1 without
    gaps, so a missing one can be seen.
    """

    phase: str
    order: int
    parts: dict[str, int] = {}


class Leaving(Message):
    """A worker's machine is about to be taken away, and the worker ends its load in order.

    `reason` says who takes it; `noticed_us` and `deadline_us` are wall-clock instants: when the
    worker learnt of it, and when the machine goes.
    """

    reason: str
    noticed_us: int
    deadline_us: int


class Status(Message):
    """A worker's heartbeat, rewritten every second or two.

    `leaving` is set from the first beat after a notice on; what the worker could not ship
    before the deadline is lost with its machine. `began_us` tells an agent from the one that a
    worker had before: each counts from nothing.
    """

    worker: str
    attempt: int
    beat: int
    at_us: int
    began_us: int = 0
    state: Literal["starting", "ready", "running", "stopping", "stopped", "failed"]
    order: int = 0
    phase: str = ""
    message: str = ""
    counts: Counts = Counts()
    vitals: Vitals = Vitals()
    errors: dict[str, int] = {}
    acknowledgement: Histogram = Histogram()
    delivery: Histogram = Histogram()
    lateness: Histogram = Histogram()
    parts: dict[str, dict[str, int]] = {}
    done: list[PhaseDone] = []
    versions: dict[str, str] = {}
    host: dict[str, str | int | float] = {}
    unshipped: dict[str, int] = {}
    leaving: Leaving | None = None


class LostWorker(Message):
    """A worker that stopped answering: when it was last heard, and what went with it.

    `replaced_by` names the worker that has its connections from the phase `replaced_from` on.
    """

    worker: str
    phase: str
    last_seen_us: int
    noticed_us: int
    connections: int
    reason: str = ""
    replaced_by: str = ""
    replaced_from: str = ""


class PhaseRecord(Message):
    """A phase is complete: when it ran, in which attempt, and what is known of its parts.

    `stopped_early` says why it ended before its time; `ended_because` why a phase whose length
    is not fixed beforehand, such as a stress phase, ended when it did.
    """

    phase: PhaseRef
    label: str
    attempt: int
    order: int
    started_us: int
    ended_us: int
    planned_s: float
    connections: Line
    edits_per_s: Line
    edits_planned: int
    first_edit: int
    document_edits_after: dict[int, int] = {}
    slots: list[str] = []
    parts: dict[str, dict[str, int]] = {}
    lost: list[LostWorker] = []
    stopped_early: str = ""
    ended_because: str = ""


class Attempt(Message):
    """One try at the run: the first, or a retry."""

    number: int
    started_us: int
    ended_us: int | None = None
    workers: list[str] = []
    first_phase: int = 0
    error: str = ""


class RunRecord(Message):
    """`run.json`: what this run is, and how far it came.

    `stop_requested` says who or what wanted the run's end before its time, such as its budget;
    `ended_early` which stop objective ended its load.
    """

    run_id: str
    scenario: dict[str, Any]
    relay_url: str
    has_metrics: bool = True
    fleet: str
    created_us: int
    ended_us: int | None = None
    state: Literal["running", "reported", "failed", "stopped"] = "running"
    attempts: list[Attempt] = []
    versions: dict[str, str] = {}
    estimate_usd: float | None = None
    actual_usd: float | None = None
    asked_of_cloud: list[dict[str, Any]] = []
    problems: list[str] = []
    verdict: str = ""
    validity: str = ""
    stop_requested: str = ""
    ended_early: str = ""


class RelayClaim(Message):
    """A run's claim to load a relay alone: its number in the queue (0: choosing one).

    The counter is raised while the run lives; `token` tells two claims of one run apart.
    """

    token: str
    run_id: str
    since_us: int
    number: int = 0
    counter: int = 0


class ReportClaim(Message):
    """Somebody's claim to make a report that is owed; `failed` says why none came of it."""

    token: str
    failed: str = ""
