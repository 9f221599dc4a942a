"""Anomalies whose kind, strength, window and worker are known, put into a world."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from benchmarks.synthetic_world import World
from reports.findings.finding import KINDS, Cause, Kind

Strength = Literal["weak", "middle", "strong"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)
_WHOLE_PHASE = ("latency_trend", "memory_leak", "worker_unlike_others", "clock_skew")
_EDGE_S = 15
_EVEN = 0.5


@dataclass(frozen=True)
class Anomaly:
    """What was put where: run time in seconds; `worker` is an index, None if it is nobody's."""

    kind: Kind
    strength: Strength
    from_s: float
    to_s: float
    worker: int | None = None


CONSEQUENCES: dict[Kind, frozenset[Kind]] = {
    "latency_spike": frozenset(),
    "throughput_collapse": frozenset({"latency_spike"}),
    "relay_restarted": frozenset(
        {"connection_drops", "relay_silent", "error_burst", "latency_spike"}
    ),
    "generator_saturated": frozenset({"latency_spike"}),
}
"""What an anomaly brings with it in the same window: found or not, it is no mistake."""

_CAUSES: dict[Kind, frozenset[Cause]] = {
    "latency_spike": frozenset({"unknown"}),
    "latency_trend": frozenset({"unknown"}),
    "throughput_collapse": frozenset({"unknown"}),
    "error_burst": frozenset({"unknown"}),
    "connection_drops": frozenset({"relay", "unknown"}),
    "memory_leak": frozenset({"relay"}),
    "relay_silent": frozenset({"relay"}),
    "relay_restarted": frozenset({"relay"}),
    "sync_divergence": frozenset({"relay", "unknown"}),
    "worker_unlike_others": frozenset({"network"}),
    "generator_saturated": frozenset({"generator"}),
    "worker_lost": frozenset({"generator"}),
    "clock_skew": frozenset({"generator"}),
}
_SLOW_RESPONSE_MS = 40.0


def right_causes(world: World, anomaly: Anomaly) -> frozenset[Cause]:
    """Return the causes that can be read from what was put into the world: not always one."""
    if anomaly.kind == "latency_spike":
        response_ms = float(np.median(world.relay_response_ms[_window(anomaly)]))
        return frozenset({"relay"}) if response_ms > _SLOW_RESPONSE_MS else _CAUSES[anomaly.kind]
    return _CAUSES[anomaly.kind]


