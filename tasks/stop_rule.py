"""Whether a stop objective is missed by now: a pure function of the readings so far.

The report judges every objective anew on the raw samples; this is the approximate view that can
be had while the load goes on. It waits until there is enough to judge by, since a load that was
ended cannot be begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scenarios.objectives import Objective
from tasks.readings import Reading, Stretch

AT_LEAST_S = 10.0
"""An objective without a window is judged once its phase is so old."""
AT_LEAST_EDITS = 10
"""A share of failed edits is judged once so many were tried."""
_SAMPLES = {"min": 5, "mean": 5, "p50": 5, "p95": 20, "p99": 100, "max": 5}
"""Samples that each statistic of a latency needs."""
_QUANTILES = {"min": 0.0, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
_ONLY_GROW = frozenset(
    {"edits.failed", "edits.completed", "connections.peak", "connections.dropped",
     "connections.failed", "relay.polls_failed"}
)  # fmt: skip
"""What is missed by being too large stays missed; what is too small may still grow."""


@dataclass(frozen=True)
class Judged:
    """An objective on a stretch of the load: what was got, and whether that meets it.

    Both are None where there is nothing, or too little, to judge by.
    """

    objective: Objective
    got: float | None = None
    met: bool | None = None

    @property
    def sentence(self) -> str:
        """What was wanted, and what was got."""
        return self.objective.sentence(self.got)


def missed(
    objectives: Iterable[Objective], readings: Sequence[Reading], *, now_us: int
) -> Judged | None:
    """Return the first stop objective that is missed by now, or None.

    `readings` are those of what the objectives are about, the phase or the whole run, oldest
    first. With a window the last one of that length is judged, as soon as there is one.
    """
    for objective in objectives:
        judged = _judged_now(objective, readings, now_us)
        if judged is not None and judged.met is False:
            return judged
    return None


def judge_stretch(objective: Objective, readings: Sequence[Reading]) -> Judged:
    """Judge an objective on a stretch: on all of it or, with a window, on the worst inside it."""
    if len(readings) < 2:  # noqa: PLR2004 - a stretch has two ends
        return Judged(objective)
    whole = Stretch(readings)
    if objective.window_s is None or objective.window_s >= whole.seconds:
        return _judged(objective, whole)
    windows = [_judged(objective, window) for window in _windows(readings, objective.window_s)]
    bad = [one for one in windows if one.met is False]
    known = [one for one in windows if one.met is not None]
    return (bad or known or [Judged(objective)])[-1]


def value(metric: str, stretch: Stretch) -> float | None:
    """Return a metric, as far as heartbeats tell it; None if there is too little to tell."""
    head, _, name = metric.partition(".")
    if head in ("acknowledgement_ms", "delivery_ms"):
        histogram = stretch.histogram(head.removesuffix("_ms"))
        if histogram.count < _SAMPLES[name]:
            return None
        return histogram.mean if name == "mean" else histogram.quantile(_QUANTILES[name])
    found = _FIGURES.get(metric)
    return found(stretch) if found else None


def samples_needed(metric: str) -> int:
    """Return of how many edits or deliveries a metric is told at least; 0 if that is no matter."""
    head, _, name = metric.partition(".")
    if head in ("acknowledgement_ms", "delivery_ms"):
        return _SAMPLES[name]
    return AT_LEAST_EDITS if metric == "edits.error_rate" else 0


def _judged_now(objective: Objective, readings: Sequence[Reading], now_us: int) -> Judged | None:
    window_s = objective.window_s
    if len(readings) < 2:  # noqa: PLR2004 - a stretch has two ends
        return None
    if window_s is not None:
        from_us = now_us - round(window_s * 1e6)
        if readings[0].at_us > from_us:
            return None
        begin = max(i for i, reading in enumerate(readings) if reading.at_us <= from_us)
        return _judged(objective, Stretch(readings[begin:]))
    if objective.metric in _ONLY_GROW:
        # What has not grown enough by now may yet; what has grown too much is judged at once.
        too_large = objective.operator in ("<", "<=", "==")
        judged = _judged(objective, Stretch(readings))
        grown = judged.got is not None and judged.got >= objective.value
        return judged if too_large and grown else None
    stretch = Stretch(readings)
    return _judged(objective, stretch) if stretch.seconds >= AT_LEAST_S else None


def _judged(objective: Objective, stretch: Stretch) -> Judged:
    got = value(objective.metric, stretch)
    return Judged(objective, got, None if got is None else objective.is_met_by(got))


def _windows(readings: Sequence[Reading], window_s: float) -> Iterable[Stretch]:
    """Yield every stretch between readings that is just as long as the window, or longer."""
    begin = 0
    for end in range(len(readings)):
        while begin + 1 < end and readings[end].at_us - readings[begin + 1].at_us >= window_s * 1e6:
            begin += 1
        if readings[end].at_us - readings[begin].at_us >= window_s * 1e6:
            yield Stretch(readings[begin : end + 1])


def _error_rate(stretch: Stretch) -> float | None:
    tried = stretch.count("failed") + stretch.count("completed")
    return stretch.error_rate if tried >= AT_LEAST_EDITS else None


def _health(stretch: Stretch) -> float | None:
    planned = [r for r in stretch.inner if r.connections_target]
    shares = [min(1.0, r.connections_healthy / r.connections_target) for r in planned]
    return 100 * sum(shares) / len(shares) if shares else None


def _memory_growth_mb(stretch: Stretch) -> float | None:
    known = [poll.memory_mb for poll in stretch.polls if poll.memory_mb is not None]
    return known[-1] - known[0] if len(known) > 1 else None


def _memory_end_mb(stretch: Stretch) -> float | None:
    known = [poll.memory_mb for poll in stretch.polls if poll.memory_mb is not None]
    return known[-1] if known else None


_FIGURES: dict[str, Callable[[Stretch], float | None]] = {
    "edits.error_rate": _error_rate,
    "edits.failed": lambda s: s.count("failed"),
    "edits.per_second": lambda s: s.per_second,
    "edits.completed": lambda s: s.count("completed"),
    "connections.peak": lambda s: max(r.connections_open for r in s.inner),
    "connections.healthy": lambda s: sum(r.connections_healthy for r in s.inner) / len(s.inner),
    "connections.dropped": lambda s: s.count("drops"),
    "connections.failed": lambda s: s.count("refused"),
    "connections.health_score": _health,
    "relay.memory_growth_mb": _memory_growth_mb,
    "relay.memory_end_mb": _memory_end_mb,
    "relay.polls_failed": lambda s: sum(bool(poll.error) for poll in s.polls) if s.polls else None,
}
