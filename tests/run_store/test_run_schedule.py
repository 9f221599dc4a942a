import math
from itertools import pairwise

import pytest

from run_store.messages import Line, Order, PhaseRef
from run_store.schedule import (
    SETTLE_S,
    Plan,
    connections_planned,
    document_of,
    due_s,
    edit_times_s,
    edits_of_documents,
    leaves_s,
    planned_edits,
    slot_of,
)


def line(start: float, end: float | None = None) -> Line:
    return Line(start=start, end=start if end is None else end)


def plan(**given: object) -> Plan:
    return Plan(
        **{  # type: ignore[arg-type]  # the fields have different types
            "connections_per_document": 0,
            "edits_per_document": 500,
            "pacing": "constant",
            "seed": 1,
            **given,
        }
    )


def order(**given: object) -> Order:
    return Order.model_validate(
        {
            "number": 1,
            "attempt": 1,
            "action": "run",
            "starts_at_us": 0,
            "duration_s": 30.0,
            "phase": PhaseRef(index=1, name="p", kind="sustained"),
            "connections": line(40),
            "edits_per_s": line(2),
            "slots": ["w1", "w2"],
            **given,
        }
    )


@pytest.mark.parametrize(
    ("rate", "duration_s", "count", "why"),
    [
        (line(2), 45, 90, "120 a minute for 45 s, neither 89 nor 91"),
        (line(1), 8, 8, "60 a minute for 8 s"),
        (line(5), 3600, 18_000, "an hour of the heavy scenario: no drift"),
        (line(100 / 60), 45, 75, "a rate that is no binary fraction"),
        (line(0.7), 10, 7, "neither is this"),
        (line(0), 60, 0, "no rate, no edits"),
        (line(0, 2), 30, 30, "a ramp from nothing is half of its end"),
        (line(2, 0), 30, 30, "and one to nothing half of its beginning"),
        (line(1, 3), 20, 40, "a ramp is its mean rate"),
        (line(0.01), 10, 0, "a tenth of an edit is not due yet"),
        (line(0.06), 10, 1, "more than half of one is"),
        (line(1000), 1, 1000, "fast"),
    ],
)
def test_the_number_of_edits_is_exact(rate: Line, duration_s: float, count: int, why: str) -> None:
    """A constant pace gives the rate's integral over the phase, to the edit."""
    times = list(edit_times_s(rate, duration_s, "constant", seed=1))
    assert len(times) == count, why
    assert all(0 <= at < duration_s for at in times)
    assert all(one < other for one, other in pairwise(times))


def test_a_constant_pace_is_even() -> None:
    """Edits at 2 a second are half a second apart, the first after a quarter."""
    times = list(edit_times_s(line(2), 10, "constant", seed=1))
    assert times == pytest.approx([0.25 + 0.5 * i for i in range(20)])


@pytest.mark.parametrize("rate", [line(0, 4), line(4, 0), line(1, 7), line(3, 3.000001)])
def test_a_ramp_follows_its_integral(rate: Line) -> None:
    """Edit i of a ramp is made when the rate's integral has reached i and a half."""
    duration_s = 25.0
    slope = (rate.end - rate.start) / duration_s
    for i, at in enumerate(edit_times_s(rate, duration_s, "constant", seed=1)):
        assert rate.start * at + slope * at * at / 2 == pytest.approx(i + 0.5, abs=1e-6)


def test_poisson_edits_are_as_many_on_average() -> None:
    """Over many seeds the number of edits has the integral's mean and about its variance."""
    counts = [len(list(edit_times_s(line(1, 3), 20, "poisson", seed))) for seed in range(400)]
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    # Of a Poisson process with 40 expected: both are 40; four standard errors either way.
    assert mean == pytest.approx(40, abs=4 * math.sqrt(40 / 400))
    assert variance == pytest.approx(40, rel=4 * math.sqrt(2 / 400))


