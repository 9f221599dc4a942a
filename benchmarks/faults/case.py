"""A case: one thing done to a run, and what it must have come to afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from benchmarks.faults.site import Site


class HungError(Exception):
    """Something was waited for and did not come within its deadline."""


class SkippedError(Exception):
    """This machine does not allow what a case does; the message says why."""


@dataclass(frozen=True)
class Case:
    """One row of the table. `play` does it on a site of its own and returns how it ended."""

    name: str
    done: str
    play: Callable[[Site], str]

    @property
    def group(self) -> str:
        """What the case is about: the name's first word."""
        return self.name.partition("/")[0]


@dataclass
class Result:
    """What a case came to: `leaks` are processes that it left, rows those of its samples."""

    case: Case
    ended_as: str = ""
    leaks: list[str] = field(default_factory=list)
    rows_spooled: int = 0
    rows_lost: int = 0
    rows_twice: int = 0
    report: str = ""
    problem: str = ""
    hung: bool = False
    skipped: str = ""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Say whether everything that is promised was kept."""
        return not (self.leaks or self.rows_lost or self.rows_twice or self.problem or self.hung)

    def as_json(self) -> dict[str, object]:
        """Return the row as plain values."""
        return {
            "case": self.case.name,
            "done": self.case.done,
            "ended_as": self.ended_as,
            "leaks": self.leaks,
            "rows_spooled": self.rows_spooled,
            "rows_lost": self.rows_lost,
            "rows_twice": self.rows_twice,
            "report": self.report,
            "problem": self.problem,
            "hung": self.hung,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 1),
            "ok": self.is_good,
        }

    @classmethod
    def from_json(cls, case: Case, row: dict[str, Any]) -> Self:
        """Return the row that `as_json` made plain values of."""
        known = {one.name for one in fields(cls)} - {"case"}
        return cls(case, **{name: value for name, value in row.items() if name in known})


@dataclass(frozen=True)
class Scale:
    """How much is done: how many instants for each signal, and how long outages last."""

    seed: int = 1
    full: bool = False

    @property
    def instants(self) -> int:
        """How many random instants each signal comes at."""
        return 20 if self.full else 7

    def outage_s(self, scaled: float, full: float) -> float:
        """Return how long an outage lasts."""
        return full if self.full else scaled

    def shares(self, name: str) -> Iterable[float]:
        """Return seeded instants as shares of a run's length, one in each stretch of it."""
        draw = random.Random(f"{self.seed}/{name}")  # noqa: S311 - instants are no secret
        return [(number + draw.random()) / self.instants for number in range(self.instants)]