def place(world: World, kind: Kind, strength: Strength, taken: list[Anomaly]) -> Anomaly:
    """Return an anomaly with a window in a sustained phase that overlaps none of `taken`."""
    draw = world.draw
    holds = world.sustained
    begin, end = holds[int(draw.integers(len(holds)))]
    worker = int(draw.integers(len(world.workers)))
    if kind == "sync_divergence":
        return Anomaly(kind, strength, holds[-1][1], world.length_s)
    if kind in ("worker_unlike_others", "clock_skew"):
        return Anomaly(kind, strength, 0, world.length_s, worker)
    if kind == "memory_leak":
        return Anomaly(kind, strength, holds[0][0], holds[-1][1])
    if kind in _WHOLE_PHASE:
        return Anomaly(kind, strength, begin, end)
    own = worker if kind in ("generator_saturated", "worker_lost") else None
    if kind == "worker_lost" and strength == "strong":
        return Anomaly(
            kind, strength, float(draw.integers(begin + 30, end - 30)), world.length_s, own
        )
    for _ in range(50):
        # What lasts longer than a part of its phase is what is usual there.
        length = min(_length_s(kind, strength, world), (end - begin) // 4)
        at = float(draw.integers(begin + _EDGE_S, max(end - _EDGE_S - length, begin + _EDGE_S + 1)))
        if all(
            at + length + 20 < a.from_s or at > a.to_s + 20 or a.kind in _WHOLE_PHASE for a in taken
        ):
            break
    return Anomaly(kind, strength, at, at + length, own)


def _length_s(kind: Kind, strength: Strength, world: World) -> int:
    index = STRENGTHS.index(strength)
    if kind == "connection_drops":
        return int(world.draw.integers(1, 6))
    if kind == "relay_silent":
        return (2, 8, 30)[index]
    if kind == "relay_restarted":
        return (1, 2, 6)[index]
    if kind == "worker_lost":
        return (5, 15, 30)[index]
    return int(world.draw.integers(10, 40))


def inject(world: World, anomaly: Anomaly) -> None:
    """Change a world so that the anomaly is in it."""
    _INJECT[anomaly.kind](world, anomaly, STRENGTHS.index(anomaly.strength))


def _window(anomaly: Anomaly) -> slice:
    return slice(int(anomaly.from_s), int(anomaly.to_s))


def _spike(world: World, anomaly: Anomaly, index: int) -> None:
    world.level[_window(anomaly)] += math.log((1.7, 3.0, 8.0)[index])
    if world.draw.random() < _EVEN:
        world.relay_response_ms[_window(anomaly)] *= 15


def _trend(world: World, anomaly: Anomaly, index: int) -> None:
    window = _window(anomaly)
    length = window.stop - window.start
    world.level[window] += math.log((1.4, 2.0, 4.0)[index]) * np.arange(length) / length


def _collapse(world: World, anomaly: Anomaly, index: int) -> None:
    world.unacknowledged_share[_window(anomaly)] = (0.35, 0.7, 0.97)[index]


def _burst(world: World, anomaly: Anomaly, index: int) -> None:
    world.failed_share[_window(anomaly)] = (0.08, 0.35, 0.9)[index]


def _drop(world: World, anomaly: Anomaly, index: int) -> None:
    open_ = int(world.planned(np.array([anomaly.from_s]))[0])
    count = max(1, round((0.03, 0.12, 0.5)[index] * open_))
    for connection in world.draw.choice(open_, count, replace=False):
        world.dropped.append(
            (float(world.draw.uniform(anomaly.from_s, anomaly.to_s)), int(connection))
        )


def _leak(world: World, anomaly: Anomaly, index: int) -> None:
    window = _window(anomaly)
    length = window.stop - window.start
    growth = (0.05, 0.2, 0.8)[index] * world.relay_memory_mb[window.start]
    world.relay_memory_mb[window] += growth * np.arange(length) / length
    world.relay_memory_mb[window.stop :] += growth


def _silence(world: World, anomaly: Anomaly, _index: int) -> None:
    world.relay_fails[_window(anomaly)] = True


def _restart(world: World, anomaly: Anomaly, index: int) -> None:
    back = int(anomaly.to_s)
    world.relay_uptime_s[back:] = np.arange(world.length_s - back, dtype=float)
    world.relay_memory_mb[back:] *= 0.8
    if index:
        world.relay_pid[back:] += 17
        world.relay_fails[_window(anomaly)] = True
        open_ = int(world.planned(np.array([anomaly.from_s]))[0])
        world.dropped += [(anomaly.from_s + 0.3, connection) for connection in range(open_)]


def _diverge(world: World, _anomaly: Anomaly, index: int) -> None:
    world.lost_edits = (0, 3, 40)[index]
    world.diverged_replicas = (1, 3, 20)[index]


def _unlike(world: World, anomaly: Anomaly, index: int) -> None:
    world.worker_level[anomaly.worker or 0] += math.log((1.3, 2.0, 5.0)[index])


def _saturate(world: World, anomaly: Anomaly, index: int) -> None:
    worker, window = anomaly.worker or 0, _window(anomaly)
    length = window.stop - window.start
    late = (100.0, 300.0, 1500.0)[index] * world.draw.uniform(0.7, 1.3, length)
    world.cpu_percent[worker, window] = np.clip(
        (93, 96, 99)[index] + world.draw.normal(0, 1, length), 0, 100
    )
    world.lag_ms[worker, window] = late
    world.late_ms[worker, window] = 0.8 * late
    world.missed_share[worker, window] = (0, 0, 0.3)[index]


def _lose(world: World, anomaly: Anomaly, index: int) -> None:
    worker = anomaly.worker or 0
    world.silent.append((worker, anomaly.from_s, anomaly.to_s))
    if index == 2:  # noqa: PLR2004 - strong: for good
        world.lost[worker] = anomaly.from_s


def _skew(world: World, anomaly: Anomaly, index: int) -> None:
    sign = 1 if world.draw.random() < _EVEN else -1
    world.clock_ms[anomaly.worker or 0] += sign * (40.0, 300.0, 3_600_000.0)[index]


_INJECT: dict[Kind, Callable[[World, Anomaly, int], None]] = dict(
    zip(
        KINDS,
        (
            _spike,
            _trend,
            _collapse,
            _burst,
            _drop,
            _leak,
            _silence,
            _restart,
            _diverge,
            _unlike,
            _saturate,
            _lose,
            _skew,
        ),
        strict=True,
    )
)
