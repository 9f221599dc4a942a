import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.relay_process import RelayProcess, start_relay
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.journey_stage import HERE, Stage
from tests.worker_agent.orchestration import kill_browsers
from worker_agent import journey_load, user_session
from worker_agent.browsers import Browsers, Housing
from worker_agent.chromium import require_chromium
from worker_agent.clock import RunClock
from worker_agent.spool import Spool

pytestmark = pytest.mark.browser
FAULTS = HERE / "journeys" / "faults.py"


def new_browsers() -> Browsers:
    return Browsers(
        housing=Housing("context", 1),
        chromium=require_chromium(),
        clock=RunClock(),
        settings={},
    )


@pytest.fixture(scope="module")
async def browsers() -> AsyncIterator[Browsers]:
    async with new_browsers() as browsers:
        yield browsers


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with start_relay() as relay:
        yield relay


@pytest.fixture
def stage(browsers: Browsers, spool: Spool, server: StoreServer, tmp_path: Path) -> Stage:
    return Stage(browsers, spool, server.store(), tmp_path.name)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let users come back sooner, so that tests are short."""
    monkeypatch.setattr(user_session, "FIRST_RETRY_S", 0.1)


async def test_the_example_counts_every_click_on_every_page(
    browsers: Browsers, spool: Spool, server: StoreServer, tmp_path: Path, relay: RelayProcess
) -> None:
    """Four users' clicks are acknowledged, shown to the three others once, and all counted."""
    stage = Stage(browsers, spool, server.store(), tmp_path.name, relay.url)
    played = await stage.play(
        "worker_agent.examples.counter:edit", users=4, edits_per_s=4, duration_s=3, timeout_s=30
    )
    edits = {row["edit"]: row for row in played.of("edits")}
    assert sorted(edits) == list(range(12))
    assert all(row["error"] is None for row in edits.values())
    assert all(
        row["intended_us"] <= row["started_us"] < row["acknowledged_us"] for row in edits.values()
    )
    assert Counter(row["edit"] for row in played.of("deliveries")) == dict.fromkeys(edits, 3)
    for row in played.of("deliveries"):
        assert row["observer"] != row["writer"] == edits[row["edit"]]["connection"]
        assert row["sent_us"] == edits[row["edit"]]["started_us"] < row["seen_us"]
    assert [(row["heads"], row["missing"]) for row in played.of("replicas")] == [("12", [])] * 4
    assert all(played.events(user) == ["opening", "synced", "closed"] for user in range(4))
    assert played.errors() == set()


async def test_a_late_relay_is_seen_as_late(
    browsers: Browsers, spool: Spool, server: StoreServer, tmp_path: Path, relay: RelayProcess
) -> None:
    """What the relay holds back for 300 ms is acknowledged and shown no sooner."""
    relay.set_faults(delay_in_ms=300)
    try:
        stage = Stage(browsers, spool, server.store(), tmp_path.name, relay.url)
        played = await stage.play(
            "worker_agent.examples.counter:edit", users=2, duration_s=1.5, timeout_s=30
        )
    finally:
        relay.set_faults(delay_in_ms=0)
    assert [row["error"] for row in played.of("edits")] == [None] * 3
    took = [row["acknowledged_us"] - row["started_us"] for row in played.of("edits")]
    assert min(took) > 300_000
    assert len(played.of("deliveries")) == 3
    assert min(row["seen_us"] - row["sent_us"] for row in played.of("deliveries")) > 300_000


async def test_an_operation_that_raises_fails_its_edit_only(stage: Stage) -> None:
    """The edit has failed with the exception's type and message, and the user stays."""
    played = await stage.play(f"{FAULTS}:raises")
    assert [row["error"] for row in played.of("edits")] == ["journey_error"] * 2
    assert all(row["started_us"] and not row["acknowledged_us"] for row in played.of("edits"))
    assert [(row["type"], row["connection"], row["message"]) for row in played.of("errors")] == [
        ("journey_error", 0, "ValueError: no such button"),
        ("journey_error", 0, "SystemExit: 3"),
    ]
    assert played.events() == ["opening", "synced", "closed"]


