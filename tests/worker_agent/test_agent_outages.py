from collections import Counter, defaultdict

import pytest

from tests.worker_agent.orchestration import Row
from tests.worker_agent.outage_scenes import Faults, Outages
from tests.worker_agent.schedule_checks import (
    assert_no_second_is_missing,
    assert_one_row_for_each_planned_edit,
    end_us,
)

pytestmark = pytest.mark.browser


def test_an_outage_of_the_store_loses_nothing(outages: Outages) -> None:
    """S3 is away for 10 s in a phase, and every second and every edit of it is there."""
    run, phase = outages.run, outages.outage
    assert outages.store_away[1] - outages.store_away[0] > 10
    assert_one_row_for_each_planned_edit(run, phase)
    assert len(run.rows("edits", phase)) == 96
    assert_no_second_is_missing(
        run, run.rows("resources", phase), phase.starts_at_us, end_us(phase)
    )
    numbers = run.part_numbers()
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_a_relay_that_does_not_answer_is_sampled_each_second(outages: Outages) -> None:
    """While the relay is dead each poll is a row that says so; before and after it answers."""
    run, phase = outages.run, outages.outage
    rows = run.rows("relay", phase)
    assert_no_second_is_missing(run, rows, phase.starts_at_us, end_us(phase))
    dead_us, began_us = (at * 1e6 for at in outages.relay_dead)
    dead = [row for row in rows if dead_us < row["at_us"] < began_us - 1.2e6]
    assert dead
    assert {row["error"].partition(":")[0] for row in dead} == {"unreachable"}
    assert all(row["connections"] is None and row["response_ms"] is None for row in dead)
    away_us, back_us = (at * 1e6 for at in outages.relay_away)
    calm = [row for row in rows if not away_us - 1e6 < row["at_us"] < back_us + 1e6]
    # A busy machine has polls on their way for longer: those were sent when it had not died yet.
    cut_off = [row for row in calm if (row["error"] or "").startswith("cut off: ")]
    assert all(row["at_us"] < away_us for row in cut_off)
    calm = [row for row in calm if row not in cut_off]
    assert calm
    assert {row["error"] for row in calm} == {None}
    assert len({row["pid"] for row in calm}) == 2


def test_dropped_connections_are_samples_and_come_back(outages: Outages) -> None:
    """All connections drop as the relay dies, their tries fail, and all recover after it."""
    away_us = outages.relay_away[0] * 1e6
    began_us = outages.relay_dead[1] * 1e6
    events: dict[str, list[Row]] = defaultdict(list)
    for row in outages.run.rows("connections", outages.outage):
        events[row["event"]].append(row)
    assert sorted(row["connection"] for row in events["dropped"]) == list(range(8))
    for row in events["dropped"]:
        assert row["cause"] == "connection_dropped"
        assert away_us - 2e5 < row["at_us"] < end_us(outages.outage)
    assert {row["connection"] for row in events["failed"]} == set(range(8))
    assert {row["cause"] for row in events["failed"]} == {"connect_failed"}
    recovered = {row["connection"]: row for row in events["synced"] if row["tries"] > 1}
    assert set(recovered) == set(range(8))
    assert all(row["at_us"] > began_us for row in recovered.values())
    errors = Counter(row["type"] for row in outages.run.rows("errors", outages.outage))
    assert errors["connection_dropped"] == 8
    assert errors["connect_failed"] == len(events["failed"])


def test_edits_during_an_outage_are_acknowledged_later(outages: Outages) -> None:
    """Clients go on writing without their relay; the relay has all of it in the end."""
    dead_us, began_us = (at * 1e6 for at in outages.relay_dead)
    meanwhile = [
        row
        for row in outages.run.rows("edits", outages.outage)
        if dead_us < row["intended_us"] < began_us
    ]
    last_us = end_us(outages.outage) - 1e6
    at_four_a_second = 4 * (began_us - dead_us) / 1e6
    pages = outages.run.rows("resources", outages.outage)
    late_us = 1e6 + 1000 * max(row["page_lag_ms"] for row in pages)
    assert len(meanwhile) >= max(at_four_a_second - 3, 4)
    for row in meanwhile:
        assert row["error"] is None
        assert row["started_us"] < row["intended_us"] + late_us
        assert row["acknowledged_us"] is None or row["acknowledged_us"] > began_us
    # A busy machine may bring a relay back so late that a connection finds it at the phase's end.
    recovered_us = {
        row["connection"]: row["at_us"]
        for row in outages.run.rows("connections", outages.outage)
        if row["event"] == "synced" and row["tries"] > 1
    }
    in_time = [row for row in meanwhile if recovered_us[row["connection"]] < last_us]
    assert in_time
    assert sum(row["acknowledged_us"] is not None for row in in_time) >= len(in_time) - 2


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


@pytest.mark.parametrize(
    ("window", "error"),
    [
        ("manifest_delay_ms", "bootstrap_timeout"),
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
    opened = {
        row["connection"]: row["at_us"]
        for row in handshakes.run.rows("connections")
        if row["event"] == "opening" and row["tries"] == 1
    }
    first: dict[int, Row] = {}
    for row in sorted(handshakes.run.rows("connections"), key=lambda row: row["at_us"]):
        if row["event"] in ("failed", "handshake"):
            first.setdefault(row["connection"], row)
    # Who came so long before its end has met it; a busy machine may bring all of them later.
    newcomers = {one for one, at_us in opened.items() if began_us < at_us < ended_us - 1.5e6}
    for connection in newcomers:
        assert (first[connection]["event"], first[connection]["cause"]) == ("failed", error)
    met = {one for one, row in first.items() if (row["event"], row["cause"]) == ("failed", error)}
    assert met
    assert all(opened[connection] < ended_us for connection in met)
    errors = [row for row in handshakes.run.rows("errors") if row["type"] == error]
    assert met <= {row["connection"] for row in errors}
    assert all(row["message"] for row in errors)


def test_all_recover_once_the_relay_makes_sense(handshakes: Faults) -> None:
    """Every connection that was turned away is in sync in the end, and the run ends in time."""
    made_sense_us = handshakes.makes_sense_at * 1e6
    events: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(handshakes.run.rows("connections"), key=lambda row: row["at_us"]):
        events[row["connection"]].append(row)
    recovered = 0
    for rows in events.values():
        tried = [i for i, row in enumerate(rows) if row["event"] == "opening"]
        # The longest pause between two tries may be longer than what was left of the phase, and
        # a try may have begun just before its end.
        if made_sense_us < rows[tried[-1]]["at_us"] < end_us(handshakes.order) - 3e6:
            follow = [row["event"] for row in rows[tried[-1] :]]
            assert follow[:5] == ["opening", "bootstrapped", "open", "handshake", "synced"]
            recovered += rows[tried[-1]]["tries"] > 1
    assert recovered >= 4
    assert {row["type"] for row in handshakes.run.rows("errors")} == {
        "bootstrap_timeout",
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
    assert len(edits) == 24
    assert {row["error"] for row in edits} == {"no_document"}
    assert all(row["acknowledged_us"] is None for row in edits)
    assert {row["event"] for row in run.rows("connections")} == {
        *("opening", "open", "handshake", "closed"),
    }
