from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from concurrent.futures import Future
from itertools import pairwise
from typing import Any

import pytest

from run_store.messages import Order
from run_store.schedule import document_of, due_s, leaves_s
from tests.worker_agent.orchestration import Row, Run, label
from tests.worker_agent.scenes import (
    Abandoned,
    Faults,
    Hasty,
    Late,
    Outages,
    Plain,
    Restart,
)

pytestmark = pytest.mark.browser

SCENE_WITHIN_S = 150.0


def result(played: dict[str, "Future[object]"], scene: str) -> Any:
    return played[scene].result(SCENE_WITHIN_S)


@pytest.fixture(scope="module")
def plain(played: dict[str, "Future[object]"]) -> Plain:
    """Give a run of two agents in which nothing goes wrong."""
    scene = result(played, "plain")
    assert isinstance(scene, Plain)
    return scene


@pytest.fixture(scope="module")
def outages(played: dict[str, "Future[object]"]) -> Outages:
    """Give a run whose S3 and relay were away for a while."""
    scene = result(played, "outages")
    assert isinstance(scene, Outages)
    return scene


@pytest.fixture(scope="module")
def restart(played: dict[str, "Future[object]"]) -> Restart:
    """Give a run whose agent was killed, replaced, and told to end."""
    scene = result(played, "restart")
    assert isinstance(scene, Restart)
    return scene


@pytest.fixture(scope="module")
def handshakes(played: dict[str, "Future[object]"]) -> Faults:
    """Give a run whose relay talked nonsense to newcomers for a while."""
    scene = result(played, "handshakes")
    assert isinstance(scene, Faults)
    return scene


@pytest.fixture(scope="module")
def no_documents(played: dict[str, "Future[object]"]) -> Faults:
    """Give a run whose relay had no documents."""
    scene = result(played, "no_documents")
    assert isinstance(scene, Faults)
    return scene


@pytest.fixture(scope="module")
def abandoned(played: dict[str, "Future[object]"]) -> Abandoned:
    """Give a run whose disk was full and whose orchestrator went away."""
    scene = result(played, "abandoned")
    if scene is None:
        pytest.skip("a file system can be mounted by root only")
    assert isinstance(scene, Abandoned)
    return scene


@pytest.fixture(scope="module")
def hasty(played: dict[str, "Future[object]"]) -> Hasty:
    """Give a run whose agent was told twice to end while S3 was away."""
    scene = result(played, "hasty")
    assert isinstance(scene, Hasty)
    return scene


@pytest.fixture(scope="module")
def late(played: dict[str, "Future[object]"]) -> Late:
    """Give a run whose agent heard of its orders late."""
    scene = result(played, "late")
    assert isinstance(scene, Late)
    return scene


def assert_one_row_for_each_planned_edit(run: Run, order: Order) -> None:
    """Every edit of the schedule has one row, whose plan is the schedule's."""
    planned = run.planned(order)
    rows = run.rows("edits", order)
    assert Counter(row["edit"] for row in rows) == dict.fromkeys(planned, 1)
    for row in rows:
        plan = planned[row["edit"]]
        assert (row["document"], row["generation"], row["connection"]) == (
            plan.document,
            plan.generation,
            plan.connection,
        )
        assert row["intended_us"] == order.starts_at_us + round(plan.at_s * 1e6)
        assert row["started_us"] is None or row["started_us"] >= row["intended_us"] - 1000


def assert_no_second_is_missing(
    rows: list[Row], from_us: float, until_us: float, *, longest_s: float = 2.5
) -> None:
    """Rows that come each second cover a span without a longer gap."""
    times = sorted(row["at_us"] for row in rows)
    inside = [at for at in times if from_us <= at <= until_us]
    edges = [round(from_us), *inside, round(until_us)]
    assert max(later - earlier for earlier, later in pairwise(edges)) < longest_s * 1e6


def end_us(order: Order) -> int:
    return order.starts_at_us + round(order.duration_s * 1e6)


def test_every_planned_edit_has_exactly_one_row(plain: Plain) -> None:
    """What the schedule holds is what was offered: no edit is left out, none comes twice."""
    for order in (plain.up, plain.on, plain.down, plain.cool):
        assert_one_row_for_each_planned_edit(plain.run, order)
    assert len(plain.run.rows("edits")) == 9 + 30 + 12


