"""What happens in a run that nobody ran: its level of latency, its relay and its workers by second.

A world is drawn from a seed: how many workers, connections and edits, how noisy it is and how.
Anomalies change a world (see `synthetic_anomalies`); `synthetic_run` turns it into samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NOISES = ("gaussian", "heavy-tail", "bursty", "drifting")
_BUSY_SHARE, _LATE_SHARE, _FAILED_POLLS = 0.005, 0.004, 0.003
"""Seconds in which a healthy worker is busy or late, and polls that fail for no reason."""
_FULL_CPU_SHARE = 0.2
"""Runs in which a worker's CPU is full for a while and nothing is late by it: nothing is wrong."""
_TWO_PHASES_SHARE = 0.3
BEGAN_US = 1_760_000_000_000_000


@dataclass(frozen=True)
class WorldPhase:
    """One phase: its plan. Connections move in a straight line to `connections`."""

    name: str
    kind: str
    duration_s: int
    connections: int
    edits_per_s: float


@dataclass
class World:
    """A run by second. Arrays over workers and seconds are [worker, second]."""

    seed: int
    noise: str
    workers: tuple[str, ...]
    per_document: int
    phases: tuple[WorldPhase, ...]
    draw: np.random.Generator
    acknowledgement_ms: float
    delivery_ms: float
    edit_sigma: float
    tail_share: float
    level: Floats
    worker_level: Floats
    cpu_percent: Floats
    lag_ms: Floats
    late_ms: Floats
    missed_share: Floats
    unacknowledged_share: Floats
    failed_share: Floats
    background_errors: Floats
    relay_memory_mb: Floats
    relay_response_ms: Floats
    relay_fails: npt.NDArray[np.bool_]
    relay_pid: Ints
    relay_uptime_s: Floats
    clock_ms: Floats
    clock_error_ms: float
    dropped: list[tuple[float, int]] = field(default_factory=list)
    silent: list[tuple[int, float, float]] = field(default_factory=list)
    lost: dict[int, float] = field(default_factory=dict)
    lost_edits: int = 0
    diverged_replicas: int = 0
    error_type: str = "relay_error"

    @property
    def length_s(self) -> int:
        """Length of all phases together."""
        return sum(phase.duration_s for phase in self.phases)

    @property
    def sustained(self) -> list[tuple[int, int]]:
        """When each sustained phase begins and ends, in run time."""
        return [
            (at, at + phase.duration_s)
            for at, phase in zip(self.phase_starts(), self.phases, strict=True)
            if phase.kind == "sustained"
        ]

    def phase_starts(self) -> list[int]:
        """When each phase begins, in run time."""
        starts, at = [], 0
        for phase in self.phases:
            starts.append(at)
            at += phase.duration_s
        return starts

    def planned(self, at_s: npt.NDArray[Any]) -> Ints:
        """How many connections the plan holds at instants of run time."""
        known_s, known = [0.0], [0.0]
        at = 0
        for phase in self.phases:
            at += phase.duration_s
            known_s.append(at)
            known.append(phase.connections)
        held: Ints = np.floor(np.interp(at_s, known_s, known) + 1e-9).astype(np.int64)
        return held


