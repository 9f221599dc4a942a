from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from run_store.errors import FleetError
from run_store.layout import RunLayout
from run_store.messages import Attempt, RunRecord
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from tasks.cost import (
    OVERHEAD_S,
    Estimate,
    Machine,
    actual_usd,
    check_budget,
    estimate,
    planned_deliveries,
    seconds_within,
)
from tasks.fleets.ec2_bill import Bill, Rented, close_bill, ended_at_s, note_machines, read_bill
from tasks.fleets.ec2_prices import current_prices, listed_usd
from tasks.local_services import local_store
from tasks.prices import ADDRESS_USD_PER_HOUR, TABLE, VOLUME_USD_PER_HOUR, Prices
from tasks.run_cost import spent_usd
from tests.fleets.emulated_ec2 import REGION, Account, emulated_account

AROUND = VOLUME_USD_PER_HOUR + ADDRESS_USD_PER_HOUR


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with emulated_account(monkeypatch) as empty:
        yield empty


def test_actual_cost_counts_seconds_and_the_first_minute() -> None:
    """Each machine costs its seconds, a minute at the least, with volume and address."""
    machines = [Machine("c5.xlarge", 3600.0, 0.06), Machine("c5.xlarge", 5.0, 0.06)]
    assert actual_usd(machines) == pytest.approx((1 + 1 / 60) * (0.06 + AROUND))
    assert actual_usd([]) == 0
    private = Machine("c5.xlarge", 3600.0, 0.06, has_address=False)
    assert actual_usd([private]) == pytest.approx(0.06 + VOLUME_USD_PER_HOUR)


def test_unknown_price_is_not_guessed() -> None:
    """A machine without a price gives no figure, rather than one that is too small."""
    assert actual_usd([Machine("x9.huge", 60.0, None)]) is None
    scenario = load_scenario("baseline", {"fleet.instance_types": ["x9.huge"]})
    assert estimate(scenario) is None
    with pytest.raises(FleetError, match=r"No price of x9\.huge"):
        check_budget(scenario, None)


def test_estimate_takes_the_dearest_type() -> None:
    """Capacity decides which type is given: the estimate takes the dearest one, of its market."""
    prices = Prices(
        on_demand={"c5.xlarge": 0.2},
        spot={"c5.xlarge": 0.05, "m5.xlarge": 0.07, "z1d.large": 9.0},
        source="a test",
    )
    scenario = load_scenario("baseline")
    got = estimate(scenario, prices=prices)
    assert got is not None
    assert (got.items[0].what, got.items[0].usd_per_hour) == ("m5.xlarge spot", 0.07)
    assert got.items[0].hours * 3600 == scenario.duration_s + OVERHEAD_S
    assert got.usd == pytest.approx(sum(item.usd for item in got.items))
    assert got.usd_per_hour * got.items[0].hours == pytest.approx(got.usd)
    hidden = estimate(load_scenario("baseline", {"fleet.addresses": "private"}), prices=prices)
    assert hidden is not None
    assert got.usd - hidden.usd == pytest.approx(got.items[2].usd)
    demanded = estimate(load_scenario("baseline", {"fleet.spot": False}), prices=prices)
    assert demanded is not None
    assert demanded.items[0].usd_per_hour == 0.2


def test_deliveries_are_edits_times_the_other_members() -> None:
    """A document's members each see every edit but their own; a rate that moves counts its mean."""
    one_phase = {"kind": "sustained", "duration": "2m", "edits_per_minute": 60}
    plan = {"connections": 50, "connections_per_document": 10, "phases.sustained": one_phase}
    scenario = load_scenario("local", plan)
    only = scenario.model_copy(update={"phases": (scenario.phases[2],)})
    assert planned_deliveries(only) == 120 * 9
    ramp = scenario.phases[2].model_copy(update={"edits_per_minute_start": 0.0})
    assert planned_deliveries(only.model_copy(update={"phases": (ramp,)})) == 60 * 9
    search = {"kind": "stress", "max_connections": 8, "max_edits_per_minute": 600.0}
    grows = scenario.phases[2].model_copy(
        update={**search, "connections": 5, "step_edits_per_minute": 60.0}
    )
    assert planned_deliveries(only.model_copy(update={"phases": (grows,)})) == 1200 * 7


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, None),
        ({"max_usd": 1.0, "max_usd_per_hour": 0.5}, None),  # at the limit is within it
        ({"max_usd": 0.99}, r"\$1\.00 in all .* allows \$0\.99.* raise max_usd"),
        ({"max_usd_per_hour": 0.4}, r"\$0\.50 an hour .* allows \$0\.40"),
        ({"max_usd": 0.0}, r"allows \$0\.00"),  # a budget of nothing rents nothing
    ],
)
def test_a_budget_stops_what_costs_more(limits: dict[str, float], said: str | None) -> None:
    """A run that costs more than its scenario allows is told so, with both figures."""
    scenario = load_scenario("local", limits)
    cost = Estimate(usd=1.0, usd_per_hour=0.5, source="a test")
    if said is None:
        check_budget(scenario, cost)
    else:
        with pytest.raises(FleetError, match=said):
            check_budget(scenario, cost)


def test_how_long_a_budget_lasts() -> None:
    """A budget lasts its share of what an hour costs; none, or no cost, lasts for ever."""
    cost = Estimate(usd=1.0, usd_per_hour=0.5, source="a test")
    assert seconds_within(1.0, cost) == 7200
    assert seconds_within(None, cost) is None
    assert seconds_within(1.0, Estimate(usd=0, usd_per_hour=0, source="")) is None