def test_every_edit_is_acknowledged(plain: Plain) -> None:
    """Against a relay without faults no edit fails and none is missed."""
    for row in plain.run.rows("edits"):
        assert row["error"] is None
        assert row["intended_us"] - 1000 <= row["started_us"] <= row["acknowledged_us"]


def test_edits_start_when_they_should(plain: Plain) -> None:
    """The median edit starts within a few milliseconds of its time, and none starts early."""
    late_us = sorted(
        row["started_us"] - row["intended_us"] for row in plain.run.rows("edits") if not row["held"]
    )
    assert late_us[len(late_us) // 2] < 20_000


def synced_at(run: Run) -> dict[tuple[int, int], int]:
    """Return when each connection first held each generation of its document."""
    found: dict[tuple[int, int], int] = {}
    for row in run.rows("connections"):
        if row["event"] == "synced":
            key = row["connection"], row["generation"]
            found[key] = min(row["at_us"], found.get(key, row["at_us"]))
    return found


def test_every_edit_is_delivered_once_to_everyone_in_sync(plain: Plain) -> None:
    """Each other connection that held the document when the edit was made shows it, once."""
    run = plain.run
    synced = synced_at(run)
    closed = {
        r["connection"]: r["at_us"] for r in run.rows("connections") if r["event"] == "closed"
    }
    shown: dict[int, list[Row]] = defaultdict(list)
    for row in run.rows("deliveries"):
        shown[row["edit"]].append(row)
    expected = 0
    for edit in run.rows("edits"):
        observers = Counter(row["observer"] for row in shown[edit["edit"]])
        must = {
            connection
            for (connection, generation), at_us in synced.items()
            if generation == edit["generation"]
            and document_of(connection, run.plan) == edit["document"]
            and connection != edit["connection"]
            # Two workers' clocks, and an edit that was already on its way.
            and at_us < edit["started_us"] - 20_000
            and closed.get(connection, 2**62) > edit["started_us"] + 1_000_000
        }
        assert must <= set(observers)
        assert set(observers.values()) <= {1}
        assert edit["connection"] not in observers
        for row in shown[edit["edit"]]:
            assert (row["repeat"], row["weight"]) == (1, 1.0)
            assert row["writer"] == edit["connection"]
            assert (row["intended_us"], row["sent_us"]) == (edit["intended_us"], edit["started_us"])
            assert row["same_worker"] == (row["writer"] % 2 == row["observer"] % 2)
            assert row["seen_us"] > row["sent_us"] - 20_000
        expected += len(must)
    assert expected > 150


def test_both_workers_deliver_to_each_other(plain: Plain) -> None:
    """Edits cross from one worker's browsers to the other's."""
    crossed = Counter(
        row["worker"] for row in plain.run.rows("deliveries") if not row["same_worker"]
    )
    assert set(crossed) == {"worker-1", "worker-2"}


def test_documents_are_followed_by_fresh_ones(plain: Plain) -> None:
    """Members move on together: generations follow one another and all members hold them."""
    generations = {(row["document"], row["generation"]) for row in plain.run.rows("edits")}
    assert {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)} <= generations
    held = {key for key in synced_at(plain.run) if key[1] == 1}
    assert {connection for connection, _ in held} == set(range(12))
    assert [row for row in plain.run.rows("edits") if row["held"]] == [
        row for row in plain.run.rows("edits", plain.up) if row["held"]
    ]


def test_replicas_converge_with_nothing_missing(plain: Plain) -> None:
    """At the end all replicas of a document are in sync, have one state and show every edit."""
    rows = plain.run.rows("replicas", plain.cool)
    at_end = [row for row in rows if row["at_us"] > end_us(plain.cool)]
    assert {row["connection"] for row in at_end} == set(range(4))
    states = defaultdict(set)
    for row in plain.run.rows("replicas"):
        assert row["in_sync"]
        assert row["missing"] == []
        states[row["document"], row["generation"]].add((row["heads"], row["edits"]))
    assert all(len(found) == 1 for found in states.values())
    edits = Counter((row["document"], row["generation"]) for row in plain.run.rows("edits"))
    for key, found in states.items():
        assert next(iter(found))[1] == edits[key]


