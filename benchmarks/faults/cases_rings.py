"""Cases: each ring around what a run holds, alone: what the others would do does not happen.

That a ring has acted is seen in the bucket: only `give_back` orders a stop because of the
teardown, and only a hook or the sweep reports a run whose process was killed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

from benchmarks.faults.audit import rows_spooled, rows_stored
from benchmarks.faults.case import Case, HungError, Scale
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.cases_orchestrator import on_ssh_host
from benchmarks.faults.site import Site, until
from run_store.layout import RunLayout
from run_store.messages import Order, Status

ACTS_WITHIN_S = 60.0
LEASE_S = 8.0


def cases(_scale: Scale) -> Iterator[Case]:
    """Yield the cases of the rings."""
    yield Case("rings/finally", "ended by SIGTERM in the load, no hook is there", _finally)
    yield Case("rings/hooks", "a deployed run is killed in the load: no `finally`", _hooks)
    yield Case("rings/sweep", "killed in the load: no `finally`, and no hook", _sweep)
    yield Case(
        "rings/lease",
        "likewise, with its worker on an SSH host; the sweep comes once the agent has ended",
        _lease,
    )


def _finally(site: Site) -> str:
    site.plan["no_hooks"] = True
    site.plainly()
    site.order(LOAD)
    site.send(signal.SIGTERM)
    ended = site.wait()
    if not _gave_back(site):
        raise HungError("`finally` has given nothing back")
    if site.summary():
        raise HungError("a hook was there: it has made a report")
    return ended


def _hooks(site: Site) -> str:
    site.deployed()
    site.order(LOAD)
    site.send(signal.SIGKILL)
    ended = site.wait()
    until(lambda: _gave_back(site), within_s=ACTS_WITHIN_S, what="the hook to give back")
    until(site.summary, within_s=ACTS_WITHIN_S, what="the hook's report")
    return ended


def _sweep(site: Site) -> str:
    site.plainly()
    site.order(LOAD)
    site.send(signal.SIGKILL)
    ended = site.wait()
    if _gave_back(site) or site.summary():
        raise HungError("something was there before the sweep")
    return ended  # what is looked at afterwards runs the sweep, and wants its report


def _lease(site: Site) -> str:
    site.plan["set"] = {"tasks.lease_keeper:EXPIRES_AFTER_S": LEASE_S}
    on_ssh_host(site)
    site.overrides["phases.load.duration"] = f"{LEASE_S + ACTS_WITHIN_S:g}s"
    site.plainly()
    site.order(LOAD)
    until(lambda: rows_spooled(site), within_s=ACTS_WITHIN_S, what="samples")
    site.send(signal.SIGKILL)
    ended = site.wait()
    left = site.gone(LEASE_S + ACTS_WITHIN_S / 2)
    if left:
        raise HungError(f"the agent outlives its lease: {left[0]}")
    status = site.store().get_message(RunLayout(site.run_id()).status(1, "worker-1"), Status)
    said = status.message if status else "nothing"
    if _gave_back(site) or "lease" not in said:
        raise HungError(f"it was not the lease that ended the agent: it says {said!r}")
    if rows_spooled(site) - rows_stored(site):
        raise HungError("the agent has not shipped all that it had")
    return ended


def _gave_back(site: Site) -> bool:
    store, layout = site.store(), RunLayout(site.run_id())
    orders = [store.get_message(key, Order) for key in store.keys(layout.orders(1))]
    return any(order is not None and order.reason == "teardown" for order in orders)
