from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from run_store.capacity import Calibration, CapacityResult, calibration_key
from run_store.errors import CannotRunError
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from tasks.calibration import advice, advice_from, keep_calibration, known_in
from tasks.fleets.ec2_bill import Bill, Rented
from tasks.run_context import RunContext
from tasks.search_plan import Search, planned_search
from tasks.workers_needed import load_of
from tests.command_line import relay_load, store_arguments, store_environment

MODERATE = load_scenario("moderate")
NOON_US = 1_795_608_000_000_000


def keep(store: Store, kind: str = "c5.2xlarge", **more: Any) -> Calibration:
    """Put a calibration of `moderate` into a store: a worker of that kind holds 100 connections."""
    known = Calibration(
        **{
            "scenario": "moderate",
            "worker_kind": kind,
            "connections": 100,
            "edits_per_s": 0.6,
            "connections_per_document": 100,
            "measured_us": NOON_US,
            "load": load_of(MODERATE),
            **more,
        }
    )
    store.put_message(calibration_key("moderate", kind), known)
    return known


def test_the_least_that_a_type_of_the_fleet_holds_counts(store_address: StoreAddress) -> None:
    """Which of its types a fleet is given, capacity decides; other scenarios have their own."""
    store = Store(store_address)
    assert known_in(store, MODERATE, "ec2") == (None, "")
    keep(store)
    least = keep(store, MODERATE.fleet.instance_types[1], connections=80)
    keep(store, "t3.nano", connections=3)
    keep(store, "local", connections=7)
    assert known_in(store, MODERATE, "ec2") == (least, "")
    known, _ = known_in(store, MODERATE, "local")
    assert known is not None
    assert known.connections == 7
    assert known_in(store, load_scenario("heavy"), "ec2") == (None, "")


def test_a_calibration_that_does_not_fit_is_told(store_address: StoreAddress) -> None:
    """It was of other connections: nothing is counted with it, and why is said."""
    store = Store(store_address)
    known = keep(store)
    keep(
        store,
        MODERATE.fleet.instance_types[1],
        connections=10,
        load=load_of(load_scenario("moderate", {"isolation": "context"})),
    )
    assert known_in(store, MODERATE, "ec2") == (known, "")  # the other hides it not
    found = advice(store, load_scenario("moderate", {"isolation": "page"}), "ec2")
    assert found.needed is None
    assert found.is_warning
    assert "isolation shared and not page: calibrate anew" in found.sentence


def test_a_store_that_cannot_be_read_hinders_no_estimate(
    tmp_path: Path, store_address: StoreAddress
) -> None:
    """That calibrations are not known is told; without a store there is nothing to tell."""
    away = Store(store_address.model_copy(update={"bucket": "no-such-bucket"}), tries=1)
    found = advice(away, MODERATE, "ec2")
    assert found.sentence.startswith("calibrations cannot be read: There is no bucket")
    with advice_from("nonsense", tmp_path) as advise:
        assert advise(MODERATE, "ec2").sentence.startswith("calibrations cannot be read")
    with advice_from(None, tmp_path) as advise:
        assert advise(MODERATE, "ec2").sentence == ""
    assert not list(tmp_path.iterdir())


def test_an_estimate_tells_workers_and_cost_by_the_calibration(
    tmp_path: Path, store_address: StoreAddress
) -> None:
    """Both numbers of workers with both sums, as text and as JSON; and in the list."""
    keep(Store(store_address))
    where, keys = store_arguments(store_address), store_environment(store_address)

    def asked(*arguments: str) -> str:
        ended = relay_load(*arguments, *where, cwd=tmp_path, variables=keys)
        assert ended.code == 0, ended.err
        return ended.out

    told = json.loads(asked("estimate", "moderate", "--table", "--json"))
    assert (told["workers"], told["calibration"]["workers"]) == (3, 5)
    assert told["calibration"]["too_few"]
    assert told["calibration"]["measured"] == "2026-11-25"
    assert told["calibration"]["usd"] == pytest.approx(told["usd"] * 5 / 3, rel=0.05)
    text = asked("estimate", "moderate", "--table")
    assert "5 workers by the calibration of 2026-11-25 on c5.2xlarge" in text
    assert "the scenario asks for 3, which is too few: --set fleet.workers=5" in text
    assert f"With 5 of them it costs about ${told['calibration']['usd']:.2f}" in text
    rows = {row["scenario"]: row for row in json.loads(asked("scenarios", "--json"))["scenarios"]}
    assert rows["moderate"]["workers_by_calibration"] == 5
    assert rows["heavy"]["workers_by_calibration"] is None
    assert "3 ec2 (calibrated: 5)" in asked("scenarios")


def test_a_run_tells_it_before_it_starts(tmp_path: Path, store_address: StoreAddress) -> None:
    """Before anything is looked at: here the relay, which is not there."""
    keep(Store(store_address), "local")
    ended = relay_load(
        *("run", "moderate", "--fleet", "local", "--relay-url", "ws://127.0.0.1:9/"),
        *store_arguments(store_address),
        cwd=tmp_path,
        variables=store_environment(store_address),
    )
    assert ended.code == 1
    told, _, rest = ended.told.partition("The relay ws://127.0.0.1:9/ cannot be reached")
    assert "Workers: 5 workers by the calibration of 2026-11-25 on local" in told
    assert "too few, and more would share this machine's cores" in told
    assert rest


@pytest.mark.parametrize(
    ("fleet", "rented", "wanted"),
    [
        ("local", "", "local"),
        ("ec2", "c6a.2xlarge", "c6a.2xlarge"),
        ("ec2", "", "c5.2xlarge"),
    ],
)
def test_a_calibration_is_of_the_worker_that_there_was(
    context: RunContext, fleet: str, rented: str, wanted: str
) -> None:
    """Of a rented one that is the type which capacity gave, not the first that was asked for."""
    store = context.store()
    plan = planned_search(MODERATE, Search(over="both", subject="generator", start=50, limit=800))
    found = CapacityResult(kind="between", over="both", capacity=110, low=100, high=120, why="late")
    store.put_message(context.layout.capacity, found)
    if rented:
        machine = Rented(id="i-1", kind=rented, spot=True, attempt=1, from_s=0.0)
        bill = Bill(machines=[machine]).model_dump_json().encode()
        store.put(f"{context.layout.root}bill.json", bill)
    of_search = replace(context, scenario=plan.scenario, fleet=fleet)
    known = keep_calibration(of_search, plan)
    assert (known.worker_kind, known.connections, known.is_at_least) == (wanted, 100, False)
    assert known.edits_per_s == pytest.approx(plan.edits_per_s * 100 / 50)
    assert known.load == load_of(MODERATE)
    assert known_in(store, MODERATE, fleet) == (known, "")


def test_nothing_is_kept_where_no_step_was_held(context: RunContext) -> None:
    """What a worker did not hold is no calibration, and what to do is said."""
    plan = planned_search(MODERATE, Search(over="both", subject="generator", start=50, limit=800))
    found = CapacityResult(kind="below", over="both", high=50, why="the first step was not held")
    context.store().put_message(context.layout.capacity, found)
    with pytest.raises(CannotRunError, match="not seen to hold 50 connections"):
        keep_calibration(replace(context, scenario=plan.scenario), plan)
    assert known_in(context.store(), MODERATE, "local") == (None, "")