def test_connections_come_and_go_as_planned(plain: Plain) -> None:
    """Each connection opens and closes at its time on the ramp, exactly one socket each."""
    run = plain.run
    times: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in run.rows("connections"):
        times[row["event"]][row["connection"]].append(row["at_us"])
    for connection in range(12):
        due = due_s(connection, plain.up.connections, plain.up.duration_s)
        assert due is not None
        (opening,) = times["opening"][connection]
        assert 0 <= opening - (plain.up.starts_at_us + due * 1e6) < 500_000
        (closed,) = times["closed"][connection]
        leaves = leaves_s(connection, plain.down.connections, plain.down.duration_s)
        if leaves is not None:
            assert 0 <= closed - (plain.down.starts_at_us + leaves * 1e6) < 500_000
        else:
            assert closed > end_us(plain.cool)
    assert plain.relay_stats["sockets"]["accepted"] == 12
    assert set(times) == {"opening", "open", "handshake", "synced", "closed"}


def test_the_relay_counts_what_the_agents_have_open(plain: Plain) -> None:
    """The relay's own number of connections is the agents', but for those opening just then."""
    run = plain.run
    opened = sorted(r["at_us"] for r in run.rows("connections") if r["event"] == "open")
    closed = sorted(r["at_us"] for r in run.rows("connections") if r["event"] == "closed")
    polls = [row for row in run.rows("relay") if row["error"] is None]
    assert len(polls) > 15
    for row in polls:
        slack_us = 250_000 + row["response_ms"] * 1000
        least = bisect_right(opened, row["at_us"] - slack_us) - bisect_right(
            closed, row["at_us"] + slack_us
        )
        most = bisect_left(opened, row["at_us"] + slack_us) - bisect_left(
            closed, row["at_us"] - slack_us
        )
        assert least <= row["connections"] <= most
    steady = [
        row
        for row in run.rows("relay", plain.on)
        if plain.on.starts_at_us < row["at_us"] < end_us(plain.on)
    ]
    assert {row["connections"] for row in steady} == {12}


def test_each_second_has_its_samples(plain: Plain) -> None:
    """Both workers have a row of resources each second, and one of them polls the relay."""
    run = plain.run
    begin, end = plain.up.starts_at_us, end_us(plain.cool)
    for worker in run.workers:
        own = run.rows("resources", worker=worker)
        assert_no_second_is_missing(own, begin, end)
        on = [r for r in own if r["phase"] == label(plain.on) and r["at_us"] < end_us(plain.on)]
        assert {r["connections_target"] for r in on} == {6}
        assert {r["connections_synced"] for r in on[1:]} == {6}
        assert all(0 <= r["cpu_percent"] <= 100 for r in own)
        assert any(r["cpu_percent"] > 0 for r in own)
        assert all(r["rss_mb"] > 30 and r["disk_free_mb"] > 0 for r in own)
        assert any(r["browser_pss_mb"] > 30 for r in own)
    assert {row["worker"] for row in run.rows("relay")} == {"worker-1"}
    assert_no_second_is_missing(run.rows("relay"), begin, end)


def test_no_errors_where_nothing_goes_wrong(plain: Plain) -> None:
    """A run without faults has no error samples at all."""
    assert plain.run.rows("errors") == []


def test_parts_are_numbered_without_gaps_and_told(plain: Plain) -> None:
    """What is in the bucket is what the statuses say, and each phase is compacted."""
    numbers = plain.run.part_numbers()
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    assert len(plain.statuses) == 2
    for status in plain.statuses:
        assert status.state == "stopped"
        assert status.message == "done"
        assert status.unshipped == {}
        assert [done.order for done in status.done] == [1, 2, 3, 4]
        told = {
            (phase, kind): last
            for phase, kinds in status.parts.items()
            for kind, last in kinds.items()
        }
        assert told == {
            (phase, kind): found[-1]
            for (phase, kind, worker), found in numbers.items()
            if worker == status.worker
        }
        for done in status.done:
            assert all(told[done.phase, kind] >= last for kind, last in done.parts.items())


