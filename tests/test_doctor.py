"""`relay-load doctor`: what hinders a run is said with a remedy, and nothing is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.loading import load_scenario
from tasks.checks import Check
from tasks.fleets.ec2_checks import account_checks
from tests.command_line import relay_load
from tests.fleets.emulated_ec2 import Account, emulated_account


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with emulated_account(monkeypatch) as empty:
        yield empty


def by_name(checks: Iterator[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_without_an_account_its_checks_are_skipped(tmp_path: Path) -> None:
    """A scenario for rented machines is checked as far as it goes; an unknown relay fails."""
    quiet = {"AWS_EC2_METADATA_DISABLED": "true"}
    looked = relay_load("doctor", "heavy", "--json", cwd=tmp_path, variables=quiet)
    assert (looked.code, "cannot be run yet: bucket" in looked.told) == (1, True), looked.told
    states = {row["name"]: row["state"] for row in json.loads(looked.out)}
    assert states["budget"] == states["Prefect"] == "ok"
    assert {states[name] for name in ("credentials", "permissions", "image", "relay")} == {
        "skipped"
    }
    assert states["bucket"] == "failed", "machines elsewhere do not reach a folder here"
    relay = ("--relay-url", "ws://127.0.0.1:9/")
    failed = relay_load("doctor", "heavy", *relay, cwd=tmp_path, variables=quiet)
    assert (failed.code, "cannot be run yet: relay, bucket" in failed.told) == (1, True)
    assert "-> Start it, or correct the address." in failed.out


def test_an_account_is_asked_and_nothing_is_made(account: Account) -> None:
    """Dry runs leave nothing; what is not there fails with what to set."""
    given = {"fleet.subnets": [account.subnet], "fleet.image": account.image}
    checks = by_name(account_checks(load_scenario("baseline", given).fleet))
    assert {name: check.state for name, check in checks.items()} == {
        "credentials": "ok",
        "permissions": "ok",
        "spot quota": "skipped",  # the emulator has no quotas of EC2's
        "on-demand quota": "skipped",
        "image": "ok",
        "subnet": "ok",
    }
    assert account.left() == []
    wrong = load_scenario("baseline", {**given, "fleet.image": "ami-00000000"}).fleet
    image = by_name(account_checks(wrong))["image"]
    assert image.state == "failed"
    assert image.remedy
