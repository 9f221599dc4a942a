"""A run in a bucket whose process is gone: it says that it is running, and raises nothing."""

from __future__ import annotations

from run_store.layout import RunLayout
from run_store.messages import Attempt, Lease, RunRecord
from run_store.store import Store


def put_silent_run(store: Store, run_id: str, *, has_lease: bool = True) -> None:
    """Put its record there, and the last state of its lease unless it died before it had one."""
    layout = RunLayout(run_id)
    record = RunRecord(
        run_id=run_id,
        scenario={},
        relay_url="ws://127.0.0.1:9/",
        fleet="ec2",
        created_us=0,
        attempts=[Attempt(number=1, started_us=0)],
    )
    store.put_message(layout.run, record)
    if has_lease:
        store.put_message(layout.lease(1), Lease(counter=1, every_s=2, expires_after_s=60))