def test_live_counts_agree_with_the_samples(plain: Plain) -> None:
    """The sums in the last heartbeats are those of the rows in the bucket."""
    for status in plain.statuses:
        edits = plain.run.rows("edits", worker=status.worker)
        assert status.counts.edits_offered == len(edits)
        assert status.counts.edits_completed == len(edits)
        shown = plain.run.rows("deliveries", worker=status.worker)
        assert status.counts.deliveries == len(shown)
        assert status.acknowledgement.count == len(edits)
        assert status.delivery.count == sum(row["same_worker"] for row in shown)


def test_an_outage_of_the_store_loses_nothing(outages: Outages) -> None:
    """S3 is away for 10 s in a phase, and every second and every edit of it is there."""
    run, phase = outages.run, outages.outage
    assert outages.store_away[1] - outages.store_away[0] > 10
    assert_one_row_for_each_planned_edit(run, phase)
    assert len(run.rows("edits", phase)) == 64
    assert_no_second_is_missing(run.rows("resources", phase), phase.starts_at_us, end_us(phase))
    numbers = run.part_numbers()
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_a_relay_that_does_not_answer_is_sampled_each_second(outages: Outages) -> None:
    """While the relay is dead each poll is a row that says so; before and after it answers."""
    run, phase = outages.run, outages.outage
    rows = run.rows("relay", phase)
    assert_no_second_is_missing(rows, phase.starts_at_us, end_us(phase))
    began_us, ended_us = (at * 1e6 for at in outages.relay_away)
    dead = [row for row in rows if began_us + 2e5 < row["at_us"] < ended_us - 1.2e6]
    assert dead
    assert {row["error"].partition(":")[0] for row in dead} == {"unreachable"}
    assert all(row["connections"] is None and row["response_ms"] is None for row in dead)
    calm = [row for row in rows if not began_us - 1e6 < row["at_us"] < ended_us + 1e6]
    assert calm
    assert {row["error"] for row in calm} == {None}
    assert len({row["pid"] for row in calm}) == 2


def test_dropped_connections_are_samples_and_come_back(outages: Outages) -> None:
    """All connections drop as the relay dies, their tries fail, and all recover after it."""
    began_us, ended_us = (at * 1e6 for at in outages.relay_away)
    events: dict[str, list[Row]] = defaultdict(list)
    for row in outages.run.rows("connections", outages.outage):
        events[row["event"]].append(row)
    assert sorted(row["connection"] for row in events["dropped"]) == list(range(8))
    for row in events["dropped"]:
        assert row["cause"] == "connection_dropped"
        assert began_us - 2e5 < row["at_us"] < began_us + 1e6
    assert {row["connection"] for row in events["failed"]} == set(range(8))
    assert {row["cause"] for row in events["failed"]} == {"connect_failed"}
    recovered = {row["connection"]: row for row in events["synced"] if row["tries"] > 1}
    assert set(recovered) == set(range(8))
    assert all(row["at_us"] > ended_us - 1e6 for row in recovered.values())
    errors = Counter(row["type"] for row in outages.run.rows("errors", outages.outage))
    assert errors["connection_dropped"] == 8
    assert errors["connect_failed"] == len(events["failed"])


def test_edits_during_an_outage_are_acknowledged_later(outages: Outages) -> None:
    """Clients go on writing without their relay; the relay has all of it in the end."""
    began_us, ended_us = (at * 1e6 for at in outages.relay_away)
    meanwhile = [
        row
        for row in outages.run.rows("edits", outages.outage)
        if began_us < row["intended_us"] < ended_us
    ]
    at_four_a_second = 4 * (ended_us - began_us) / 1e6
    assert len(meanwhile) >= max(at_four_a_second - 3, 4)
    for row in meanwhile:
        assert row["error"] is None
        assert row["started_us"] < row["intended_us"] + 1_000_000
        assert row["acknowledged_us"] is None or row["acknowledged_us"] > ended_us - 1e6
    assert sum(row["acknowledged_us"] is not None for row in meanwhile) >= len(meanwhile) - 2


