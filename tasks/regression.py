"""Has the relay's capacity fallen? A new result against the history, as one sentence and figures.

Thin: the judgement itself is `reports.trend`, a pure function of the history's lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reports.history import Line, lines
from reports.trend import FALL, Trend, trend_of
from run_store.errors import CannotRunError
from run_store.store import Store

EVENT = "relay-load.capacity.regressed"
"""The Prefect event of a fall."""


@dataclass(frozen=True)
class Judgement:
    """What a capacity is against those before it: `trend` up to it, and the run's own `line`."""

    trend: Trend
    line: Line

    @property
    def has_regressed(self) -> bool:
        """Whether it fell by more than is allowed, and by more than it is uncertain."""
        return not self.why_not and self.trend.has_regressed

    @property
    def why_not(self) -> str:
        """Why nothing can be said of the run; empty if it is judged."""
        return next((left.why for left in self.trend.left_out if left.line == self.line), "")

    @property
    def sentence(self) -> str:
        """The judgement in words, whatever it is."""
        if self.why_not:
            return f"{self.line.run_id} is not held against the runs before it: {self.why_not}."
        return self.trend.sentence

    @property
    def resource(self) -> dict[str, str]:
        """What the event is about: the capacity of a relay on a scenario."""
        return {
            "prefect.resource.id": f"relay-load.capacity.{self.line.scenario}",
            "prefect.resource.name": f"capacity on {self.line.scenario}",
            "relay-load.relay-url": self.line.relay_url,
        }

    @property
    def payload(self) -> dict[str, Any]:
        """The event's figures. Capacities in the unit that the sentence names, shares of 1."""
        return {
            "run_id": self.line.run_id,
            "scenario": self.line.scenario,
            "relay_url": self.line.relay_url,
            "relay_version": self.line.relay_version,
            "capacity": self.line.value,
            "low": self.line.low,
            "high": self.line.high,
            "median": self.trend.median,
            "compared_with": self.trend.compared_with,
            "fall": self.trend.fall,
            "allowed_fall": self.trend.allowed_fall,
            "sentence": self.sentence,
        }


def judge_regression(
    store: Store, scenario: str, run_id: str, *, allowed_fall: float = FALL
) -> Judgement:
    """Return what a run's capacity is against the median of the last valid comparable runs.

    Call it after `reports.history.add` has written the run's line. It has regressed if it lies
    more than `allowed_fall` (a share of 1) below that median, and its interval below it as well.
    Raises CannotRunError if the run has no line, StoreError.
    """
    known = lines(store, scenario)
    line = next((one for one in known if one.run_id == run_id), None)
    if line is None:
        raise CannotRunError(
            f"The history of {scenario} has no line of {run_id}.",
            hint="A run is judged after its capacity was written to the history.",
        )
    return Judgement(trend_of(known, newest=run_id, allowed_fall=allowed_fall), line)
