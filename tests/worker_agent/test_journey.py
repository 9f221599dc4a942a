import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.relay_process import RelayProcess, start_relay
from tests.store_server import StoreServer
from tests.worker_agent.journey_stage import HERE, Stage
from worker_agent import journey_load, user_session
from worker_agent.browsers import Browsers, Housing
from worker_agent.chromium import require_chromium
from worker_agent.clock import RunClock
from worker_agent.spool import Spool

pytestmark = pytest.mark.browser
FAULTS = HERE / "journeys" / "faults.py"


@pytest.fixture(scope="module")
async def browsers() -> AsyncIterator[Browsers]:
    browsers = Browsers(
        housing=Housing("context", 1),
        chromium=require_chromium(),
        clock=RunClock(),
        settings={},
    )
    async with browsers:
        yield browsers


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with start_relay() as relay:
        yield relay


@pytest.fixture
def stage(browsers: Browsers, spool: Spool, server: StoreServer, tmp_path: Path) -> Stage:
    return Stage(browsers, spool, server.store(), tmp_path.name)


async def test_the_example_counts_every_click_on_every_page(
    browsers: Browsers, spool: Spool, server: StoreServer, tmp_path: Path, relay: RelayProcess
) -> None:
    """Four users' clicks are acknowledged, shown to the three others once, and all counted."""
    stage = Stage(browsers, spool, server.store(), tmp_path.name, relay.url)
    played = await stage.play(
        "worker_agent.examples.counter:edit", users=4, edits_per_s=4, duration_s=4, timeout_s=10
    )
    edits = {row["edit"]: row for row in played.of("edits")}
    assert sorted(edits) == list(range(16))
    assert all(row["error"] is None for row in edits.values())
    assert all(row["intended_us"] <= row["started_us"] for row in edits.values())
    assert all(row["started_us"] < row["acknowledged_us"] for row in edits.values())
    inside = max(row["at_us"] for row in played.of("connections") if row["event"] == "synced")
    deliveries = [row for row in played.of("deliveries") if row["sent_us"] > inside]
    seen_by = Counter(row["edit"] for row in deliveries)
    assert seen_by == {
        edit: 3 for edit, row in edits.items() if row["started_us"] > inside
    }, "each click is seen once by each of the three who did not make it"
    assert len(seen_by) >= 8
    for row in deliveries:
        assert row["observer"] != row["writer"] == edits[row["edit"]]["connection"]
        assert row["sent_us"] == edits[row["edit"]]["started_us"] < row["seen_us"]
    assert [(row["heads"], row["missing"]) for row in played.of("replicas")] == [("16", [])] * 4
    assert all(played.events(user) == ["opening", "synced", "closed"] for user in range(4))
    assert played.errors() == set()


async def test_a_late_relay_is_seen_as_late(
    browsers: Browsers, spool: Spool, server: StoreServer, tmp_path: Path
) -> None:
    """What the relay holds back for 300 ms is acknowledged and shown no sooner."""
    with start_relay("--delay-ms", "300") as relay:
        stage = Stage(browsers, spool, server.store(), tmp_path.name, relay.url)
        played = await stage.play(
            "worker_agent.examples.counter:edit", users=2, duration_s=4, timeout_s=10
        )
    made = [row for row in played.of("edits") if row["acknowledged_us"]]
    assert len(made) == 8
    assert min(row["acknowledged_us"] - row["started_us"] for row in made) > 300_000
    assert min(row["seen_us"] - row["sent_us"] for row in played.of("deliveries")) > 300_000


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ("raises", "ValueError: no such button for edit 0"),
        ("exits", "SystemExit: 3"),
    ],
)
async def test_an_operation_that_raises_fails_its_edit_only(
    stage: Stage, operation: str, said: str
) -> None:
    """The edit has failed with the exception's type and message, and the user stays."""
    played = await stage.play(f"{FAULTS}:{operation}")
    assert [row["error"] for row in played.of("edits")] == ["journey_error"] * 2
    assert all(row["started_us"] and not row["acknowledged_us"] for row in played.of("edits"))
    assert played.errors() == {"journey_error"}
    assert played.of("errors")[0]["message"] == said
    assert played.of("errors")[0]["connection"] == 0
    assert played.events() == ["opening", "synced", "closed"]


@pytest.mark.parametrize("operation", ["hangs", "ignores_its_end"])
async def test_an_operation_that_hangs_is_timed_out(stage: Stage, operation: str) -> None:
    """A hanging edit ends in time, and its user comes back to a fresh page."""
    played = await stage.play(f"{FAULTS}:{operation}", edits_per_s=1, timeout_s=0.4, duration_s=2)
    assert [row["error"] for row in played.of("edits")] == ["journey_timeout"] * 2
    assert played.errors() == {"journey_timeout"}
    assert played.events()[:5] == [
        *("opening", "synced", "dropped-journey_timeout"),
        *("opening", "synced"),
    ]


