"""The fleet's heartbeats summed at an instant, and what lies between two of them: pure.

Counts and histograms in a heartbeat are sums since its agent started, and go on where another took
its place, so the difference of two readings is what happened between them. All of it is
approximate: a heartbeat is up to two seconds old, and a histogram's buckets are 5 % wide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from run_store.histogram import Histogram, merge
from run_store.messages import Counts, Status, Vitals


@dataclass(frozen=True)
class RelayReading:
    """The relay's last poll: when, and what it answered; `error` says why there was no answer."""

    at_us: int
    error: str = ""
    memory_mb: float | None = None
    connections: int | None = None
    uptime_s: float | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True)
class Reading:
    """The whole fleet at one instant. Counts are sums; the rest is as it was just then."""

    at_us: int
    offered: int = 0
    completed: int = 0
    failed: int = 0
    missed: int = 0
    drops: int = 0
    refused: int = 0
    timed_out: int = 0
    connections_open: int = 0
    connections_healthy: int = 0
    connections_target: int = 0
    cpu_share: float = 0.0
    page_lag_ms: float = 0.0
    acknowledgement: Histogram = field(default_factory=Histogram)
    delivery: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    relay: RelayReading | None = None


def reading_of(
    statuses: Mapping[str, Status], *, alive: Collection[str], at_us: int, target: int
) -> Reading:
    """Sum the workers' last heartbeats; a lost worker's counts stay, its connections do not."""
    all_of = list(statuses.values())
    living = [statuses[name].vitals for name in alive if name in statuses]
    polled = [v for v in living if v.relay_at_us is not None]
    last = max(polled, key=lambda vitals: vitals.relay_at_us or 0, default=None)
    return Reading(
        at_us=at_us,
        offered=sum(s.counts.edits_offered for s in all_of),
        completed=sum(s.counts.edits_completed for s in all_of),
        failed=sum(s.counts.edits_failed for s in all_of),
        missed=sum(s.counts.edits_missed for s in all_of),
        drops=sum(s.counts.drops for s in all_of),
        refused=sum(s.counts.connect_failures for s in all_of),
        timed_out=sum(s.counts.connect_timeouts for s in all_of),
        connections_open=sum(v.connections_open for v in living),
        connections_healthy=sum(v.connections_healthy for v in living),
        connections_target=target,
        cpu_share=max((v.cpu_percent / 100 for v in living), default=0.0),
        page_lag_ms=max((v.page_lag_ms for v in living), default=0.0),
        acknowledgement=merge(s.acknowledgement for s in all_of),
        delivery=merge(s.delivery for s in all_of),
        lateness=merge(s.lateness for s in all_of),
        relay=_relay_of(last) if last else None,
    )


def counting_on(earlier: Status, status: Status) -> Status:
    """Return the heartbeat of a worker's new agent, counting on from what the one before had.

    A restarted agent counts from nothing; the worker's sums must not fall by that.
    """
    counts = {
        name: getattr(earlier.counts, name) + getattr(status.counts, name)
        for name in Counts.model_fields
    }
    histograms = {
        name: merge([getattr(earlier, name), getattr(status, name)])
        for name in ("acknowledgement", "delivery", "lateness")
    }
    return status.model_copy(update={"counts": Counts(**counts), **histograms})


def _relay_of(vitals: Vitals) -> RelayReading:
    return RelayReading(
        at_us=vitals.relay_at_us or 0,
        error=vitals.relay_error,
        memory_mb=vitals.relay_memory_mb,
        connections=vitals.relay_connections,
        uptime_s=vitals.relay_uptime_s,
        cpu_seconds=vitals.relay_cpu_seconds,
    )


class Readings:
    """The readings of a load, oldest first: its first one, and those of the last `keep_s`."""

    def __init__(self, keep_s: float) -> None:
        self._keep_us = keep_s * 1e6
        self._first: Reading | None = None
        self._recent: deque[Reading] = deque()

    def add(self, reading: Reading) -> None:
        """Take the next reading."""
        self._first = self._first or reading
        self._recent.append(reading)
        while self._recent[0].at_us < reading.at_us - self._keep_us:
            self._recent.popleft()

    def __iter__(self) -> Iterator[Reading]:
        if self._first is not None and self._first is not self._recent[0]:
            yield self._first
        yield from self._recent

    def between(self, from_us: int, to_us: int) -> list[Reading]:
        """Return the readings of a stretch, and the last one before it, to count from."""
        known = [reading for reading in self if reading.at_us <= to_us]
        before = [reading for reading in known if reading.at_us <= from_us]
        return [*before[-1:], *(reading for reading in known if reading.at_us > from_us)]


@dataclass(frozen=True)
class Stretch:
    """What happened between two readings: `readings` are both and those between, in order."""

    readings: Sequence[Reading]

    @property
    def first(self) -> Reading:
        """Where it begins."""
        return self.readings[0]

    @property
    def last(self) -> Reading:
        """Where it ends."""
        return self.readings[-1]

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.last.at_us - self.first.at_us) / 1e6

    def count(self, name: str) -> int:
        """Return by how much one of a reading's counts grew."""
        grown = int(getattr(self.last, name)) - int(getattr(self.first, name))
        return max(grown, 0)

    def histogram(self, name: str) -> Histogram:
        """Return what one of a reading's histograms counted."""
        last: Histogram = getattr(self.last, name)
        first: Histogram = getattr(self.first, name)
        return last.since(first)

    @property
    def error_rate(self) -> float | None:
        """The share of the edits tried that failed; None if none was tried."""
        failed, completed = self.count("failed"), self.count("completed")
        return failed / (failed + completed) if failed + completed else None

    @property
    def per_second(self) -> float:
        """Edits acknowledged a second."""
        return self.count("completed") / self.seconds if self.seconds else 0.0

    @property
    def inner(self) -> Sequence[Reading]:
        """The readings that stand for its seconds: all but the one that it is counted from."""
        return self.readings[1:] or self.readings

    @property
    def polls(self) -> list[RelayReading]:
        """The relay's polls in it, each once, oldest first."""
        seen = {r.relay.at_us: r.relay for r in self.readings if r.relay is not None}
        return [seen[at_us] for at_us in sorted(seen)]

    @property
    def relay_restarted(self) -> bool:
        """Whether the relay began anew: its uptime went back."""
        up = [poll.uptime_s for poll in self.polls if poll.uptime_s is not None]
        return any(later < earlier for earlier, later in pairwise(up))

    @property
    def relay_cpu_share(self) -> float | None:
        """The relay's mean CPU in cores, if it publishes its CPU seconds."""
        known = [(p.at_us, p.cpu_seconds) for p in self.polls if p.cpu_seconds is not None]
        if len(known) < 2 or known[-1][0] <= known[0][0]:  # noqa: PLR2004 - two make a slope
            return None
        return max(0.0, (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0]) * 1e6)
