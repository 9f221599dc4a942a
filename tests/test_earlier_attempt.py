from __future__ import annotations

import pytest

from run_store.errors import UsageError
from run_store.layout import RunLayout
from run_store.messages import RunRecord
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from tasks.earlier_attempt import check_same_scenario

RECORD = RunRecord(
    run_id="a-run",
    scenario=load_scenario("local").model_dump(mode="json", by_alias=True),
    relay_url="ws://127.0.0.1:9/",
    fleet="local",
    created_us=0,
)


def test_a_retry_measures_by_the_scenario_that_its_run_began_with(
    store_address: StoreAddress,
) -> None:
    """What changed is named, once there are samples that were taken by the earlier one."""
    store = Store(store_address)
    other = load_scenario("local", {"connections": 41, "payload_bytes": 7})
    check_same_scenario(store, RECORD, other)
    store.put(f"{RunLayout('a-run').samples('edits')}attempt=1/a", b"")
    with pytest.raises(UsageError, match="a-run began: connections, payload_bytes changed"):
        check_same_scenario(store, RECORD, other)
    check_same_scenario(store, RECORD, load_scenario("local"))


def test_a_scenario_is_the_same_as_its_run_has_kept_it(store_address: StoreAddress) -> None:
    """Lengths that no float holds exactly are rounded where they are kept."""
    store = Store(store_address)
    store.put(f"{RunLayout('a-run').samples('edits')}attempt=1/a", b"")
    asked = load_scenario("local", {"phases.sustained.duration": "1.1h"})
    kept = RECORD.model_copy(update={"scenario": asked.model_dump(mode="json", by_alias=True)})
    check_same_scenario(store, kept, asked)
    with pytest.raises(UsageError, match="phases changed"):
        check_same_scenario(store, RECORD, asked)


def test_where_a_retry_takes_place_may_change(store_address: StoreAddress) -> None:
    """Hosts are mended and money is added between two attempts."""
    store = Store(store_address)
    store.put(f"{RunLayout('a-run').samples('edits')}attempt=1/a", b"")
    elsewhere = {"fleet.workers": 3, "max_usd": 9}
    check_same_scenario(store, RECORD, load_scenario("local", elsewhere))
    with pytest.raises(UsageError, match="a-run began: connections changed"):
        check_same_scenario(store, RECORD, load_scenario("local", {**elsewhere, "connections": 9}))
