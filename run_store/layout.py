"""Where everything of a run stands in the bucket.

Keys are relative to the store's prefix. Numbers are padded so that listings come in order.
Written once and never changed, but for `run.json`, `lease.json`, `presence.json`, `status.json`
and `report/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RUNS = "runs/"
LOCKS = "locks/"
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,62}")
_PART = re.compile(
    r"samples/(?P<kind>[a-z]+)/attempt=(?P<attempt>\d+)/phase=(?P<phase>\d{2,}-[a-z0-9-]+)"
    r"/worker=(?P<worker>[^/]+)/(?P<first>\d{6})(?:-(?P<last>\d{6}))?\.parquet\Z"
)


def is_run_id(text: str) -> bool:
    """Say whether `text` can be a run's id: lower-case letters, digits and hyphens."""
    return bool(_RUN_ID.fullmatch(text))


def relay_claims(relay: str) -> str:
    """Return the prefix of the claims to a relay, which is named `host-port`."""
    return f"{LOCKS}relay/{relay}/"


def phase_label(index: int, name: str) -> str:
    """Return a phase's label, such as `02-sustained`: its place in the scenario and its name."""
    return f"{index:02d}-{name}"


@dataclass(frozen=True)
class Part:
    """One Parquet object of samples; a compacted one holds the parts `first` to `last`."""

    key: str
    kind: str
    attempt: int
    phase: str
    worker: str
    first: int
    last: int

    @classmethod
    def from_key(cls, key: str) -> Part | None:
        """Return what a key says, or None if it is no part's."""
        match = _PART.search(key)
        if not match:
            return None
        first = int(match["first"])
        return cls(
            key=key,
            kind=match["kind"],
            attempt=int(match["attempt"]),
            phase=match["phase"],
            worker=match["worker"],
            first=first,
            last=int(match["last"] or first),
        )


def without_covered(parts: list[Part]) -> list[Part]:
    """Return the parts to read: none whose rows a compacted part holds as well.

    An agent writes the compacted part before it deletes the small ones; a reader that comes
    between the two must not count rows twice.
    """
    chosen: list[Part] = []
    for part in sorted(
        parts, key=lambda p: (p.kind, p.attempt, p.phase, p.worker, p.first, -p.last)
    ):
        before = chosen[-1] if chosen else None
        same = before is not None and (
            before.kind,
            before.attempt,
            before.phase,
            before.worker,
        ) == (
            part.kind,
            part.attempt,
            part.phase,
            part.worker,
        )
        if before is not None and same and part.last <= before.last:
            continue
        chosen.append(part)
    return chosen


@dataclass(frozen=True)
class RunLayout:
    """The keys of one run."""

    run_id: str

    @property
    def root(self) -> str:
        """The run's prefix, with a slash at its end."""
        return f"{RUNS}{self.run_id}/"

    @property
    def run(self) -> str:
        """`run.json`: a RunRecord."""
        return f"{self.root}run.json"

    @property
    def stop(self) -> str:
        """`stop.json`: whoever writes it asks for the run's end."""
        return f"{self.root}stop.json"

    def presence(self, attempt: int) -> str:
        """`presence.json`: a Lease, raised while a process looks after the attempt.

        From the attempt's opening to its report, and so longer than the workers' lease.
        """
        return f"{self.root}attempt={attempt}/presence.json"

    def report_claims(self) -> str:
        """The prefix of the claims to make a report that is owed."""
        return f"{self.root}report-claims/"

    @property
    def capacity(self) -> str:
        """`capacity.json`: a CapacityResult, of a run that searched."""
        return f"{self.root}capacity.json"

    def lease(self, attempt: int) -> str:
        """`lease.json`: a Lease, raised while the orchestrator lives."""
        return f"{self.root}attempt={attempt}/lease.json"

    def orders(self, attempt: int) -> str:
        """The prefix of an attempt's orders."""
        return f"{self.root}attempt={attempt}/orders/"

    def order(self, attempt: int, number: int) -> str:
        """One Order."""
        return f"{self.orders(attempt)}{number:06d}.json"

    def workers(self, attempt: int) -> str:
        """The prefix of an attempt's workers."""
        return f"{self.root}attempt={attempt}/workers/"

    def status(self, attempt: int, worker: str) -> str:
        """`status.json`: a worker's Status."""
        return f"{self.workers(attempt)}{worker}/status.json"

    def samples(self, kind: str = "") -> str:
        """The prefix of the run's samples, or of one kind of them."""
        return f"{self.root}samples/{kind + '/' if kind else ''}"

    def part(
        self,
        kind: str,
        *,
        attempt: int,
        phase: str,
        worker: str,
        first: int,
        last: int | None = None,
    ) -> str:
        """One part; a compacted one when `last` is given."""
        name = f"{first:06d}" if last is None else f"{first:06d}-{last:06d}"
        folder = f"attempt={attempt}/phase={phase}/worker={worker}"
        return f"{self.samples(kind)}{folder}/{name}.parquet"

    def phases(self) -> str:
        """The prefix of the marks of complete phases."""
        return f"{self.root}phases/"

    def phase(self, label: str) -> str:
        """A PhaseRecord: this phase is complete."""
        return f"{self.phases()}{label}.json"

    def steps(self, label: str = "") -> str:
        """The prefix of the measured steps of all phases, or of one."""
        return f"{self.root}steps/{label + '/' if label else ''}"

    def step(self, label: str, number: int) -> str:
        """A Step of a phase: it has been judged."""
        return f"{self.steps(label)}{number:06d}.json"

    def report(self, name: str = "") -> str:
        """A file of the report, or the prefix of all."""
        return f"{self.root}report/{name}"