def test_refused_connections_are_errors_and_no_more(outages: Outages) -> None:
    """Beyond the relay's limit tries fail and are counted; those that are open stay so."""
    run, phase = outages.run, outages.refused
    events = run.rows("connections", phase)
    refused = {row["connection"] for row in events if row["event"] == "failed"}
    assert refused == {8, 9, 10, 11}
    assert {row["connection"] for row in events if row["event"] == "dropped"} == set()
    errors = Counter(row["type"] for row in run.rows("errors", phase))
    assert errors["connect_failed"] == sum(row["event"] == "failed" for row in events)
    rows = run.rows("resources", phase)
    assert {row["connections_open"] for row in rows} == {8}
    assert max(row["sockets_attempted"] for row in rows) >= 10
    assert_one_row_for_each_planned_edit(run, phase)


def test_a_killed_agent_leaves_no_process_behind(restart: Restart) -> None:
    """Chromium and its driver end by themselves, within seconds of their agent's SIGKILL."""
    assert restart.gone_after_s < 10
    assert len(restart.orphans) >= 4


def test_a_successor_takes_up_the_order_in_force(restart: Restart) -> None:
    """The agent in its place knows what was done, joins the phase late and says that it did."""
    status = restart.joined
    assert (status.state, status.order, status.phase) == ("running", 2, label(restart.cut))
    assert [done.order for done in status.done] == [1]
    errors = Counter(row["type"] for row in restart.run.rows("errors"))
    assert errors == {"agent_restarted": 1}
    opened = [
        row
        for row in restart.run.rows("connections", restart.cut)
        if row["event"] == "handshake" and row["at_us"] > restart.killed_at * 1e6
    ]
    assert sorted(row["connection"] for row in opened) == list(range(6))


def test_a_kill_costs_two_seconds_of_samples_at_most(restart: Restart) -> None:
    """Edits up to shortly before the kill have their row; none has two, none comes from the gap."""
    run, killed_us = restart.run, restart.killed_at * 1e6
    rows = {row["edit"]: row for row in run.rows("edits", restart.cut)}
    assert len(rows) == len(run.rows("edits", restart.cut))
    planned = run.planned(restart.cut)
    due_us = {edit: restart.cut.starts_at_us + plan.at_s * 1e6 for edit, plan in planned.items()}
    ticks = [r for r in run.rows("resources", restart.cut) if r["at_us"] < killed_us]
    last = max(ticks, key=lambda row: row["at_us"])
    # Each second's samples are fetched and kept, however late a busy machine makes that second.
    late_us = 1000 * max(row["loop_lag_ms"] + row["page_lag_ms"] for row in ticks)
    assert killed_us - last["at_us"] < 2e6 + late_us
    # An edit's row is written with the second in which the relay has it.
    slowest_us = max(
        row["acknowledged_us"] - row["intended_us"]
        for row in rows.values()
        if row["acknowledged_us"]
    )
    kept_us = last["at_us"] - max(0.5e6, slowest_us) - late_us
    before = {edit for edit, at in due_us.items() if at < max(kept_us, killed_us - 2e6 - late_us)}
    assert len(before) > 10
    assert before <= set(rows)
    rejoined_us = min(at for edit, at in due_us.items() if edit in rows and at > killed_us)
    assert rejoined_us < killed_us + 20e6
    after = {e for e, at in due_us.items() if rejoined_us <= at < restart.told_at * 1e6 - 1.5e6}
    assert len(after) > 10
    assert after <= set(rows)
    assert {e for e, at in due_us.items() if killed_us < at < rejoined_us} & set(rows) == set()
    assert all(row["acknowledged_us"] for edit, row in rows.items() if edit in before | after)


def test_numbers_go_on_over_a_restart(restart: Restart) -> None:
    """The successor ships what the killed agent left and numbers its own parts behind it."""
    assert any(name.startswith("edits") for name in restart.spooled)
    numbers = restart.run.part_numbers()
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    assert restart.ended.parts == {
        phase: {
            kind: found[-1] for (its_phase, kind, _), found in numbers.items() if its_phase == phase
        }
        for phase in (label(restart.before), label(restart.cut))
    }


