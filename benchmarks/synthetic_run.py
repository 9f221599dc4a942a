"""Samples of a run that nobody ran, as its workers would have written them.

`samples_of` turns a world into columns for each kind, phase and worker; `synthetic_store` brings
them to the report's own views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.synthetic_world import BEGAN_US, Floats, Ints, World
from run_store.layout import phase_label

Columns = dict[str, Any]
Samples = dict[tuple[str, str, str], Columns]
"""Columns by (kind, phase's label, worker)."""
_AWAY_S = 2.5
_TAIL_ALPHA = 1.8
NEVER = np.iinfo(np.int64).min
"""Stands for null in columns of whole numbers."""


def samples_of(world: World) -> Samples:
    """Return every sample of a world."""
    writer = _Writer(world)
    edits = writer.edits()
    writer.deliveries(edits)
    writer.connections()
    writer.resources()
    writer.relay()
    writer.errors(edits)
    writer.replicas(edits)
    return writer.samples


class _Writer:
    """Fills samples from a world, one kind at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.draw = world.draw
        self.samples: Samples = {}
        self.starts = np.array(world.phase_starts())
        self.labels = [phase_label(i, phase.name) for i, phase in enumerate(world.phases)]

    def put(self, kind: str, at_s: Floats, worker: Ints, columns: Columns) -> None:
        """Split rows by phase and worker; leave out what a silent worker did not write."""
        phase = np.clip(np.searchsorted(self.starts, at_s, side="right") - 1, 0, None)
        keep = np.ones(len(at_s), bool)
        for lost, from_s, to_s in self.world.silent:
            keep &= ~((worker == lost) & (at_s >= from_s) & (at_s < to_s))
        for p, label in enumerate(self.labels):
            for w, name in enumerate(self.world.workers):
                rows = np.flatnonzero(keep & (phase == p) & (worker == w))
                if len(rows):
                    self.samples[kind, label, name] = {
                        column: values[rows] for column, values in columns.items()
                    }

    def us(self, at_s: Floats, worker: Ints) -> Ints:
        """Put run time on the clocks of workers."""
        second = np.clip(at_s.astype(np.int64), 0, self.world.length_s - 1)
        skew_ms = self.world.clock_ms[worker, second]
        return (BEGAN_US + np.round(at_s * 1e6) + np.round(skew_ms * 1000)).astype(np.int64)

    def edits(self) -> dict[str, npt.NDArray[Any]]:
        """Write the edits; return them on true run time."""
        world, draw = self.world, self.draw
        at_s = np.concatenate(
            [
                start + (np.arange(round(p.edits_per_s * p.duration_s)) + 0.5) / p.edits_per_s
                for start, p in zip(self.starts, world.phases, strict=True)
                if p.edits_per_s > 0
            ]
        )
        count = len(at_s)
        second = np.minimum(at_s.astype(np.int64), world.length_s - 1)
        open_ = np.maximum(world.planned(at_s - 2), 1)
        connection = (draw.random(count) * open_).astype(np.int64)
        worker = connection % len(world.workers)
        late_s = world.late_ms[worker, second] * draw.uniform(0.5, 1, count) / 1000
        log = world.level[second] + world.edit_sigma * draw.standard_normal(count)
        tail = draw.random(count) < world.tail_share
        log += np.where(tail, np.minimum(draw.pareto(_TAIL_ALPHA, count), 1.6), 0)
        own = log + world.worker_level[worker, second]
        ack_s = world.acknowledgement_ms / 1000 * np.exp(own)
        outcome = draw.random(count)
        missed = draw.random(count) < world.missed_share[worker, second]
        failed = ~missed & (outcome < world.failed_share[second])
        silent = ~missed & ~failed & (draw.random(count) < world.unacknowledged_share[second])
        started_s = at_s + late_s
        error = np.full(count, None, dtype=object)
        error[missed], error[failed] = "missed", "edit_failed"
        edits = {
            "edit": np.arange(count),
            "document": connection // world.per_document,
            "connection": connection,
            "worker": worker,
            "at_s": at_s,
            "started_s": started_s,
            "acknowledged_s": started_s + ack_s,
            "log": log,
            "done": ~(missed | failed | silent),
            "failed": failed,
            "open": open_,
        }
        self.put(
            "edits",
            at_s,
            worker,
            {
                "edit": edits["edit"],
                "document": edits["document"],
                "generation": np.zeros(count, np.int64),
                "connection": connection,
                "intended_us": self.us(at_s, worker),
                "started_us": np.where(missed, NEVER, self.us(started_s, worker)),
                "acknowledged_us": np.where(
                    edits["done"], self.us(started_s + ack_s, worker), NEVER
                ),
                "held": np.zeros(count, bool),
                "error": error,
            },
        )
        return edits

    def deliveries(self, edits: dict[str, npt.NDArray[Any]]) -> None:
        """Write what each other connection of an edit's document showed."""
        world, draw = self.world, self.draw
        size = world.per_document
        done = np.flatnonzero(edits["done"])
        row = np.repeat(done, size)
        observer = edits["document"][row] * size + np.tile(np.arange(size), len(done))
        keep = (observer < edits["open"][row]) & (observer != edits["connection"][row])
        row, observer = row[keep], observer[keep]
        worker = observer % len(world.workers)
        second = np.minimum(edits["at_s"][row].astype(np.int64), world.length_s - 1)
        log = edits["log"][row] + world.worker_level[worker, second]
        log += 0.15 * draw.standard_normal(len(row))
        seen_s = edits["started_s"][row] + world.delivery_ms / 1000 * np.exp(log)
        writer = edits["worker"][row]
        # A saturated observer shows late what came in time.
        seen_s += world.late_ms[worker, second] * draw.random(len(row)) / 1000
        self.put(
            "deliveries",
            edits["at_s"][row],
            worker,
            {
                "edit": edits["edit"][row],
                "document": edits["document"][row],
                "generation": np.zeros(len(row), np.int64),
                "writer": edits["connection"][row],
                "observer": observer,
                "intended_us": self.us(edits["at_s"][row], writer),
                "sent_us": self.us(edits["started_s"][row], writer),
                "seen_us": self.us(seen_s, worker),
                "same_worker": writer == worker,
                "repeat": np.ones(len(row), np.int64),
                "weight": np.ones(len(row)),
            },
        )

    def connections(self) -> None:
        """Write when connections opened, and the drops with their return."""
        world = self.world
        grid = np.arange(0, world.length_s, 0.25)
        planned = world.planned(grid)
        most = int(planned.max())
        due = grid[np.searchsorted(planned, np.arange(most) + 1)]
        begins = [(float(at), c, 1) for c, at in enumerate(due)]
        drops = [(at, c) for at, c in world.dropped if c < most and at > due[c] + 3]
        begins += [(at + float(self.draw.uniform(0.5, _AWAY_S)), c, 2) for at, c in drops]
        events: list[tuple[float, int, str, float, int, str | None]] = []
        for at, c, tries in begins:
            took = float(self.draw.uniform(5, 30))
            for event, share in (("opening", 0), ("open", 0.3), ("handshake", 0.6), ("synced", 1)):
                events.append((at + took * share / 1000, c, event, took * share, tries, None))
        events += [(at, c, "dropped", 1000.0, 1, "connection_dropped") for at, c in drops]
        events = [event for event in events if event[0] < world.length_s - 0.1]
        at_s = np.array([e[0] for e in events])
        connection = np.array([e[1] for e in events], np.int64)
        worker = connection % len(world.workers)
        self.put(
            "connections",
            at_s,
            worker,
            {
                "at_us": self.us(at_s, worker),
                "connection": connection,
                "document": connection // world.per_document,
                "generation": np.zeros(len(events), np.int64),
                "event": np.array([e[2] for e in events], dtype=object),
                "duration_ms": np.array([e[3] for e in events]),
                "tries": np.array([e[4] for e in events], np.int64),
                "cause": np.array([e[5] for e in events], dtype=object),
            },
        )

    def resources(self) -> None:
        """Write one row a second for each worker."""
        world, draw = self.world, self.draw
        count, seconds = len(world.workers), world.length_s
        worker = np.repeat(np.arange(count), seconds)
        second = np.tile(np.arange(seconds), count)
        at_s = second + draw.uniform(0.2, 0.4, count)[worker]
        planned = world.planned(at_s)
        target = (planned + count - 1 - worker) // count
        away = np.zeros((count, seconds), np.int64)
        for at, connection in world.dropped:
            away[connection % count, int(at) : int(at + _AWAY_S)] += 1
        open_ = np.maximum(target - away[worker, second], 0)
        noise = draw.uniform(-0.9, 0.9, len(second)) * world.clock_error_ms
        self.put(
            "resources",
            at_s,
            worker,
            {
                "at_us": self.us(at_s, worker),
                "cpu_percent": world.cpu_percent[worker, second],
                "agent_cpu_percent": 0.1 * world.cpu_percent[worker, second],
                "browser_cpu_percent": 1.5 * world.cpu_percent[worker, second],
                "rss_mb": 150 + 5 * draw.random(len(second)),
                "browser_pss_mb": 400 + 2.0 * target,
                "js_heap_mb": 40 + 20 * draw.random(len(second)),
                "loop_lag_ms": world.lag_ms[worker, second] * 0.3,
                "page_lag_ms": world.lag_ms[worker, second],
                "connections_target": target,
                "connections_open": open_,
                "connections_synced": open_,
                "connections_healthy": open_,
                "sockets_attempted": target,
                "edits_pending": draw.integers(0, 3, len(second)),
                "clock_offset_ms": world.clock_ms[worker, second] + noise,
                "clock_error_ms": np.full(len(second), world.clock_error_ms),
                "disk_free_mb": np.full(len(second), 20_000.0),
            },
        )

    def relay(self) -> None:
        """Write one poll a second, by the first worker that stays to the end."""
        world, draw = self.world, self.draw
        absent = {lost for lost, _, _ in world.silent}
        sampler = next(w for w in range(len(world.workers)) if w not in absent)
        second = np.arange(world.length_s)
        at_s = second + draw.uniform(0.4, 0.6, len(second))
        worker = np.full(len(second), sampler)
        fails = world.relay_fails
        error = np.full(len(second), None, dtype=object)
        error[fails] = "timed out"
        planned = world.planned(at_s)
        for at, _ in world.dropped:
            planned[int(at) : int(at + _AWAY_S)] -= 1

        def known(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.where(fails, np.nan, values)

        self.put(
            "relay",
            at_s,
            worker,
            {
                "at_us": self.us(at_s, worker),
                "response_ms": known(world.relay_response_ms),
                "error": error,
                "timestamp_ms": known((BEGAN_US + at_s * 1e6) / 1000),
                "connections": np.where(fails, NEVER, np.maximum(planned, 0)),
                "memory_rss_mb": known(world.relay_memory_mb + 0.02 * planned),
                "memory_total_mb": known(np.full(len(second), 8192.0)),
                "uptime_s": known(world.relay_uptime_s),
                "pid": np.where(fails, NEVER, world.relay_pid),
            },
        )

    def errors(self, edits: dict[str, npt.NDArray[Any]]) -> None:
        """Write an error for each failed edit and each drop, and a few of no consequence."""
        world, draw = self.world, self.draw
        failed = edits["failed"]
        counts = draw.poisson(world.background_errors)
        stray = np.repeat(np.arange(world.length_s), counts) + draw.random(int(counts.sum()))
        strays = draw.integers(0, len(world.workers), len(stray))
        dropped = np.array([at for at, _ in world.dropped])
        droppers = np.array([c for _, c in world.dropped], np.int64)
        at_s = np.concatenate([edits["started_s"][failed], stray, dropped])
        worker = np.concatenate([edits["worker"][failed], strays, droppers % len(world.workers)])
        kinds = ["edit_failed"] * int(failed.sum()) + [world.error_type] * len(stray)
        kinds += ["connection_dropped"] * len(dropped)
        nobody = np.full(len(at_s), NEVER)
        self.put(
            "errors",
            at_s,
            worker.astype(np.int64),
            {
                "at_us": self.us(at_s, worker.astype(np.int64)),
                "type": np.array(kinds, dtype=object),
                "message": np.array([f"{kind}: it did not work" for kind in kinds], dtype=object),
                "connection": nobody,
                "document": nobody,
                "weight": np.ones(len(at_s)),
            },
        )

    def replicas(self, edits: dict[str, npt.NDArray[Any]]) -> None:
        """Write the last look at each replica, in the cool-down's last second."""
        world, draw = self.world, self.draw
        count = world.phases[-1].connections
        connection = np.arange(count)
        document = connection // world.per_document
        odd = np.zeros(count, bool)
        odd[draw.choice(count, min(world.diverged_replicas, count), replace=False)] = True
        missing: list[list[int]] = [[] for _ in range(count)]
        for c in np.flatnonzero(odd):
            inside = edits["edit"][edits["done"] & (edits["document"] == document[c])]
            missing[c] = [int(e) for e in inside[-world.lost_edits :]] if world.lost_edits else []
        at_s = np.full(count, world.length_s - 0.6)
        worker = connection % len(world.workers)
        heads = np.array([f"head-{d}" for d in document], dtype=object)
        heads[odd] = [f"other-{c}" for c in np.flatnonzero(odd)]
        rows = np.empty(count, dtype=object)
        rows[:] = missing
        self.put(
            "replicas",
            at_s,
            worker,
            {
                "at_us": self.us(at_s, worker),
                "connection": connection,
                "document": document,
                "generation": np.zeros(count, np.int64),
                "in_sync": ~odd,
                "heads": heads,
                "edits": np.full(count, 100),
                "missing": rows,
                "changed_us": self.us(at_s - 25, worker),
            },
        )
