"""The report that a run still owes: one that was cancelled or killed before it could make it.

A run is looked after for as long as something of its last attempt is being written: `presence.json`
while its process lives, `status.json` while an agent does. One of which nothing was written for
`QUIET_FOR_S`, by the store's own clock, is settled (its end and why are written to `run.json`),
and its report is made of what is in the bucket.

Whoever makes it claims it first, with an object of its own, and looks for others' claims then:
who finds one goes away. So two never make it at once; two that come in the same instant both go
away, and the next one makes it.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reports.build import build_report
from reports.summary import Summary
from run_store.errors import DeadlineError, StoreError
from run_store.layout import RUNS, RunLayout
from run_store.messages import ReportClaim, RunRecord
from run_store.store import Store
from tasks.instants import now_us
from tasks.run_cost import spent_usd

log = logging.getLogger(__name__)

QUIET_FOR_S = 60.0
"""Longer than a lease, after which agents end: by then they have shipped what they had."""
AT_MOST = 5
WITHIN_S = 600.0
ONE_WITHIN_S = 300.0
CLAIMED_FOR_S = 900.0
FAILED_FOR_S = 6 * 3600.0
"""How long a report that could not be made is left alone."""
WHY = "Its process ended before it could end the run in order"
_READERS = 8


def owed_reports(store: Store, *, tail: str = "") -> Iterator[RunRecord]:
    """Yield the runs that owe a report, the newest first; only those whose id ends with `tail`.

    Raises StoreError.
    """
    names = [name for name in store.folders(RUNS) if name.endswith(tail)]
    with ThreadPoolExecutor(_READERS) as pool:
        records = [record for record in pool.map(lambda n: _record(store, n), names) if record]
    for record in sorted(records, key=lambda one: -one.created_us):
        if _may_owe(record) and quiet_s(store, record) > QUIET_FOR_S and _has_to_say(store, record):
            yield record


def make_owed_reports(store: Store, results: Path, *, tail: str = "") -> list[str]:
    """Make reports that are owed, the newest run's first; return the runs that have one now.

    No more than `AT_MOST`, and none is begun after `WITHIN_S`. One that fails is logged, and the
    next one comes. Raises StoreError if the store does not answer at all.
    """
    made: list[str] = []
    deadline = time.monotonic() + WITHIN_S
    tried = 0
    for record in owed_reports(store, tail=tail):
        if tried == AT_MOST or time.monotonic() > deadline:
            break
        key = _claimed(store, record)
        if key is None:
            continue
        tried += 1
        if _made(store, record, results / record.run_id, key):
            made.append(record.run_id)
    return made


def make_report_of_dead(store: Store, run_id: str, folder: Path) -> bool:
    """Settle a run whose process is known to be gone, and make its report if it owes one.

    Returns whether there is one now. What goes wrong is logged: this is called where nobody is
    left to be told.
    """
    try:
        record = _record(store, run_id)
        if record is None or not _may_owe(record) or not _has_to_say(store, record):
            return False
        key = _claimed(store, record)
        return key is not None and _made(store, record, folder, key)
    except StoreError as error:
        log.warning("no report of %s could be made: %s", run_id, error)
        return False


def settle_if_dead(store: Store, run_id: str) -> bool:
    """Write a run's end to its record if its process died without; say whether it did so now."""
    record = _record(store, run_id)
    if record is None or record.state != "running" or quiet_s(store, record) <= QUIET_FOR_S:
        return False
    return _settle(store, record)


def noted(store: Store, run_id: str, summary: Summary) -> None:
    """Write what a report made by hand says to the record of a run that has ended without."""
    record = _record(store, run_id)
    if record is not None and record.ended_us is not None and not record.verdict:
        _note(store, record, summary)


def quiet_s(store: Store, record: RunRecord) -> float:
    """Return for how many seconds nothing of a run's last attempt has been written."""
    layout, number = RunLayout(record.run_id), record.attempts[-1].number
    ages = store.ages_s(layout.run) | store.ages_s(f"{layout.root}attempt={number}/")
    return min(ages.values(), default=float("inf"))


