from collections import Counter, defaultdict

import pytest

from tests.worker_agent.ending_scenes import Abandoned, Hasty, Restart
from tests.worker_agent.orchestration import label
from tests.worker_agent.plan_scenes import Grown
from tests.worker_agent.schedule_checks import (
    assert_no_second_is_missing,
    assert_one_row_for_each_planned_edit,
    end_us,
)

pytestmark = pytest.mark.browser


def test_a_killed_agent_leaves_no_process_behind(restart: Restart) -> None:
    """Chromium and its driver end by themselves, within seconds of their agent's SIGKILL."""
    assert restart.gone_after_s < 30
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
    silent_us = killed_us - last["at_us"]
    assert silent_us < 2e6 + late_us
    # An edit's row is written with the second in which the relay has it. Those that were lost
    # may have been the slowest: a machine that was busy at the end shows in how long it was silent.
    slowest_us = max(
        row["acknowledged_us"] - row["intended_us"]
        for row in rows.values()
        if row["acknowledged_us"] and row["intended_us"] < killed_us
    )
    kept_us = killed_us - 2e6 - slowest_us - max(late_us, silent_us - 1e6)
    before = {edit for edit, at in due_us.items() if at < kept_us}
    assert before
    assert before <= set(rows)
    rejoined_us = min(at for edit, at in due_us.items() if edit in rows and at > killed_us)
    assert rejoined_us < killed_us + 90e6
    after = {e for e, at in due_us.items() if rejoined_us <= at < restart.told_at * 1e6 - 1.5e6}
    assert after
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
    # Those that had to wait for their document may have waited for long; none did for ever.
    ticks = [row for row in restart.run.rows("resources", restart.cut) if row["at_us"] > killed_us]
    lag_us = 1000 * max(row["loop_lag_ms"] + row["page_lag_ms"] for row in ticks)
    for row in after:
        late_us = row["started_us"] - row["intended_us"]
        assert late_us < (20_000_000 if row["held"] else 2_000_000 + lag_us)
    shown = Counter(row["edit"] for row in restart.run.rows("deliveries", restart.cut))
    in_sync: dict[int, int] = {}
    for row in restart.run.rows("connections", restart.cut):
        if row["event"] == "synced" and row["at_us"] > killed_us:
            in_sync.setdefault(row["connection"], row["at_us"])
    assert sorted(in_sync) == list(range(6))
    settled = [row for row in after if row["intended_us"] > max(in_sync.values())]
    assert settled
    assert all(shown[row["edit"]] >= 5 for row in settled)


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
    assert_no_second_is_missing(
        run, run.rows("resources", phase), phase.starts_at_us, end_us(phase)
    )


def test_deliveries_give_way_first(abandoned: Abandoned) -> None:
    """While the disk is full a tenth of the deliveries is kept and stands for all; not before."""
    filled_us, cleared_us = (at * 1e6 for at in abandoned.filled_at)
    weights: dict[str, set[float]] = defaultdict(set)
    # A delivery has its weight when it is fetched, which may come late.
    ticks = abandoned.run.rows("resources", abandoned.full)
    late_us = 1.5e6 + 1000 * max(row["loop_lag_ms"] + row["page_lag_ms"] for row in ticks)
    deliveries = abandoned.run.rows("deliveries", abandoned.full)
    for row in deliveries:
        if row["seen_us"] < filled_us - late_us:
            weights["before"].add(row["weight"])
        elif row["seen_us"] > cleared_us + late_us:
            weights["after"].add(row["weight"])
        elif filled_us < row["seen_us"] < cleared_us - late_us:
            weights["meanwhile"].add(row["weight"])
    assert weights["before"] <= {1.0}
    assert weights["after"] == {1.0}
    assert weights["meanwhile"] <= {10.0}
    # On a busy machine the first edits may be late, and of few a tenth may be none.
    began_late = min(row["seen_us"] for row in deliveries) > filled_us
    assert weights["before"] | weights["meanwhile"] or began_late


def test_the_leases_end_is_the_agents_end(abandoned: Abandoned) -> None:
    """Nobody raises the lease: the agent closes, ships, says why, exits and powers off."""
    assert abandoned.exit_code == 0
    assert abandoned.ended_at - abandoned.lease_ended_at < 40
    assert "lease" in abandoned.ended.message
    assert abandoned.ended.state == "stopped"
    assert abandoned.ended.unshipped == {}
    assert abandoned.left == []
    assert abandoned.relay_connections == 0
    assert [done.order for done in abandoned.ended.done] == [1]
    assert abandoned.powered_off == "systemctl poweroff\n"
    shipped = abandoned.run.rows("resources", abandoned.abandoned)
    assert_no_second_is_missing(
        abandoned.run, shipped, abandoned.abandoned.starts_at_us, abandoned.lease_ended_at * 1e6
    )


def test_only_an_agent_that_is_abandoned_powers_off(restart: Restart) -> None:
    """Who is told to end leaves the machine on: whoever told it takes care of that."""
    assert restart.powered_off == ""


def test_an_agent_that_is_told_the_last_word_powers_off(grown: Grown) -> None:
    """A retry rents its own machines: what an orphaned attempt has left must not live on."""
    assert grown.powered_off == "systemctl poweroff\n"


def test_an_agent_that_somebody_has_come_for_leaves_its_machine_on(hasty: Hasty) -> None:
    """It had given up waiting for its store; what it could not ship is to be fetched from it."""
    assert "the store has not answered" in hasty.run.log("worker-1")
    assert hasty.powered_off == ""


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
        if hasty.order.starts_at_us + plan.at_s * 1e6 < hasty.store_away_at * 1e6
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
