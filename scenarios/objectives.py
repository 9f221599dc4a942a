"""Objectives: one line each, saying what the relay must hold.

    [phase:] metric operator value [for duration] [stop]

    delivery_ms.p95 < 1000
    edits.error_rate < 5%
    sustained: acknowledgement_ms.p99 < 250 for 30s stop

Without a phase the whole run is judged. `for` asks that no window of that length misses it;
`stop` ends the load early when it is missed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from run_store.errors import ScenarioError
from scenarios.durations import format_duration, parse_duration_s

_STATISTICS = ("min", "mean", "p50", "p95", "p99", "max")
_DISTRIBUTIONS = (
    "acknowledgement_ms",
    "acknowledgement_service_ms",
    "delivery_ms",
    "delivery_service_ms",
    "delivery_between_workers_ms",
    "handshake_ms",
    "connect_ms",
    "bootstrap_ms",
)
METRICS: frozenset[str] = frozenset(
    [f"{name}.{statistic}" for name in _DISTRIBUTIONS for statistic in _STATISTICS]
    + [f"edits.{name}" for name in ("error_rate", "failed", "lost", "per_second", "completed")]
    + [f"connections.{name}" for name in ("peak", "healthy", "dropped", "failed", "health_score")]
    + [f"relay.{name}" for name in ("memory_growth_mb", "memory_end_mb", "polls_failed")]
    + ["sync.diverged", "storm.recovery_s"]
)
"""Every metric that an objective may name; each is a path in `summary.json`."""

_LIVE_DISTRIBUTIONS = ("acknowledgement_ms", "delivery_ms")
STOPPING: frozenset[str] = frozenset(
    metric
    for metric in METRICS
    if metric.startswith(("connections.", "relay."))
    or metric.split(".", maxsplit=1)[0] in _LIVE_DISTRIBUTIONS
    or (metric.startswith("edits.") and metric != "edits.lost")
)
"""Those that heartbeats tell while the load goes on, so that a miss can end it."""

Operator = Literal["<", "<=", ">", ">=", "==", "!="]
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_PHASE = re.compile(r"\s*([a-z0-9][a-z0-9-]*)\s*:\s*")
_METRIC = re.compile(r"\s*([a-z_]+(?:\.[a-z0-9_]+)?)\s*")
_OPERATOR = re.compile(r"(<=|>=|==|!=|<|>)\s*")
_VALUE = re.compile(r"(\d+(?:\.\d+)?)\s*(%|ms|s|mb)?(?=\s|$)\s*")
_FOR = re.compile(r"for\s+(\S+)\s*")
_STOP = re.compile(r"stop\s*$")


class Objective(BaseModel):
    """What one metric must hold, in a phase or in the whole run.

    `value` is in the metric's own unit; a share such as `5%` is 0.05.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    metric: str
    operator: Operator
    value: float
    phase: str | None = None
    window_s: float | None = None
    stop: bool = False

    def is_met_by(self, got: float) -> bool:
        """Say whether `got`, in the metric's own unit, meets this objective."""
        return _COMPARE[self.operator](got, self.value)

    def sentence(self, got: float | None) -> str:
        """Return what was wanted and what was got, as one sentence."""
        where = f" in {self.phase}" if self.phase else ""
        window = f" over {format_duration(self.window_s)}" if self.window_s else ""
        wanted = f"{self.metric}{where}{window} should be {self.operator} {self._shown(self.value)}"
        return f"{wanted} and was {'not measured' if got is None else self._shown(got)}"

    def _shown(self, value: float) -> str:
        if self.metric.endswith("error_rate"):
            return f"{value:.3g} ({value * 100:.3g} %)"
        return f"{value:,.6g}"


def parse_objective(text: str) -> Objective:
    """Read one objective.

    Raises ScenarioError whose message shows the text with a mark under the first character
    that could not be read.
    """
    at = 0
    phase = None
    if match := _PHASE.match(text):
        phase, at = match[1], match.end()
    match = _METRIC.match(text, at)
    if not match:
        raise _error(text, at, "a metric was expected, such as delivery_ms.p95")
    metric = match[1]
    if metric not in METRICS:
        raise _error(text, match.start(1), f"no metric is called {metric}{_nearest(metric)}")
    at = match.end()
    if not (match := _OPERATOR.match(text, at)):
        raise _error(text, at, "one of < <= > >= == != was expected")
    comparison, at = match[1], match.end()
    if not (match := _VALUE.match(text, at)):
        raise _error(text, at, "a number was expected, with %, ms, s or mb after it if you like")
    value, at = _in_unit_of(metric, float(match[1]), match[2], text, at), match.end()
    window_s, at = _window(text, at)
    stop = bool(match := _STOP.match(text, at))
    if match and metric not in STOPPING:
        raise _error(text, at, f"{metric} is known after the load only, and cannot stop it")
    at = match.end() if match else at
    if at < len(text.rstrip()):
        raise _error(text, at, "only `for DURATION` and `stop` may follow")
    return Objective.model_validate(
        {
            "text": text.strip(),
            "metric": metric,
            "operator": comparison,
            "value": value,
            "phase": phase,
            "window_s": window_s,
            "stop": stop,
        }
    )


def _window(text: str, at: int) -> tuple[float | None, int]:
    """Read `for DURATION` if it stands at `at`; return it in seconds, and where it ends."""
    match = _FOR.match(text, at)
    if not match:
        return None, at
    try:
        window_s = parse_duration_s(match[1])
    except ValueError as error:
        raise _error(text, match.start(1), str(error)) from None
    if window_s <= 0:
        raise _error(text, match.start(1), "a window is longer than zero")
    return window_s, match.end()


def _in_unit_of(metric: str, value: float, unit: str | None, text: str, at: int) -> float:
    head = metric.split(".", maxsplit=1)[0]
    if unit is None:
        return value
    if unit == "%" and metric.endswith(("error_rate", "health_score")):
        return value / 100 if metric.endswith("error_rate") else value
    if unit in ("ms", "s") and head.endswith("_ms"):
        return value * (1000 if unit == "s" else 1)
    if unit == "s" and metric.endswith("_s"):
        return value
    if unit == "mb" and metric.endswith("_mb"):
        return value
    raise _error(text, at, f"{metric} is not measured in {unit}")


def _nearest(metric: str) -> str:
    import difflib  # noqa: PLC0415 - needed only when the user has mistyped

    near = difflib.get_close_matches(metric, sorted(METRICS), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _error(text: str, at: int, why: str) -> ScenarioError:
    return ScenarioError(
        f"Objective cannot be read at character {at + 1}: {why}.\n  {text}\n  {' ' * at}^"
    )
