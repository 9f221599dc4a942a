"""The runs of a store, for the command line: list, find, stop, delete."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from run_store.errors import CannotRunError, DeadlineError, NoSuchRunError, UsageError
from run_store.layout import RUNS, RunLayout
from run_store.messages import Lease, RunRecord
from run_store.store import Store
from scenarios.model import Scenario

AT_ONCE = 8
LOST_AFTER_S = 3600.0
"""A run still marked as running so long after it should have ended is not running any more."""
REPORT_WITHIN_S = 1800.0
"""How long a report may take: two tries of 15 minutes."""
CONDUCTED_WITHIN_S = 45.0
"""A lease that stands still for so long is kept by nobody; agents give up after 30 s."""


@dataclass(frozen=True)
class StoredRun:
    """One run as `run.json` and `summary.json` tell it; `record` is None if it has no record."""

    run_id: str
    record: RunRecord | None
    summary: dict[str, Any]

    @property
    def started(self) -> dt.datetime | None:
        """When it was opened, in UTC."""
        if self.record is None:
            return None
        return dt.datetime.fromtimestamp(self.record.created_us / 1e6, dt.UTC)

    @property
    def state(self) -> str:
        """`running`, `reporting`, `reported`, `failed`, `stopped`, or `lost`: it ended untold."""
        record = self.record
        if record is None or record.state != "running":
            return record.state if record else "lost"
        if record.ended_us is not None:
            reporting = time.time() - record.ended_us / 1e6 < REPORT_WITHIN_S
            return "reporting" if reporting else "lost"
        since_us = record.attempts[-1].started_us if record.attempts else record.created_us
        try:
            planned_s = Scenario.model_validate(record.scenario).duration_s
        except ValidationError:
            planned_s = 0.0  # written by another version
        return "lost" if time.time() - since_us / 1e6 > planned_s + LOST_AFTER_S else "running"

    def row(self) -> dict[str, Any]:
        """Return what a list shows of it; None where something is not known."""
        record = self.record
        return {
            "run_id": self.run_id,
            "started_at": self.started.isoformat(timespec="seconds") if self.started else None,
            "scenario": record.scenario.get("name") if record else None,
            "state": self.state,
            "verdict": (record.verdict or None) if record else None,
            "validity": (record.validity or None) if record else None,
            "capacity": _sentence(self.summary.get("capacity")),
            "relay_url": record.relay_url if record else None,
        }


def _sentence(capacity: object) -> str | None:
    return capacity.get("sentence") if isinstance(capacity, dict) else None


def stored_runs(store: Store) -> list[StoredRun]:
    """Return all runs of a store, the newest first."""
    names = store.folders(RUNS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = [run for run in pool.map(lambda name: _read(store, name), names) if run]
    runs.sort(key=lambda run: (run.record.created_us if run.record else 0, run.run_id))
    return runs[::-1]


def find_run(store: Store | None, wanted: str, *, results: Path) -> str:
    """Return the id of the run that is meant: all of it, or an end of it that only one has.

    Raises NoSuchRunError or, when several are meant, UsageError.
    """
    if store is None:
        raise NoSuchRunError(
            f"There is no store in {results}, so there is no run {wanted}.",
            hint="Name the folder with --results, or the bucket with --store.",
        )
    names = store.folders(RUNS)
    found = [wanted] if wanted in names else [name for name in names if name.endswith(wanted)]
    if len(found) > 1:
        raise UsageError(f"{wanted} could be {', '.join(found[:5])}.", hint="Give all of the id.")
    if not found or not store.keys(RunLayout(found[0]).root):
        raise NoSuchRunError(
            f"There is no run {wanted} in {store.address.url}.",
            hint="`relay-load runs` lists those that there are.",
        )
    return found[0]


def stop_run(store: Store, run_id: str, *, within_s: float, say: Callable[[str], None]) -> str:
    """Ask a run to end in order, wait until it has, and return the state it ended in.

    Raises DeadlineError if it goes on, CannotRunError if nobody conducts it any more.
    """
    layout = RunLayout(run_id)
    record = _record(store, run_id)
    if record.ended_us is not None:
        say(f"{run_id} has ended already")
        return record.state
    attempt = record.attempts[-1].number if record.attempts else 1
    request = {"asked_at": dt.datetime.now(dt.UTC).isoformat(), "attempt": attempt}
    store.put(layout.stop, json.dumps(request).encode(), content_type="application/json")
    say(f"asked {run_id} to end; waiting until it has")
    now = time.monotonic()
    deadline, counter, moved_at = now + within_s, -1, now
    while True:
        record = _record(store, run_id)
        if record.ended_us is not None and (record.verdict or record.state != "running"):
            return record.state
        lease = store.get_message(layout.lease(attempt), Lease)
        now = time.monotonic()
        if lease is not None and lease.counter != counter:
            counter, moved_at = lease.counter, now
        if lease is not None and now - moved_at > CONDUCTED_WITHIN_S:
            raise CannotRunError(
                f"Nobody conducts {run_id} any more: its lease has not moved for "
                f"{CONDUCTED_WITHIN_S:g} s.",
                hint="Its workers end by themselves. `relay-load report` shows what it measured.",
            )
        if now > deadline:
            raise DeadlineError(
                f"{run_id} has not ended within {within_s:g} s.",
                hint="It has been asked to: look again with `relay-load runs`.",
            )
        time.sleep(0.5)


def ended_beyond(runs: list[StoredRun], keep: int) -> list[StoredRun]:
    """Return the runs to delete so that `keep` ended ones stay, the oldest first.

    `runs` come newest first. One that is running counts for nothing and is never returned.
    """
    ended = [run for run in runs if run.state not in ("running", "reporting")]
    return ended[keep:][::-1]


def delete_run(store: Store, run_id: str, *, results: Path) -> int:
    """Delete a run's objects, and its folder in `results`; return how many objects it had.

    `run.json` goes last: a deletion that is cut short can be repeated.
    """
    layout = RunLayout(run_id)
    keys = [key for key in store.keys(layout.root) if key != layout.run]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(store.delete, keys))
    store.delete(layout.run)
    shutil.rmtree(results / run_id, ignore_errors=True)
    return len(keys) + 1


def _record(store: Store, run_id: str) -> RunRecord:
    record = store.get_message(RunLayout(run_id).run, RunRecord)
    if record is None:
        raise NoSuchRunError(f"{run_id} has no run.json in {store.address.url}.")
    return record


def _read(store: Store, run_id: str) -> StoredRun | None:
    """Read one run; None for what is left of a deleted one: folders without objects."""
    layout = RunLayout(run_id)
    record = None
    with contextlib.suppress(ValidationError):  # of another version, or cut short: shown as lost
        record = RunRecord.model_validate_json(store.get(layout.run) or b"")
    if record is None and not store.keys(layout.root):
        return None
    summary: Any = None
    if record is not None and record.verdict:
        with contextlib.suppress(ValueError):
            summary = json.loads(store.get(layout.report("summary.json")) or b"{}")
    return StoredRun(run_id, record, summary if isinstance(summary, dict) else {})
