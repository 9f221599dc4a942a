"""`relay-load trend`: a history from a bucket, a table, a page and an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli_trend import scenario_of, sparkline
from reports.history import Line, add
from run_store.errors import CannotRunError, UsageError
from run_store.store import Store, StoreAddress
from tests.command_line import Ended, relay_load, store_arguments, store_environment
from tests.store_server import StoreServer

WEEK_US = 7 * 86_400 * 1_000_000


def line(week: int, capacity: float, *, scenario: str = "heavy", validity: str = "valid") -> Line:
    return Line(
        run_id=f"{scenario}-{week}",
        at_us=1_700_000_000_000_000 + week * WEEK_US,
        scenario=scenario,
        asks="same",
        relay_url="wss://relay.example/",
        relay_version="2.0" if week > 10 else "1.0",
        fleet="ec2",
        validity=validity,
        verdict="passed",
        kind="between",
        over="connections",
        capacity=capacity,
        low=capacity * 0.96,
        high=capacity * 1.04,
        objective="delivery_ms.p95 < 1s",
        delivery_p95_ms=200 + week,
        acknowledgement_p95_ms=20.0,
    )


@pytest.fixture(scope="module")
def address(store_server: StoreServer) -> StoreAddress:
    """Give a store in which heavy has fallen, and local is steady."""
    address = store_server.address.model_copy(update={"prefix": "trends/"})
    store = Store(address)
    for week in range(1, 14):
        add(store, line(week, 1000 + week if week <= 10 else 700 + week))
    add(store, line(5, 10, scenario="heavy-invalid", validity="invalid"))
    for week in range(3):
        add(store, line(week, 40, scenario="local"))
    add(store, line(3, 10, scenario="local", validity="invalid"))
    return address


def trend(address: StoreAddress, folder: Path, *arguments: str) -> Ended:
    return relay_load(
        "trend",
        *arguments,
        *store_arguments(address),
        cwd=folder,
        variables=store_environment(address),
    )


def test_a_fall_ends_with_3_and_is_on_the_page(address: StoreAddress, tmp_path: Path) -> None:
    """The sentence, the change of level with its versions, and a page that needs no other file."""
    page = tmp_path / "pages" / "trend.html"
    ended = trend(address, tmp_path, "heavy", "--json", "--html", str(page))
    assert ended.code == 3, ended.err
    told = json.loads(ended.out)
    assert told["regressed"]
    assert len(told["runs"]) == 13
    [change] = told["changes"]
    assert (change["run_id"], change["version_after"]) == ("heavy-11", "2.0")
    written = page.read_text(encoding="utf-8")
    assert told["sentence"] in written
    assert written.count("<circle") == 3 * 13
    assert "<script" not in written
    assert "http" not in written.replace("http-equiv", "")


def test_a_steady_capacity_ends_with_0(address: StoreAddress, tmp_path: Path) -> None:
    """The table shows each run and a sparkline; what is left out is named."""
    ended = trend(address, tmp_path, "local")
    assert ended.code == 0, ended.err
    assert "███" in ended.out
    assert "left out: local-3, because it is invalid" in ended.out
    assert "0.0% above the median of the last 2 valid runs" in ended.out


def test_no_history_ends_with_1_and_says_what_to_do() -> None:
    """A scenario that was never searched is told, with those that were."""
    with pytest.raises(CannotRunError, match=r"no history of stress in here\. .* heavy") as raised:
        scenario_of([line(1, 10)], "stress", where="here")
    assert raised.value.exit_code == 1
    assert "relay-load capacity stress" in raised.value.hint
    with pytest.raises(CannotRunError, match="There is no history in here"):
        scenario_of([], None, where="here")


def test_of_several_scenarios_one_must_be_named() -> None:
    """Without a name the command does not guess; the only one needs no name."""
    assert scenario_of([line(1, 10)], None, where="here") == "heavy"
    with pytest.raises(UsageError, match="heavy, local") as raised:
        scenario_of([line(1, 10), line(1, 10, scenario="local")], None, where="here")
    assert raised.value.exit_code == 2


def test_a_sparkline_begins_at_zero() -> None:
    """A small fall looks small; a value that is not known is a gap."""
    assert sparkline([100, None, 50, 0]) == "█ ▅▁"
    assert sparkline([]) == ""
