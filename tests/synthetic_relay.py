"""Relays that exist as a curve only: their capacity is known, and a search can be held against it.

Shared by the tests of the search and by `python -m benchmarks.capacity`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tasks.search import NextStep, next_step
from tasks.search_answer import Found, Quest
from tasks.search_levels import Tried

Shape = Literal["queue", "power", "refuses"]


@dataclass(frozen=True)
class SyntheticRelay:
    """A relay whose objective is missed above `capacity`.

    `queue`: latency grows as 1 / (1 - load / saturation), as in a queue with one server.
    `power`: it grows as a power of the load. `refuses`: it lets no more connections in. The
    score of a step scatters by the factor exp(N(0, noise)).
    """

    shape: Shape
    capacity: float
    noise: float
    slope: float = 3.0
    at_objective: float = 0.95
    """queue: how busy the relay is when the objective is missed."""

    def step(self, load: float, draw: random.Random) -> Tried:
        """Return how a step at a load goes."""
        scatter = math.exp(draw.gauss(0, self.noise))
        if self.shape == "refuses":
            if load > self.capacity:
                return Tried(load, "refused", reached=math.floor(self.capacity))
            return Tried(load, "held", score=0.3 * scatter, noise=self.noise)
        if self.shape == "power":
            score = (load / self.capacity) ** self.slope
        else:
            busy = load / self.capacity * self.at_objective
            score = (1 - self.at_objective) / (1 - busy) if busy < 0.999 else 50.0
        score *= scatter
        return Tried(
            load,
            "held" if score < 1 else "missed",
            score=score,
            noise=self.noise,
            objective="delivery_ms.p95 < 1s",
        )


def searched(
    step: Callable[[float], Tried], quest: Quest, *, most: int = 40
) -> tuple[Found, list[Tried]]:
    """Carry a search out; return what it found and the steps that it took."""
    tried: list[Tried] = []
    while True:
        answer = next_step(tried, quest)
        if not isinstance(answer, NextStep):
            return answer, tried
        tried.append(step(answer.load))
        assert len(tried) <= most, f"no end after {most} steps: {tried}"
