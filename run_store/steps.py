"""A measured step of load: what was asked of the relay, what it held, and how that was judged."""

from __future__ import annotations

from typing import Literal

from run_store.messages import Message

RelayState = Literal["ok", "refused", "dead", "restarted"]
"""`dead`: it was gone when the step ended; `restarted`: it died in it and was started anew."""
Outcome = Literal["good", "bad", "doubtful", "generator_saturated"]


class Percentiles(Message):
    """Latencies in milliseconds, from the heartbeats' histograms; None where nothing was timed."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class StepFigures(Message):
    """What was measured in a step's judged window, over the whole fleet.

    `connections_open` is the number open when the window ended, `connections_peak` the largest
    and `connections_healthy` the smallest number of them in it. `edits_per_second` counts
    acknowledged edits; `error_rate` is the share (0 to 1) of those that were made and failed.
    `refused` counts attempts to connect that failed, `timed_out` those of them that the client
    gave up, `dropped` connections that were lost, all from the step's beginning on. What the
    relay does not publish is None.
    """

    connections_open: int = 0
    connections_peak: int = 0
    connections_healthy: int = 0
    edits_per_second: float = 0.0
    edits_offered: int = 0
    delivery_ms: Percentiles = Percentiles()
    acknowledgement_ms: Percentiles = Percentiles()
    error_rate: float | None = None
    refused: int = 0
    timed_out: int = 0
    dropped: int = 0
    relay_memory_mb: float | None = None
    relay_connections: int | None = None
    relay_cpu_share: float | None = None


class StepObjective(Message):
    """One objective on one step: its text, what was got, and whether that met it.

    `got` and `met` are None where the metric could not be measured.
    """

    text: str
    metric: str
    got: float | None = None
    met: bool | None = None


class StepGenerator(Message):
    """How the workers themselves were: the worst of them in the judged window.

    `cpu_share` is of the whole machine (0 to 1). `why` says what was at its limit.
    """

    lateness_p99_ms: float = 0.0
    cpu_share: float = 0.0
    saturated: bool = False
    why: str = ""


class Step(Message):
    """One step, written when it has been judged, and never changed.

    `number` counts from 1 in its phase (whose label is `phase`), over all attempts.
    `connections` and `edits_per_second` are what was wanted of the fleet. They moved there from
    `started_us` on and had settled by `judged_from_us`; the figures are of the time from there
    to `ended_us`.

    `outcome`: `good` met every stop objective; `bad` missed one, or the relay refused or died;
    `doubtful` says nothing about the relay (too few samples, a worker lost, bounds that contradict
    each other); `generator_saturated` says that the workers, not the relay, were at their limit.
    """

    number: int
    attempt: int
    order: int
    phase: str
    connections: int
    edits_per_second: float
    started_us: int
    judged_from_us: int
    ended_us: int
    figures: StepFigures = StepFigures()
    objectives: tuple[StepObjective, ...] = ()
    generator: StepGenerator = StepGenerator()
    relay: RelayState = "ok"
    outcome: Outcome
    why: str = ""

    @property
    def is_good(self) -> bool:
        """Say whether the relay held this step."""
        return self.outcome == "good"

    @property
    def missed(self) -> list[StepObjective]:
        """The objectives that were missed."""
        return [objective for objective in self.objectives if objective.met is False]