def test_poisson_gaps_are_exponential() -> None:
    """At a steady rate as many gaps are short and long as an exponential law has it."""
    times = list(edit_times_s(line(10), 2000, "poisson", seed=3))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    for beyond in (0.05, 0.1, 0.3):
        share = sum(gap > beyond for gap in gaps) / len(gaps)
        assert share == pytest.approx(math.exp(-10 * beyond), abs=0.015)


@pytest.mark.parametrize("pacing", ["constant", "poisson"])
def test_a_schedule_is_the_same_wherever_it_is_computed(pacing: str) -> None:
    """The same order and seed give the same edits; another seed gives other writers."""
    one = planned_edits(order(), plan(pacing=pacing))
    assert one == planned_edits(order(), plan(pacing=pacing))
    other = planned_edits(order(), plan(pacing=pacing, seed=2))
    assert [edit.connection for edit in one] != [edit.connection for edit in other]


def test_two_phases_of_one_pace_differ() -> None:
    """Poisson times are drawn anew for each phase."""
    second = PhaseRef(index=2, name="q", kind="sustained")
    times = [
        [edit.at_s for edit in planned_edits(order(phase=phase), plan(pacing="poisson"))]
        for phase in (order().phase, second)
    ]
    assert times[0] != times[1]


LINES = [line(40), line(10, 40), line(40, 5), line(0, 30), line(30, 0), line(1, 2), line(100, 37)]


@pytest.mark.parametrize("connections", LINES)
@pytest.mark.parametrize("per_document", [0, 1, 7, 20])
@pytest.mark.parametrize("pacing", ["constant", "poisson"])
def test_writers_are_members_that_are_there(
    connections: Line, per_document: int, pacing: str
) -> None:
    """A writer was due 2 s before its edit, does not leave within 2 s, and holds the document.

    Only where no connection has been due for so long, the first one writes.
    """
    phase = order(connections=connections, edits_per_s=line(5), duration_s=40.0)
    members = plan(connections_per_document=per_document, pacing=pacing)
    edits = planned_edits(phase, members)
    assert edits
    for edit in edits:
        assert document_of(edit.connection, members) == edit.document
        due = due_s(edit.connection, connections, phase.duration_s)
        assert due is not None
        leaves = leaves_s(edit.connection, connections, phase.duration_s)
        nobody = edit.connection == 0 and max(connections.start, connections.end) >= 1
        there = due == 0.0 and edit.connection < connections.start
        assert there or due <= edit.at_s - SETTLE_S or nobody
        assert leaves is None or leaves > edit.at_s + SETTLE_S or nobody
        if nobody and not there:
            others = due_s(1, connections, phase.duration_s)
            assert others is None or others > edit.at_s - SETTLE_S or due <= edit.at_s - SETTLE_S


def test_every_member_writes() -> None:
    """Writers are drawn from all members, none is favoured."""
    edits = planned_edits(order(edits_per_s=line(40), duration_s=100.0), plan())
    counts = [sum(edit.connection == c for edit in edits) for c in range(40)]
    assert min(counts) > 60
    assert max(counts) < 140


def test_without_connections_there_are_no_edits() -> None:
    """A phase that has nobody to write plans nothing, whatever its rate."""
    assert planned_edits(order(connections=line(0)), plan()) == []
    assert planned_edits(order(phase=None), plan()) == []


def test_documents_are_filled_one_after_another() -> None:
    """Connections belong to documents in blocks, and all to one where no size is given."""
    assert [document_of(c, plan(connections_per_document=3)) for c in range(7)] == [
        *(0, 0, 0),
        *(1, 1, 1),
        2,
    ]
    assert {document_of(c, plan()) for c in range(1000)} == {0}


def test_edits_go_round_the_documents() -> None:
    """Each document with members gets its turn; one that has none yet gets no edits."""
    phase = order(connections=line(0, 40), edits_per_s=line(4), duration_s=40.0)
    edits = planned_edits(phase, plan(connections_per_document=10))
    for edit in edits:
        settled = max(1, connections_planned(phase, max(edit.at_s - SETTLE_S, 0)))
        documents = document_of(settled - 1, plan(connections_per_document=10)) + 1
        assert edit.document == edit.edit % documents
    assert {edit.document for edit in edits} == {0, 1, 2, 3}