def draw_world(
    seed: int,
    *,
    noise: str | None = None,
    workers: int | None = None,
    sustained_s: int | None = None,
    edits_per_s: float | None = None,
) -> World:
    """Return a run in which nothing is wrong; the seed decides what is not given."""
    draw = np.random.default_rng(seed)
    count = workers or int(draw.integers(2, 7))
    noise = noise or NOISES[int(draw.integers(len(NOISES)))]
    connections = int(draw.integers(8, 25)) * count
    rate = edits_per_s or float(np.exp(draw.uniform(math.log(2), math.log(12))))
    holds_s = [sustained_s] if sustained_s else _holds_s(draw)
    hold_s = sum(holds_s)
    phases = (
        WorldPhase("warmup", "warmup", 20, max(4, connections // 5), rate / 2),
        WorldPhase("ramp-up", "ramp", 40, connections, rate / 2),
        *(
            WorldPhase(
                f"sustained-{n}" if n else "sustained", "sustained", length, connections, rate
            )
            for n, length in enumerate(holds_s)
        ),
        WorldPhase("cooldown", "cooldown", 30, connections, 0.0),
    )
    seconds = 90 + hold_s
    base_ms = float(np.exp(draw.uniform(math.log(25), math.log(150))))
    cpu = draw.uniform(20, 55, (count, 1)) + 5 * draw.standard_normal((count, seconds))
    cpu += np.where(draw.random((count, seconds)) < _BUSY_SHARE, 40, 0)
    if draw.random() < _FULL_CPU_SHARE:
        at, length = int(draw.integers(20, seconds - 40)), int(draw.integers(8, 40))
        cpu[int(draw.integers(count)), at : at + length] = draw.uniform(94, 100)
    lag = draw.lognormal(math.log(8), 0.6, (count, seconds))
    lag += np.where(draw.random((count, seconds)) < _LATE_SHARE, draw.uniform(150, 400), 0)
    pid = int(draw.integers(100, 30_000))
    world = World(
        seed=seed,
        noise=noise,
        workers=tuple(f"worker-{n + 1}" for n in range(count)),
        per_document=int(draw.integers(15, 40)),
        phases=phases,
        draw=draw,
        acknowledgement_ms=base_ms * float(draw.uniform(0.2, 0.5)),
        delivery_ms=base_ms,
        edit_sigma=float(draw.uniform(0.15, 0.4)),
        tail_share=0.03 if noise == "heavy-tail" else 0.003,
        level=_level(noise, seconds, draw),
        worker_level=np.broadcast_to(draw.normal(0, 0.03, (count, 1)), (count, seconds)).copy(),
        cpu_percent=np.clip(cpu, 1, 100),
        lag_ms=lag,
        late_ms=np.minimum(lag / 4, 20),
        missed_share=np.zeros((count, seconds)),
        unacknowledged_share=np.full(seconds, 0.0005),
        failed_share=np.full(seconds, 0.0005),
        background_errors=np.full(seconds, float(draw.uniform(0, 0.03))),
        relay_memory_mb=_memory(seconds, draw),
        relay_response_ms=draw.lognormal(math.log(4), 0.4, seconds),
        relay_fails=draw.random(seconds) < _FAILED_POLLS,
        relay_pid=np.full(seconds, pid),
        relay_uptime_s=float(draw.uniform(30, 100_000)) + np.arange(seconds, dtype=float),
        clock_ms=np.broadcast_to(draw.normal(0, 3, (count, 1)), (count, seconds)).copy(),
        clock_error_ms=float(draw.uniform(0.5, 3)),
    )
    world.dropped += [
        (float(draw.uniform(0, seconds)), int(draw.integers(connections)))
        for _ in range(int(draw.poisson(0.002 * seconds)))
    ]
    return world


def _holds_s(draw: np.random.Generator) -> list[int]:
    """Return the lengths of a run's sustained phases: of one, or of two that follow each other."""
    whole = int(draw.integers(120, 420))
    if whole < 160 or draw.random() >= _TWO_PHASES_SHARE:  # noqa: PLR2004 - room for two
        return [whole]
    first = int(draw.integers(80, whole - 79))
    return [first, whole - first]


def _level(noise: str, seconds: int, draw: np.random.Generator) -> Floats:
    """Return the logarithm of the level of latency: what neighbouring seconds share."""
    level = np.zeros(seconds)
    shocks = draw.standard_normal(seconds) * 0.05
    for second in range(1, seconds):
        level[second] = 0.7 * level[second - 1] + shocks[second]
    if noise == "bursty":
        for _ in range(int(draw.poisson(seconds / 45))):
            at, length = int(draw.integers(seconds)), int(draw.integers(2, 6))
            level[at : at + length] += math.log(draw.uniform(1.15, 1.4))
    if noise == "drifting":
        period_s = float(draw.uniform(80, 600))
        level += 0.12 * np.sin(2 * math.pi * np.arange(seconds) / period_s + draw.uniform(0, 6.3))
    return level


def _memory(seconds: int, draw: np.random.Generator) -> Floats:
    """Return a relay's memory: a level, a collector's saw-tooth, and a little growth."""
    base = float(np.exp(draw.uniform(math.log(60), math.log(800))))
    period_s, at = float(draw.uniform(8, 40)), np.arange(seconds)
    saw = base * draw.uniform(0, 0.02) * ((at / period_s) % 1)
    growth = base * draw.uniform(0, 0.012) * at / seconds
    noise: Floats = base + saw + growth + base * 0.002 * draw.standard_normal(seconds)
    return noise
