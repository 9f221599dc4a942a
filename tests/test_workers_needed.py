from __future__ import annotations

from typing import Any

import pytest

from run_store.capacity import Calibration
from scenarios.loading import load_scenario
from scenarios.model import Scenario
from tasks.workers_needed import load_of, why_unlike, workers_needed

NOON_US = 1_795_608_000_000_000
"""25 November 2026, 12:00 UTC."""


def scenario(**more: Any) -> Scenario:
    """Return 600 connections on documents of 100, with 6 edits/s, on rented workers."""
    return Scenario.model_validate(
        {
            "name": "many",
            "connections": 600,
            "connections_per_document": 100,
            "fleet": {"kind": "ec2", "workers": 3},
            "phases": {"load": {"kind": "sustained", "duration": "60s", "edits_per_minute": 360}},
            **more,
        }
    )


def calibration(**more: Any) -> Calibration:
    """Return what one worker held: 150 connections at 1.5 edits/s."""
    return Calibration(
        **{
            "scenario": "many",
            "worker_kind": "c5.xlarge",
            "connections": 150,
            "edits_per_s": 1.5,
            "connections_per_document": 100,
            "measured_us": NOON_US,
            "load": load_of(scenario()),
            **more,
        }
    )


def phases(**load: Any) -> dict[str, Any]:
    return {"phases": {"load": {"kind": "sustained", "duration": "60s", **load}}}


STEPS = {"kind": "stress", "edits_per_minute": 360, "step_connections": 100}
NEEDED: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("as many as its connections ask for", {}, {}, 4),
    ("one more for a few more", {"connections": 601}, {}, 5),
    ("one at the least", {"connections": 3}, {}, 4),
    ("the edits may ask for more", phases(edits_per_minute=900), {}, 10),
    ("also where they only begin high", phases(edits_per_minute_start=900), {}, 10),
    ("with few of both one will do", {"connections": 9, **phases(edits_per_minute=9)}, {}, 1),
    # Its worker showed each edit to 99 others; on one document each is shown to 599.
    ("one document for all asks for more", {"connections_per_document": 0}, {}, 25),
    (
        "where the worker had one document too",
        {"connections_per_document": 0},
        {"connections_per_document": 0},
        17,
    ),
    ("steps up to their limit", phases(**STEPS, max_connections=1500), {}, 10),
    ("no edits, nothing to deliver", phases(edits_per_minute=0), {}, 4),
    ("a calibration without edits", {}, {"edits_per_s": 0.0}, 4),
]


@pytest.mark.parametrize(("name", "given", "known", "wanted"), NEEDED)
def test_no_worker_is_asked_for_more_than_the_calibrated_one_held(
    name: str, given: dict[str, Any], known: dict[str, Any], wanted: int
) -> None:
    """Connections, edits and deliveries bound the number, each by itself."""
    found = workers_needed(scenario(**given), "ec2", calibration(**known))
    assert found.needed == wanted, name


def test_both_numbers_are_told_with_what_to_do() -> None:
    """Too few is said with the override that mends it; enough is just said."""
    few = workers_needed(scenario(), "ec2", calibration())
    assert few.is_too_few
    assert few.sentence == (
        "4 workers by the calibration of 2026-11-25 on c5.xlarge, of which one holds 150 "
        "connections at 1.5 edits/s; the scenario asks for 3, which is too few: "
        "--set fleet.workers=4"
    )
    enough = workers_needed(scenario(fleet={"kind": "ec2", "workers": 4}), "ec2", calibration())
    assert not enough.is_too_few
    assert enough.sentence.endswith("the scenario asks for 4")


def test_what_may_be_enough_is_no_warning() -> None:
    """A calibration that ended for another reason shows what is enough, not what is too little."""
    found = workers_needed(scenario(), "ec2", calibration(is_at_least=True))
    assert not found.is_too_few
    assert "one holds at least 150 connections" in found.sentence
    assert found.sentence.endswith("the scenario asks for 3, which may be enough")


def test_workers_of_one_machine_share_its_cores() -> None:
    """More of them are not advised as if they brought cores."""
    found = workers_needed(scenario(), "local", calibration(worker_kind="local"))
    assert found.is_too_few
    assert found.sentence.endswith("which is too few, and more would share this machine's cores")


def test_steps_without_a_limit_are_counted_for_the_first() -> None:
    """Nobody knows where they end."""
    found = workers_needed(scenario(**phases(**STEPS)), "ec2", calibration())
    assert found.needed == 4
    assert found.sentence.startswith("4 workers for the first step of its load by the calibration")


def test_a_search_is_not_warned_of_its_workers() -> None:
    """It says "at least" where they are at their end, and that is told."""
    found = workers_needed(scenario(), "ec2", calibration(), is_search=True)
    assert not found.is_too_few
    assert "the search has 3, and says" in found.sentence


def test_a_calibration_of_other_connections_is_not_used() -> None:
    """What differs is named: a page for each connection costs a worker many times more."""
    assert why_unlike(scenario(), calibration()) == ""
    assert why_unlike(scenario(isolation="page"), calibration()) == "isolation shared and not page"
    assert why_unlike(scenario(connections_per_document=7), calibration()) == ""
    worse = scenario(network={"latency_ms": 40})
    assert "network none and not share=1.0 latency_ms=40" in why_unlike(worse, calibration())
    # What an older version did not write down is taken to be alike.
    assert why_unlike(scenario(), calibration(load={})) == ""


def test_the_projects_scenarios_can_be_counted() -> None:
    """The stress scenario goes on without a limit; heavy is what it says."""
    known = calibration(connections=250, edits_per_s=1.25)
    assert workers_needed(load_scenario("heavy"), "ec2", known).needed == 4
    assert workers_needed(load_scenario("stress"), "ec2", known).goes_on