def test_sigterm_ships_everything_and_exits_0(restart: Restart) -> None:
    """An agent that is told to end in a phase ends within seconds, and keeps nothing back."""
    assert restart.exit_code == 0
    assert restart.left == []
    assert restart.ended.state == "stopped"
    assert "SIGTERM" in restart.ended.message
    assert restart.ended.unshipped == {}
    # It has shipped its part; the order was not carried out.
    assert [done.order for done in restart.ended.done] == [1]
    closed = [
        row
        for row in restart.run.rows("connections", restart.cut)
        if row["event"] == "closed" and row["at_us"] > restart.told_at * 1e6 - 1e5
    ]
    assert sorted(row["connection"] for row in closed) == list(range(6))


def test_the_new_connections_hold_all_documents_they_need(restart: Restart) -> None:
    """After a late start every edit finds a replica: none fails, none waits for ever."""
    killed_us = restart.killed_at * 1e6
    told_us = restart.told_at * 1e6
    after = [
        row
        for row in restart.run.rows("edits", restart.cut)
        if killed_us < row["intended_us"] < told_us - 1.5e6
    ]
    assert all(row["error"] is None for row in after)
    late = [row for row in after if row["started_us"] - row["intended_us"] > 2_000_000]
    assert late == []
    shown = Counter(row["edit"] for row in restart.run.rows("deliveries", restart.cut))
    settled = sorted(after, key=lambda row: row["intended_us"])[5:]
    assert settled
    assert all(shown[row["edit"]] >= 5 for row in settled)


@pytest.mark.parametrize(
    ("window", "error"),
    [
        ("accept_silent", "handshake_timeout"),
        ("garbage", "bad_message"),
        ("close_at_once", "closed_early"),
        ("protocol_version", "protocol_version"),
    ],
)
def test_a_handshake_that_goes_wrong_is_a_typed_error(
    handshakes: Faults, window: str, error: str
) -> None:
    """What newcomers meet has a type of its own, and each failed try is a sample."""
    began_us, ended_us = (at * 1e6 for at in handshakes.windows[window])
    newcomers = {
        row["connection"]
        for row in handshakes.run.rows("connections")
        if row["event"] == "opening"
        and row["tries"] == 1
        and began_us < row["at_us"] < ended_us - 2e5
    }
    assert newcomers
    first: dict[int, Row] = {}
    for row in sorted(handshakes.run.rows("connections"), key=lambda row: row["at_us"]):
        if row["event"] in ("failed", "handshake"):
            first.setdefault(row["connection"], row)
    for connection in newcomers:
        assert (first[connection]["event"], first[connection]["cause"]) == ("failed", error)
    errors = [row for row in handshakes.run.rows("errors") if row["type"] == error]
    assert newcomers <= {row["connection"] for row in errors}
    assert all(row["message"] for row in errors)


def test_all_recover_once_the_relay_makes_sense(handshakes: Faults) -> None:
    """Every connection that was turned away is in sync in the end, and the run ends in time."""
    made_sense_us = max(ended for _, ended in handshakes.windows.values()) * 1e6
    events: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(handshakes.run.rows("connections"), key=lambda row: row["at_us"]):
        events[row["connection"]].append(row)
    recovered = 0
    for rows in events.values():
        tried = [i for i, row in enumerate(rows) if row["event"] == "opening"]
        # The longest pause between two tries may be longer than what was left of the phase.
        if rows[tried[-1]]["at_us"] > made_sense_us + 3e5:
            follow = [row["event"] for row in rows[tried[-1] :]]
            assert follow[:4] == ["opening", "open", "handshake", "synced"]
            recovered += rows[tried[-1]]["tries"] > 1
    assert recovered >= 4
    assert {row["type"] for row in handshakes.run.rows("errors")} == {
        "handshake_timeout",
        "bad_message",
        "closed_early",
        "protocol_version",
    }
    assert_one_row_for_each_planned_edit(handshakes.run, handshakes.order)