async def test_a_hanging_edit_does_not_hold_up_the_end_of_its_phase(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is still being made when the phase has had its time to settle is given up."""
    monkeypatch.setattr(journey_load, "SETTLE_AT_MOST_S", 0.3)
    played = await stage.play(f"{FAULTS}:hangs", edits_per_s=1, timeout_s=30)
    assert [row["error"] for row in played.of("edits")] == ["journey_timeout"]
    assert 0.3 <= played.settled_s < 3


@pytest.mark.parametrize(
    ("operation", "fault"), [("closes", "page_closed"), ("crashes", "page_crashed")]
)
async def test_a_user_without_a_page_comes_back(stage: Stage, operation: str, fault: str) -> None:
    """The edit that lost its page has failed by that; the next one is made on a fresh page."""
    played = await stage.play(f"{FAULTS}:{operation}", edits_per_s=1, duration_s=2, timeout_s=5)
    assert [row["error"] for row in played.of("edits")] == [fault, None]
    assert played.errors() == {fault}
    back = ["opening", "synced", f"dropped-{fault}", "opening", "synced", "closed"]
    assert played.events() == back


async def test_an_edit_that_nobody_sees_is_undelivered_and_no_failure(stage: Stage) -> None:
    """An observe that times out leaves no delivery and an error; the edit itself went well."""
    played = await stage.play(
        f"{HERE / 'journeys' / 'unseen.py'}:edit", users=3, edits_per_s=2, timeout_s=0.5
    )
    made = [row for row in played.of("edits") if row["error"] is None]
    assert len(made) == 2
    assert all(row["acknowledged_us"] for row in made)
    assert played.of("deliveries") == []
    assert played.errors() == {"observe_timeout"}


async def test_a_returned_token_is_what_others_look_for(stage: Stage) -> None:
    """Without `token`, others look for what `edit` returned, from its acknowledgement on."""
    played = await stage.play(f"{FAULTS}:returns", users=2, duration_s=2)
    acknowledged = {row["edit"]: row["acknowledged_us"] for row in played.of("edits")}
    assert len(acknowledged) == 4
    assert played.of("deliveries")
    for row in played.of("deliveries"):
        assert row["seen_us"] >= acknowledged[row["edit"]]
    assert played.errors() == set()


async def test_edits_wait_for_a_busy_page_and_keep_their_time(stage: Stage) -> None:
    """A page that is busy makes its edits one after another; those left at the end are missed."""
    played = await stage.play(f"{FAULTS}:is_slow", edits_per_s=5, duration_s=2)
    edits = sorted(played.of("edits"), key=lambda row: row["edit"])
    assert [edits[0]["intended_us"] + 200_000 * edit for edit in range(10)] == [
        row["intended_us"] for row in edits
    ]
    made = [row for row in edits if row["error"] is None]
    assert 3 <= len(made) <= 5
    for before, after in zip(made, made[1:], strict=False):
        assert after["started_us"] >= before["acknowledged_us"]
        assert after["held"]
    assert [row["error"] for row in edits[len(made) :]] == ["missed"] * (10 - len(made))
    assert all(row["started_us"] is None for row in edits[len(made) :])


@pytest.mark.parametrize(
    ("module", "fault", "said"),
    [
        ("outside", "setup_error", "PermissionError: the password is wrong"),
        ("loading", "setup_timeout", "it did not return within 0.3 s"),
    ],
)
async def test_a_user_who_never_gets_in_fails_their_edits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, module: str, fault: str, said: str
) -> None:
    """A setup that fails is tried again with back-off; edits have failed, and none is missed."""
    monkeypatch.setattr(user_session, "FIRST_RETRY_S", 0.1)
    played = await stage.play(
        f"{HERE / 'journeys' / module}.py:edit", timeout_s=0.3, duration_s=2, edits_per_s=1
    )
    assert [row["error"] for row in played.of("edits")] == ["not_connected"] * 2
    assert all(row["started_us"] is None and row["held"] for row in played.of("edits"))
    tries = [row for row in played.of("connections") if row["event"] == "failed"]
    assert len(tries) >= 2
    assert {row["cause"] for row in tries} == {fault}
    assert {(row["type"], row["message"]) for row in played.of("errors")} == {(fault, said)}


async def test_a_planned_drop_is_no_error(stage: Stage) -> None:
    """In a storm the users who drop come back, and no error is counted."""
    played = await stage.play(
        f"{FAULTS}:returns", users=2, drop_share=1.0, duration_s=2, edits_per_s=1
    )
    assert played.errors() == set()
    assert [row["error"] for row in played.of("edits")] == [None, None]


async def test_a_user_says_good_bye(stage: Stage) -> None:
    """`teardown` is called as a user leaves, with the user's own document; its fault is said."""
    played = await stage.play(f"{HERE / 'journeys' / 'polite.py'}:edit")
    (error,) = played.of("errors")
    assert error["type"] == "teardown_error"
    assert error["message"].startswith("RuntimeError: good-bye from 0 on ")
    assert played.events() == ["opening", "synced", "closed"]


async def test_a_lost_browser_is_replaced(stage: Stage) -> None:
    """When the whole browser dies, its users come back in another."""
    playing = asyncio.create_task(
        stage.play(f"{FAULTS}:returns", users=2, duration_s=3, edits_per_s=2)
    )
    async with asyncio.timeout(10):
        while not stage.browsers.contexts():
            await asyncio.sleep(0.05)
    played = await playing
    assert played