def _record(store: Store, run_id: str) -> RunRecord | None:
    try:
        record = store.get_message(RunLayout(run_id).run, RunRecord)
    except StoreError as error:
        log.warning("%s cannot be read: %s", run_id, error)
        return None
    return record if record is not None and record.attempts else None


def _may_owe(record: RunRecord) -> bool:
    return record.state == "running" or not record.verdict


def _has_to_say(store: Store, record: RunRecord) -> bool:
    """Say whether there is something to report: not of one that was ended before it measured."""
    return record.state != "stopped" or bool(store.keys(RunLayout(record.run_id).samples()))


def _claimed(store: Store, seen: RunRecord) -> str | None:
    """Return the key of our claim to a report; None if somebody else's stands, or it is made."""
    prefix = RunLayout(seen.run_id).report_claims()
    token = secrets.token_hex(8)
    own = f"{prefix}{token}.json"
    if any(True for _ in _standing(store, prefix, own)):
        return None
    store.put_message(own, ReportClaim(token=token))
    if any(True for _ in _standing(store, prefix, own)):
        store.delete(own)
        return None
    # Somebody may have made it, and have given their claim back, since the runs were read.
    record = _unchanged(store, seen)
    if record is None or not _may_owe(record):
        store.delete(own)
        return None
    return own


def _standing(store: Store, prefix: str, own: str) -> Iterator[str]:
    """Yield the claims of others that have not run out; those that have are removed."""
    for key, age_s in store.ages_s(prefix).items():
        claim = store.get_message(key, ReportClaim) if key != own else None
        if claim is not None and age_s < (FAILED_FOR_S if claim.failed else CLAIMED_FOR_S):
            yield key
        elif claim is not None:
            store.delete(key)


def _made(store: Store, record: RunRecord, folder: Path, claim: str) -> bool:
    run_id = record.run_id
    try:
        _settle(store, record)
        into = folder if folder.is_dir() else None
        summary = _within(ONE_WITHIN_S, lambda: build_report(store, run_id, into=into))
        _note(store, record, summary)
    except Exception as error:
        log.exception("the report of %s could not be made", run_id)
        token = claim.rpartition("/")[2].removesuffix(".json")
        store.put_message(claim, ReportClaim(token=token, failed=str(error) or repr(error)))
        return False
    store.delete(claim)
    return True


def _within(seconds: float, work: Callable[[], Summary]) -> Summary:
    """Return what a thread comes to; DeadlineError if it takes too long, and it is left behind."""
    done: list[Summary] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="report")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise DeadlineError(f"The report was not made within {seconds:g} s.")
    return done[0]


def _settle(store: Store, seen: RunRecord) -> bool:
    """Write that a run is over whose process did not live to say so; say whether it was needed."""
    record = _unchanged(store, seen)
    if record is None or record.state != "running":
        return False
    if record.ended_us is None:
        attempt = record.attempts[-1]
        record.ended_us = attempt.ended_us = now_us() - round(quiet_s(store, record) * 1e6)
        attempt.error = f"{WHY}; what follows is made of what is in the store."
        record.problems.append(attempt.error)
        record.state = "stopped" if record.stop_requested else "failed"
        record.actual_usd = spent_usd(store, record)
    else:
        record.state = "reported"  # its load had ended well, and only the report was missing
    store.put_message(RunLayout(record.run_id).run, record)
    return True


def _note(store: Store, seen: RunRecord, summary: Summary) -> None:
    record = _unchanged(store, seen)
    if record is not None:
        record.verdict, record.validity = summary.verdict, summary.validity
        store.put_message(RunLayout(record.run_id).run, record)


def _unchanged(store: Store, seen: RunRecord) -> RunRecord | None:
    """Return a run's record as it stands now; None if the run has been retried meanwhile."""
    record = _record(store, seen.run_id)
    return record if record and len(record.attempts) == len(seen.attempts) else None