def test_a_relay_without_documents_is_a_typed_error(no_documents: Faults) -> None:
    """Documents that never come are errors of their connections, and so are the edits on them."""
    run = no_documents.run
    errors = [row for row in run.rows("errors") if row["type"] == "document_timeout"]
    assert sorted(row["connection"] for row in errors) == [0, 1, 2]
    assert all("20000 ms" in row["message"] for row in errors)
    assert_one_row_for_each_planned_edit(run, no_documents.order)
    edits = run.rows("edits")
    assert len(edits) == 21
    assert {row["error"] for row in edits} == {"no_document"}
    assert all(row["acknowledged_us"] is None for row in edits)
    assert {row["event"] for row in run.rows("connections")} == {
        *("opening", "open", "handshake", "closed"),
    }


def test_a_full_disk_is_said_and_kills_nothing(abandoned: Abandoned) -> None:
    """The status and an error sample say so, the load goes on, and all of it is there later."""
    run, phase = abandoned.run, abandoned.full
    assert "disk" in abandoned.filled.message
    assert abandoned.cleared.message == ""
    errors = [row for row in run.rows("errors", phase) if row["type"].startswith("disk_")]
    # Which of the two depends on whether what is shipped meanwhile gives enough room.
    assert errors
    assert {row["type"] for row in errors} <= {"disk_full", "disk_low"}
    assert_one_row_for_each_planned_edit(run, phase)
    assert all(row["acknowledged_us"] for row in run.rows("edits", phase))
    assert_no_second_is_missing(run.rows("resources", phase), phase.starts_at_us, end_us(phase))


def test_deliveries_give_way_first(abandoned: Abandoned) -> None:
    """While the disk is full a tenth of the deliveries is kept and stands for all; not before."""
    filled_us, cleared_us = (at * 1e6 for at in abandoned.filled_at)
    weights: dict[str, set[float]] = defaultdict(set)
    for row in abandoned.run.rows("deliveries", abandoned.full):
        if row["seen_us"] < filled_us - 1.5e6:
            weights["before"].add(row["weight"])
        elif row["seen_us"] > cleared_us + 1.5e6:
            weights["after"].add(row["weight"])
        elif filled_us < row["seen_us"] < cleared_us - 1.5e6:
            weights["meanwhile"].add(row["weight"])
    assert weights["before"] <= {1.0}
    assert weights["after"] == {1.0}
    assert weights["meanwhile"] <= {10.0}
    assert weights["before"] | weights["meanwhile"]


def test_the_leases_end_is_the_agents_end(abandoned: Abandoned) -> None:
    """Nobody raises the lease: the agent closes, ships, says why, exits and powers off."""
    assert abandoned.exit_code == 0
    assert abandoned.ended_at - abandoned.lease_ended_at < 15
    assert "lease" in abandoned.ended.message
    assert abandoned.ended.state == "stopped"
    assert abandoned.ended.unshipped == {}
    assert abandoned.left == []
    assert abandoned.relay_connections == 0
    assert [done.order for done in abandoned.ended.done] == [1]
    assert abandoned.powered_off == "systemctl poweroff\n"
    shipped = abandoned.run.rows("resources", abandoned.abandoned)
    assert_no_second_is_missing(
        shipped, abandoned.abandoned.starts_at_us, abandoned.lease_ended_at * 1e6
    )


def test_only_an_agent_that_is_abandoned_powers_off(restart: Restart) -> None:
    """Who is told to end leaves the machine on: whoever told it takes care of that."""
    assert restart.powered_off == ""


def test_told_twice_an_agent_ends_at_once(hasty: Hasty) -> None:
    """With S3 away the second signal ends the waiting; browsers are closed, nothing is left."""
    assert hasty.exit_code == 130
    assert hasty.took_s < 40
    assert hasty.left == []


def test_what_could_not_be_shipped_waits_in_the_spool(hasty: Hasty) -> None:
    """Its samples are on disk, and whoever ships them later finds every one."""
    assert hasty.shipped.returncode == 0, hasty.shipped.stderr
    assert hasty.rows_before == 0
    rows = hasty.run.rows("edits")
    assert len({row["edit"] for row in rows}) == len(rows)
    due = {
        edit
        for edit, plan in hasty.run.planned(hasty.order).items()
        if hasty.order.starts_at_us + plan.at_s * 1e6 < hasty.told_at * 1e6
        and plan.connection % 2 == 0
    }
    assert len(due) > 5
    assert {row["edit"] for row in rows} >= due
    numbers = hasty.run.part_numbers()
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_an_agent_without_a_browser_says_so(hasty: Hasty) -> None:
    """A Chromium that does not start is a failed worker whose status says what to do."""
    assert hasty.broken_exit_code == 1
    assert hasty.broken.state == "failed"
    assert "/bin/false does not start" in hasty.broken.message


