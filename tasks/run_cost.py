"""What a run has cost, as its bill says."""

from __future__ import annotations

import itertools
import logging

from run_store.errors import StoreError
from run_store.messages import RunRecord
from run_store.store import Store
from tasks.instants import now_us

log = logging.getLogger(__name__)


def spent_usd(store: Store, record: RunRecord) -> float | None:
    """Return what a run's machines have cost until now, of all its attempts, in US dollars.

    What was known before if it rents none, or its bill cannot be read; None if a price is not
    known. An attempt that is over, at the latest because another has begun, has cost no more
    since, even if nobody wrote down when its machines went.
    """
    if record.fleet != "ec2":
        return record.actual_usd
    # boto3 is slow to import, and only rented machines have a bill.
    from tasks.fleets.ec2_bill import read_bill  # noqa: PLC0415

    try:
        bill = read_bill(store, record.run_id)
    except StoreError as error:
        log.warning("what the run's machines cost cannot be read: %s", error)
        return record.actual_usd
    begun = [one.started_us for one in record.attempts[1:]]
    ended = {
        one.number: ended_us / 1e6
        for one, next_us in itertools.zip_longest(record.attempts, begun)
        if (ended_us := one.ended_us or next_us)
    }
    return bill.usd(now_us() / 1e6, ended=ended)