def test_price_list_is_read() -> None:
    """An entry of AWS's price list gives its hourly price; another kind of entry gives none."""
    rate = {"unit": "Hrs", "pricePerUnit": {"USD": "0.1820000000"}}
    offer = {"priceDimensions": {"x.y": rate}}
    assert listed_usd(json.dumps({"terms": {"OnDemand": {"x": offer}}})) == 0.182
    rate["pricePerUnit"] = {"USD": "0.0000000000"}
    assert listed_usd(json.dumps({"terms": {"OnDemand": {"x": offer}}})) is None
    assert listed_usd(json.dumps({"terms": {"Reserved": {}}})) is None
    assert listed_usd("[]") is None


def test_prices_say_where_they_are_from(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an account the spot price history counts; where the list is silent, the table does."""
    fleet = load_scenario("baseline").fleet
    now = current_prices(fleet)
    assert now.source.startswith(f"EC2's spot price history of {REGION}, 20")
    assert set(now.spot) <= set(fleet.instance_types)
    assert now.spot
    assert "pricing:GetProducts" in account.calls
    # The emulator has no price list.
    listed = current_prices(fleet.model_copy(update={"spot": False}))
    assert (listed.source, listed.on_demand) == (TABLE.source, TABLE.on_demand)
    monkeypatch.setattr("tasks.fleets.ec2_prices.has_account", lambda _: False)
    assert current_prices(fleet) is TABLE


def test_bill_holds_each_machine_with_its_time_and_price(tmp_path: Path, account: Account) -> None:
    """Machines are written down while they run, and end when they are given back, once."""
    with local_store(tmp_path / "results") as address:
        store = Store(address)
        tags = [{"Key": "relay-load:run", "Value": "a-run"}]
        made = account.client.run_instances(
            ImageId=account.image,
            InstanceType="c5.xlarge",
            MinCount=2,
            MaxCount=2,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        fleet = load_scenario("baseline").fleet
        note_machines(account.client, store, "a-run", fleet)
        ids = [one["InstanceId"] for one in made["Instances"]]
        account.client.terminate_instances(InstanceIds=ids)
        began_s = read_bill(store, "a-run").machines[0].from_s
        close_bill(store, "a-run", ["another"], at_s=began_s + 60)
        close_bill(store, "a-run", ids, at_s=began_s + 3600)
        note_machines(account.client, store, "a-run", fleet)
        close_bill(store, "a-run", ids, at_s=began_s + 7200)
        bill = read_bill(store, "a-run")
        assert sorted(one.id for one in bill.machines) == sorted(ids)
        assert bill.usd(time.time()) == pytest.approx(2 * (0.182 + AROUND), rel=0.01)
        assert read_bill(store, "another-run").usd(time.time()) == 0


def test_a_machine_that_ended_by_itself_is_known_to_have(tmp_path: Path, account: Account) -> None:
    """Nobody gave it back: EC2 says that it is over, at the next look."""
    with local_store(tmp_path / "results") as address:
        store, fleet = Store(address), load_scenario("baseline").fleet
        tags = [{"Key": "relay-load:run", "Value": "a-run"}]
        made = account.client.run_instances(
            ImageId=account.image,
            InstanceType="c5.xlarge",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        note_machines(account.client, store, "a-run", fleet)
        assert read_bill(store, "a-run").machines[0].until_s is None
        account.client.terminate_instances(InstanceIds=[made["Instances"][0]["InstanceId"]])
        note_machines(account.client, store, "a-run", fleet)
        [machine] = read_bill(store, "a-run").machines
        assert machine.until_s == pytest.approx(time.time(), abs=60)


def test_what_a_killed_attempt_has_cost_is_known(store_address: StoreAddress) -> None:
    """Nobody wrote down when its machine went: it has cost nothing since the attempt was over."""
    store = Store(store_address)
    now_s = time.time()
    machine = Rented(
        id="i-1", kind="c5.xlarge", spot=False, attempt=1, from_s=now_s - 7200, usd_per_hour=0.2
    )
    store.put_message(f"{RunLayout('a-run').root}bill.json", Bill(machines=[machine]))
    began_us = round((now_s - 7200) * 1e6)
    record = RunRecord(
        run_id="a-run",
        scenario={},
        relay_url="ws://127.0.0.1:9/",
        fleet="ec2",
        created_us=began_us,
        attempts=[
            Attempt(number=1, started_us=began_us, ended_us=round((now_s - 3600) * 1e6)),
            Attempt(number=2, started_us=round(now_s * 1e6)),
        ],
    )
    assert spent_usd(store, record) == pytest.approx(0.2 + AROUND, rel=0.01)
    # Nobody settled it: then it was over when the next one began, two hours after it had.
    record.attempts[0].ended_us = None
    record.attempts[1].started_us = round((now_s - 1800) * 1e6)
    assert spent_usd(store, record) == pytest.approx(1.5 * (0.2 + AROUND), rel=0.01)


def test_end_of_a_machine_is_read_from_its_reason() -> None:
    """EC2 tells in a sentence when a machine went; while it runs there is no end."""
    state = {"State": {"Name": "terminated"}}
    reason = {"StateTransitionReason": "User initiated (2026-01-02 03:04:05 GMT)"}
    assert ended_at_s({**state, **reason}) == 1767323045
    assert ended_at_s({"State": {"Name": "running"}, **reason}) is None