def test_an_agent_that_hears_late_owes_what_it_missed(late: Late) -> None:
    """Edits from before it heard are missed and not made in a burst; those after it are made."""
    run, phase = late.run, late.joined
    assert_one_row_for_each_planned_edit(run, phase)
    missed = [row for row in run.rows("edits", phase) if row["error"] == "missed"]
    made = [row for row in run.rows("edits", phase) if row["error"] is None]
    before = [row for row in missed if row["intended_us"] < late.heard_at * 1e6]
    assert len(before) == sum(
        phase.starts_at_us + plan.at_s * 1e6 < late.heard_at * 1e6
        for plan in run.planned(phase).values()
    )
    assert len(before) >= 20
    assert len(made) >= 10
    assert all(row["acknowledged_us"] for row in made)
    assert all(row["started_us"] is None for row in missed)


def test_an_order_that_was_over_is_done_without_samples(late: Late) -> None:
    """Nobody made its edits and nobody says so: that is derived from the schedule."""
    status = late.status
    assert late.run.rows("edits", late.over) == []
    assert {row["connection"] for row in late.run.rows("connections")} <= set(range(8))
    assert status is not None
    assert [done.order for done in status.done] == [1, 2, 3, 4]


def test_who_should_have_left_by_then_does_not_come(late: Late) -> None:
    """Connections that the plan had closed before the agent heard of it are never opened."""
    opened = {r["connection"] for r in late.run.rows("connections") if r["event"] == "opening"}
    gone = {
        connection
        for connection in range(8)
        if (leaves := leaves_s(connection, late.joined.connections, 12.0)) is not None
        and late.joined.starts_at_us + leaves * 1e6 < late.heard_at * 1e6
    }
    assert gone
    assert opened & gone == set()
    assert set(range(4)) <= opened


def test_documents_go_on_where_the_schedule_has_them(late: Late) -> None:
    """A late agent's replicas are of the generation of their time, and all agree in the end."""
    rows = [row for row in late.run.rows("replicas", late.last) if row["in_sync"]]
    assert {row["connection"] for row in rows} == set(range(4))
    newest = max(row["generation"] for row in rows)
    assert newest == max(row["generation"] for row in late.run.rows("edits"))
    assert len({row["heads"] for row in rows if row["generation"] == newest}) == 1


def test_pages_that_hang_are_seen_each_second(late: Late) -> None:
    """While its pages do not answer a worker samples itself and says how late they are."""
    run, phase = late.run, late.hung
    rows = run.rows("resources", phase)
    assert_no_second_is_missing(rows, phase.starts_at_us, end_us(phase))
    began_us, ended_us = (at * 1e6 for at in late.hung_at)
    lags_ms = [row["page_lag_ms"] for row in rows if began_us + 2.5e6 < row["at_us"] < ended_us]
    assert lags_ms
    assert min(lags_ms) > 1500
    before = [row["page_lag_ms"] for row in rows if row["at_us"] < began_us]
    assert min(before, default=0.0) < 1500


def test_edits_on_pages_that_hang_are_late_and_not_lost(late: Late) -> None:
    """What was due meanwhile is made afterwards and keeps its time: the lateness can be seen."""
    run = late.run
    assert_one_row_for_each_planned_edit(run, late.hung)
    began_us, ended_us = (at * 1e6 for at in late.hung_at)
    meanwhile = [
        row
        for row in run.rows("edits", late.hung)
        if began_us + 3e5 < row["intended_us"] < ended_us - 3e5
    ]
    at_four_a_second = 4 * (ended_us - began_us - 6e5) / 1e6
    assert len(meanwhile) >= max(at_four_a_second - 3, 4)
    assert all(row["started_us"] is None or row["started_us"] > ended_us - 3e5 for row in meanwhile)