@pytest.mark.usefixtures("quick_retries")
async def test_an_operation_that_hangs_is_timed_out(stage: Stage) -> None:
    """An edit that even ignores its end ends in time, and its user comes back to a fresh page."""
    played = await stage.play(
        f"{FAULTS}:ignores_its_end", edits_per_s=1, timeout_s=0.3, duration_s=2
    )
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
    played = await stage.play(
        f"{FAULTS}:hangs", edits_per_s=1 / 3, duration_s=3, timeout_s=60, patient=False
    )
    assert [row["error"] for row in played.of("edits")] == ["journey_timeout"]
    assert 0.3 <= played.settled_s < 20


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    ("operation", "fault"), [("closes", "page_closed"), ("crashes", "page_crashed")]
)
async def test_a_user_without_a_page_comes_back(stage: Stage, operation: str, fault: str) -> None:
    """The edit that lost its page has failed by that; the next one is made on a fresh page."""
    played = await stage.play(
        f"{FAULTS}:{operation}", edits_per_s=4 / 3, duration_s=1.5, timeout_s=5
    )
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
    played = await stage.play(f"{FAULTS}:returns", users=3)
    acknowledged = {row["edit"]: row["acknowledged_us"] for row in played.of("edits")}
    assert len(acknowledged) == 2
    assert len(played.of("deliveries")) == 4
    for row in played.of("deliveries"):
        assert row["seen_us"] >= acknowledged[row["edit"]]
    assert played.errors() == set()


async def test_edits_wait_for_a_busy_page_and_keep_their_time(stage: Stage) -> None:
    """A page that is busy makes its edits one after another; those left at the end are missed."""
    played = await stage.play(f"{FAULTS}:is_slow", edits_per_s=5, duration_s=4.2, patient=False)
    edits = sorted(played.of("edits"), key=lambda row: row["edit"])
    assert [edits[0]["intended_us"] + 200_000 * edit for edit in range(21)] == [
        row["intended_us"] for row in edits
    ]
    made = [row for row in edits if row["error"] is None]
    assert 2 <= len(made) <= 11
    for before, after in itertools.pairwise(made):
        assert after["started_us"] >= before["acknowledged_us"]
        assert after["held"]
    assert [row["error"] for row in edits[len(made) :]] == ["missed"] * (21 - len(made))
    assert all(row["started_us"] is None for row in edits[len(made) :])


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    ("module", "fault", "said"),
    [
        ("outside", "setup_error", "PermissionError: the password is wrong"),
        ("loading", "setup_timeout", "it did not return within 0.2 s"),
    ],
)
async def test_a_user_who_never_gets_in_fails_their_edits(
    stage: Stage, module: str, fault: str, said: str
) -> None:
    """A setup that fails is tried again with back-off; edits have failed, and none is missed."""
    played = await stage.play(
        f"{HERE / 'journeys' / module}.py:edit",
        timeout_s=0.2,
        edits_per_s=2 / 3,
        duration_s=3,
        wait=False,
        patient=False,
    )
    assert [row["error"] for row in played.of("edits")] == ["not_connected"] * 2
    assert all(row["started_us"] is None and row["held"] for row in played.of("edits"))
    tries = [row for row in played.of("connections") if row["event"] == "failed"]
    assert len(tries) >= 2
    assert {row["cause"] for row in tries} == {fault}
    assert {(row["type"], row["message"]) for row in played.of("errors")} == {(fault, said)}


@pytest.mark.usefixtures("quick_retries")
async def test_a_planned_drop_is_no_error(stage: Stage) -> None:
    """In a storm the users who drop come back, and no error is counted."""
    played = await stage.play(f"{FAULTS}:returns", users=2, drop_share=1.0, duration_s=1.5)
    assert played.errors() == set()
    assert [row["error"] for row in played.of("edits")] == [None] * 3
    back = ["opening", "synced", "dropped-dropped_on_purpose", "opening", "synced", "closed"]
    assert played.events(0) == played.events(1) == back


async def test_a_user_says_good_bye(stage: Stage) -> None:
    """`teardown` is called as a user leaves, with the user's own document; its fault is said."""
    played = await stage.play(f"{HERE / 'journeys' / 'polite.py'}:edit")
    (error,) = played.of("errors")
    assert error["type"] == "teardown_error"
    assert error["message"].startswith("RuntimeError: good-bye from 0 on ")
    assert played.events() == ["opening", "synced", "closed"]


@pytest.mark.usefixtures("quick_retries")
async def test_users_outlive_their_browser(
    spool: Spool, server: StoreServer, tmp_path: Path
) -> None:
    """When the whole browser is killed, its users come back in another."""
    before = set(psutil.Process().children(recursive=True))
    async with new_browsers() as browsers:
        stage = Stage(browsers, spool, server.store(), tmp_path.name)
        playing = asyncio.create_task(
            stage.play(f"{FAULTS}:returns", users=2, duration_s=2, timeout_s=5)
        )
        made = spool.folder / "journal" / "00-phase" / "edits.arrows"
        await asyncio.to_thread(wait_for, made.exists)
        kill_browsers(set(psutil.Process().children(recursive=True)) - before)
        played = await playing
    for user in (0, 1):
        events = played.events(user)
        assert events[:3] == ["opening", "synced", "dropped-page_closed"]
        assert events[-3:] == ["opening", "synced", "closed"]
    assert played.errors() <= {"page_closed", "browser_lost"}
    assert [row["error"] for row in played.of("edits")].count(None) >= 2