@pytest.mark.parametrize("workers", range(1, 8))
@pytest.mark.parametrize("connections", LINES)
def test_the_workers_edits_are_the_fleets(workers: int, connections: Line) -> None:
    """Each edit of the schedule is made by exactly one worker, however many there are."""
    slots = [f"w{i}" for i in range(workers)]
    phase = order(connections=connections, slots=slots)
    edits = planned_edits(phase, plan(connections_per_document=9))
    by_worker = {
        slot: {edit.edit for edit in edits if slot_of(edit.connection, phase) == slot}
        for slot in slots
    }
    assert sum(map(len, by_worker.values())) == len(edits) == 60
    assert set().union(*by_worker.values()) == set(range(60))


def test_a_lost_workers_connections_are_nobodys() -> None:
    """An empty slot keeps its connections: no other worker's share changes."""
    whole = order(slots=["a", "b", "c"])
    lost = order(slots=["a", "", "c"])
    for connection in range(30):
        before = slot_of(connection, whole)
        assert slot_of(connection, lost) == ("" if before == "b" else before)
    assert slot_of(5, order(slots=[])) == ""


def test_a_document_is_followed_by_a_fresh_one() -> None:
    """After its number of edits a document's next generation begins, each document by itself."""
    members = plan(connections_per_document=20, edits_per_document=7)
    edits = planned_edits(order(), members)
    for document in (0, 1):
        generations = [edit.generation for edit in edits if edit.document == document]
        assert generations == [i // 7 for i in range(30)]


def test_counts_go_on_over_phases() -> None:
    """A phase that follows numbers its edits on and finds each document where it was left."""
    members = plan(connections_per_document=20, edits_per_document=7)
    first = order()
    after = edits_of_documents(first, members)
    assert after == {0: 30, 1: 30}
    second = order(number=2, first_edit=60, document_edits=after)
    edits = planned_edits(second, members)
    assert [edit.edit for edit in edits] == list(range(60, 120))
    assert [e.generation for e in edits if e.document == 0] == [i // 7 for i in range(30, 60)]
    assert edits_of_documents(second, members) == {0: 60, 1: 60}


@pytest.mark.parametrize(
    ("connections", "connection", "due", "leaves", "why"),
    [
        (line(10), 9, 0.0, None, "there from the beginning, and stays"),
        (line(10), 10, None, None, "not of this phase"),
        (line(0, 10), 0, 0.0, None, "the first opens at once"),
        (line(0, 10), 9, 27.0, None, "the last one slot before the end"),
        (line(4, 10), 7, 15.0, None, "half-way"),
        (line(10, 4), 3, 0.0, None, "a ramp down leaves these"),
        (line(10, 4), 9, 0.0, 5.0, "the last to come is the first to go"),
        (line(10, 4), 4, 0.0, 30.0, "the last to go does so at the end"),
        (line(10, 0), 0, 0.0, 30.0, "down to nothing"),
    ],
)
def test_when_connections_come_and_go(
    connections: Line, connection: int, due: float | None, leaves: float | None, why: str
) -> None:
    """Ramps take the phase's whole length, up and down."""
    assert due_s(connection, connections, 30.0) == due, why
    assert leaves_s(connection, connections, 30.0) == leaves, why


@pytest.mark.parametrize("connections", LINES)
def test_the_plan_counts_those_that_are_due(connections: Line) -> None:
    """The number planned at an instant is that of the connections due before and not gone."""
    planned = order(connections=connections, duration_s=50.0, connections_within_s=30.0)
    for step in range(0, 101, 3):
        at_s = step / 100 * 30.0
        there = 0
        for connection in range(101):
            due = due_s(connection, connections, 30.0)
            leaves = leaves_s(connection, connections, 30.0)
            came = due is not None and (due < at_s or connection < connections.start)
            there += came and (leaves is None or leaves > at_s)
        assert abs(connections_planned(planned, at_s) - there) <= 1
