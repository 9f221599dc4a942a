from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from statistics import median

import pytest

from run_store.schedule import document_of, due_s, leaves_s
from tests.worker_agent.orchestration import Row, Run, label
from tests.worker_agent.plan_scenes import Grown, Late, Plain
from tests.worker_agent.schedule_checks import (
    assert_no_second_is_missing,
    assert_one_row_for_each_planned_edit,
    end_us,
)

pytestmark = pytest.mark.browser


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
    """The median edit starts close to its time, but for what its page was late with everything.

    How close is a benchmark's to say.
    """
    lag_us = 1000 * median(
        row["loop_lag_ms"] + row["page_lag_ms"] for row in plain.run.rows("resources")
    )
    late_us = [
        row["started_us"] - row["intended_us"] for row in plain.run.rows("edits") if not row["held"]
    ]
    assert median(late_us) < 100_000 + lag_us


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
    # Who leaves sees what was on its way no more, and a busy machine is slow to show it.
    slowest_us = max(row["seen_us"] - row["sent_us"] for row in run.rows("deliveries"))
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
            and closed.get(connection, 2**62) > edit["started_us"] + 1_000_000 + slowest_us
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
    synced = synced_at(plain.run)
    assert {connection for connection, generation in synced if generation == 1} == set(range(12))
    # Behind the ramp documents are there before their first edits, but where the machine is busy.
    later = [*plain.run.rows("edits", plain.on), *plain.run.rows("edits", plain.down)]
    assert sum(row["held"] for row in later) < len(later) / 2
    for row in plain.run.rows("edits"):
        came_us = synced[row["connection"], row["generation"]]
        if row["held"]:
            assert row["intended_us"] - 1000 <= came_us <= row["started_us"] + 1000
        else:
            assert came_us <= row["started_us"] + 1000


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
    """Each connection opens and closes at its time on the ramp, exactly one socket each.

    None is early. How late they are is the machine's affair, but for the median.
    """
    run = plain.run
    late_us = []
    times: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in run.rows("connections"):
        times[row["event"]][row["connection"]].append(row["at_us"])
    for connection in range(12):
        due = due_s(connection, plain.up.connections, plain.up.duration_s)
        assert due is not None
        (opening,) = times["opening"][connection]
        late_us.append(opening - (plain.up.starts_at_us + due * 1e6))
        (closed,) = times["closed"][connection]
        leaves = leaves_s(connection, plain.down.connections, plain.down.duration_s)
        if leaves is not None:
            late_us.append(closed - (plain.down.starts_at_us + leaves * 1e6))
            assert closed < end_us(plain.cool)
        else:
            assert closed > end_us(plain.cool)
    assert min(late_us) >= 0
    assert median(late_us) < 500_000
    assert plain.relay_stats["sockets"]["accepted"] == 12
    assert set(times) == {"opening", "open", "handshake", "synced", "closed"}


def test_the_relay_counts_what_the_agents_have_open(plain: Plain) -> None:
    """The relay's own number of connections is the agents', but for those opening just then.

    It may know of one before a busy page does, and of its end some time after it.
    """
    run = plain.run
    opening, opened, closed = (
        sorted(row["at_us"] for row in run.rows("connections") if row["event"] == event)
        for event in ("opening", "open", "closed")
    )
    polls = [row for row in run.rows("relay") if row["error"] is None]
    assert len(polls) > 15
    for row in polls:
        slack_us = 250_000 + row["response_ms"] * 1000
        least = bisect_right(opened, row["at_us"] - slack_us) - bisect_right(
            closed, row["at_us"] + slack_us
        )
        most = bisect_left(opening, row["at_us"] + slack_us) - bisect_left(
            closed, row["at_us"] - 6_000_000
        )
        assert least <= row["connections"] <= most
    steady = [
        row
        for row in run.rows("relay", plain.on)
        if max(plain.on.starts_at_us, opened[-1] + 1e6) < row["at_us"] < end_us(plain.on)
    ]
    assert {row["connections"] for row in steady} == {12}


def test_each_second_has_its_samples(plain: Plain) -> None:
    """Both workers have a row of resources each second, and one of them polls the relay."""
    run = plain.run
    begin, end = plain.up.starts_at_us, end_us(plain.cool)
    for worker in run.workers:
        own = run.rows("resources", worker=worker)
        assert_no_second_is_missing(run, own, begin, end)
        on = [r for r in own if r["phase"] == label(plain.on) and r["at_us"] < end_us(plain.on)]
        assert {r["connections_target"] for r in on} == {6}
        # A busy machine may still bring the last connections of the ramp.
        in_sync_us = max(at for (_, generation), at in synced_at(run).items() if generation == 0)
        late_us = 2e6 + 1000 * max(r["page_lag_ms"] for r in own)
        assert {r["connections_synced"] for r in on[1:] if r["at_us"] > in_sync_us + late_us} == {6}
        assert all(0 <= r["cpu_percent"] <= 100 for r in own)
        assert any(r["cpu_percent"] > 0 for r in own)
        assert all(r["rss_mb"] > 30 and r["disk_free_mb"] > 0 for r in own)
        assert any(r["browser_pss_mb"] > 30 for r in own)
    assert {row["worker"] for row in run.rows("relay")} == {"worker-1"}
    assert_no_second_is_missing(run, run.rows("relay"), begin, end)


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
    # From when it has taken up the order all are made; what is due at its very end may be missed.
    taken_up_us = min(row["intended_us"] for row in made)
    assert all(not taken_up_us < row["intended_us"] < end_us(phase) - 2_000_000 for row in missed)
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
    assert_no_second_is_missing(run, rows, phase.starts_at_us, end_us(phase))
    began_us, ended_us = (at * 1e6 for at in late.hung_at)
    lags_ms = [row["page_lag_ms"] for row in rows if began_us + 2.5e6 < row["at_us"] < ended_us]
    assert lags_ms
    assert min(lags_ms) > 1500
    before = [row["page_lag_ms"] for row in run.rows("resources") if row["at_us"] < began_us]
    assert min(before) < 1500


def test_edits_on_pages_that_hang_are_late_and_not_lost(late: Late) -> None:
    """What was due meanwhile is made afterwards and keeps its time: the lateness can be seen."""
    run = late.run
    assert_one_row_for_each_planned_edit(run, late.hung)
    began_us, ended_us = (at * 1e6 for at in late.hung_at)
    meanwhile = [
        row for row in run.rows("edits", late.hung) if began_us < row["intended_us"] < ended_us
    ]
    at_four_a_second = 4 * (ended_us - began_us) / 1e6
    assert len(meanwhile) >= max(at_four_a_second - 3, 4)
    assert all(row["started_us"] is None or row["started_us"] > ended_us - 1e5 for row in meanwhile)


def test_a_page_that_has_grown_is_replaced(grown: Grown) -> None:
    """Between two orders a page beyond its memory gives way to another; no edit is lost by it."""
    run, second = grown.run, grown.second
    assert grown.pages_before
    assert grown.pages_after
    assert grown.pages_before.isdisjoint(grown.pages_after)
    events = run.rows("connections", second)
    assert sorted(row["connection"] for row in events if row["event"] == "open") == list(range(6))
    assert {row["event"] for row in events}.isdisjoint({"dropped", "failed"})
    assert_one_row_for_each_planned_edit(run, second)
    assert all(row["acknowledged_us"] for row in run.rows("edits"))
    assert run.rows("errors") == []
