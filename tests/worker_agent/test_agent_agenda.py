from collections import Counter
from itertools import pairwise

import pytest

from run_store.messages import Line, Order, PhaseRef
from run_store.schedule import Plan, planned_edits
from worker_agent.agenda import LONGEST_LEAD_S, Agenda, Event, Move, agenda_of
from worker_agent.late import left_of

PLAN = Plan(connections_per_document=0, edits_per_document=500, pacing="constant", seed=1)


def order(start: float, end: float, *, rate: float = 1.0, **given: object) -> Order:
    return Order.model_validate(
        {
            "number": 1,
            "attempt": 1,
            "action": "run",
            "starts_at_us": 0,
            "duration_s": 30.0,
            "phase": PhaseRef(index=1, name="p", kind="ramp"),
            "connections": Line(start=start, end=end),
            "edits_per_s": Line(start=rate, end=rate),
            "slots": ["a", "b", "c"],
            **given,
        }
    )


def events_of(order: Order, plan: Plan = PLAN, highest: int = 0) -> dict[str, list[Event]]:
    """Return the events of all workers, by worker."""
    return {
        worker: agenda_of(order, plan, worker, highest).events for worker in ("a", "b", "c", "d")
    }


def of_kind(kind: str, events: dict[str, list[Event]]) -> dict[int, float]:
    """Return when each connection has an event of a kind; it must not have two."""
    found = [event for its in events.values() for event in its if event.kind == kind]
    times = {event.connection: event.at_s for event in found}
    assert len(times) == len(found)
    return times


def test_a_ramp_up_opens_evenly_over_the_whole_phase() -> None:
    """Those there stay open, the new ones come one after another, the first at once."""
    opens = of_kind("open", events_of(order(6, 36)))
    assert opens == {c: float(max(0, c - 6)) for c in range(36)}


def test_a_ramp_down_closes_the_last_to_come_first() -> None:
    """Connections beyond the end leave one after another, the last as the phase ends."""
    events = events_of(order(36, 6))
    assert set(of_kind("open", events).values()) == {0.0}
    assert of_kind("close", events) == {c: float(36 - c) for c in range(6, 36)}


def test_what_goes_to_another_worker_is_closed() -> None:
    """A slot that changes hands is closed by who had it, as its new holder opens it."""
    before, after = order(6, 6, slots=["a", "a", "c"]), order(6, 6, slots=["a", "d", "c"])
    events = {
        worker: agenda_of(after, PLAN, worker, 6, before).events for worker in ("a", "b", "c", "d")
    }
    assert {e.connection for e in events["a"] if e.kind == "close"} == {1, 4}
    assert {e.connection for e in events["d"] if e.kind == "open"} == {1, 4}
    assert of_kind("close", events) == {1: 0.0, 4: 0.0}
    assert set(of_kind("open", events)) == set(range(6))


def test_each_connection_is_one_workers() -> None:
    """Connection c belongs to slot c modulo the number of slots; a stranger has none."""
    events = events_of(order(0, 30))
    assert {e.connection % 3 for e in events["b"]} == {1}
    assert events["d"] == []
    lost = events_of(order(0, 30, slots=["a", "", "c"]))
    assert lost["a"] == events["a"]
    assert lost["b"] == []


@pytest.mark.parametrize("workers", range(1, 8))
def test_all_agendas_together_hold_every_edit_once(workers: int) -> None:
    """The edits in the workers' agendas are the fleet's schedule, whatever their number."""
    slots = [f"w{i}" for i in range(workers)]
    whole = order(5, 40, rate=4, slots=slots)
    edits = [
        (event.edit, event.at_s, event.connection, event.document, event.generation)
        for slot in slots
        for event in agenda_of(whole, PLAN, slot).events
        if event.kind == "edit"
    ]
    assert sorted(edits) == [
        (edit.edit, edit.at_s, edit.connection, edit.document, edit.generation)
        for edit in planned_edits(whole, PLAN)
    ]


def test_connections_beyond_the_plan_are_closed() -> None:
    """What an earlier order opened and this one does not name is closed at once, and only that."""
    events = events_of(order(10, 20), highest=36)
    assert of_kind("close", events) == dict.fromkeys(range(20, 36), 0.0)
    assert set(of_kind("open", events)) == set(range(20))


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.0, 0, 0), (0.3, 200, 400), (1.0, 1000, 1000)]
)
def test_a_storm_drops_its_share(share: float, least: int, most: int) -> None:
    """About the given share of the connections is dropped at the instant, the same ones always."""
    storm = order(1000, 1000, drop_share=share, rate=0)
    drops = of_kind("drop", events_of(storm))
    assert least <= len(drops) <= most
    assert set(drops.values()) <= {0.0}
    assert drops == of_kind("drop", events_of(storm))


def test_two_storms_drop_others() -> None:
    """The next storm hits other connections."""
    first, second = (order(200, 200, drop_share=0.5, number=n) for n in (1, 2))
    assert of_kind("drop", events_of(first)) != of_kind("drop", events_of(second))


MOVING = Plan(connections_per_document=10, edits_per_document=20, pacing="constant", seed=1)


def test_members_fetch_a_fresh_document_before_its_first_edit() -> None:
    """Each member joins within the lead before the move, spread out, and no other joins."""
    phase = order(20, 20, rate=2, duration_s=60.0)
    events = events_of(phase, MOVING)
    moves = agenda_of(phase, MOVING, "a").moves
    assert [(move.document, move.to) for move in moves] == [(0, 1), (1, 1), (0, 2), (1, 2)]
    for move in moves:
        joins = [
            event
            for its in events.values()
            for event in its
            if event.kind == "join"
            and (event.document, event.generation) == (move.document, move.to)
        ]
        assert Counter(event.connection // 10 for event in joins) == {move.document: 10}
        times = sorted(event.at_s for event in joins)
        assert move.at_s - LONGEST_LEAD_S <= times[0]
        assert times[-1] < move.at_s
        assert max(b - a for a, b in pairwise(times)) < LONGEST_LEAD_S / 2
        assert len(set(times)) == 10


def test_a_newcomer_opens_with_the_document_of_its_time() -> None:
    """Who comes after a move never holds the document that was left."""
    phase = order(0, 20, rate=4, duration_s=60.0)
    moves = agenda_of(phase, MOVING, "a").moves
    for its in events_of(phase, MOVING).values():
        for event in its:
            if event.kind == "open":
                done = [
                    m.to for m in moves if m.document == event.document and m.at_s <= event.at_s
                ]
                assert event.generation == max(done, default=0)


def test_every_edit_finds_its_document() -> None:
    """A writer has opened with or joined the generation that its edit is for, before it."""
    plan = Plan(connections_per_document=7, edits_per_document=9, pacing="poisson", seed=4)
    phase = order(4, 30, rate=5, duration_s=60.0, document_edits={0: 18, 1: 10})
    for its in events_of(phase, plan).values():
        holds: dict[int, set[int]] = {}
        for event in its:
            if event.kind in ("open", "join"):
                holds.setdefault(event.connection, set()).add(event.generation)
            elif event.kind == "edit":
                assert event.generation in holds[event.connection]


def test_events_come_in_the_order_of_time() -> None:
    """A page is given its agenda sorted, within the phase."""
    for its in events_of(order(0, 30, rate=5, drop_share=0.5), MOVING).values():
        times = [event.at_s for event in its]
        assert times == sorted(times)
        assert all(0 <= at <= 30 for at in times)


def test_an_agenda_taken_up_late_has_what_is_left() -> None:
    """Edits, drops and closes before now are over; who should be there by now opens at once."""
    events = [
        Event(0.0, "open", 1, 0, 0),
        Event(0.0, "open", 2, 0, 0),
        Event(0.0, "drop", 1, 0, 0),
        Event(0.5, "join", 2, 0, 2),
        Event(1.0, "edit", 1, 0, 0, 7),
        Event(2.0, "join", 2, 0, 1),
        Event(2.1, "join", 1, 0, 1),
        Event(3.0, "open", 3, 0, 1),
        Event(4.0, "close", 1, 0, 0),
        Event(5.0, "edit", 2, 0, 1, 8),
        Event(6.0, "close", 2, 0, 1),
    ]
    agenda = Agenda(events, [Move(2.5, 0, 1), Move(5.5, 0, 2)], [])
    assert left_of(agenda, 4.5) == [
        Event(4.0, "close", 1, 0, 0),
        Event(0.0, "open", 2, 0, 1),
        Event(3.0, "open", 3, 0, 1),
        Event(0.5, "join", 2, 0, 2),
        *events[-2:],
    ]
    assert left_of(agenda, -1.0) == events
    assert left_of(agenda, 100.0) == [
        Event(4.0, "close", 1, 0, 0),
        Event(6.0, "close", 2, 0, 1),
        Event(3.0, "open", 3, 0, 2),
    ]


def test_one_who_wakes_late_lets_go_of_what_is_anothers() -> None:
    """Connections that an order gives to a substitute are closed, however late it is read."""
    before = order(4, 4, slots=["a", "b"])
    now = order(4, 4, slots=["c", "b"])
    agenda = agenda_of(now, MOVING, "a", highest=4, before=before)
    left = left_of(agenda, 5.0)
    assert [(event.kind, event.connection) for event in left] == [("close", 0), ("close", 2)]


@pytest.mark.parametrize("now_s", [0.0, 7.3, 15.0, 29.9])
def test_what_is_left_continues_the_plan(now_s: float) -> None:
    """The same events follow, and the same connections hold what they would hold by then."""
    phase = order(30, 12, rate=5, document_edits={0: 15})
    for worker in ("a", "b", "c"):
        agenda = agenda_of(phase, MOVING, worker)
        its, left = agenda.events, left_of(agenda, now_s)
        assert [e for e in left if e.at_s > now_s] == [e for e in its if e.at_s > now_s]
        opened = {e.connection for e in its if e.kind == "open" and e.at_s <= now_s}
        closed = {e.connection for e in its if e.kind == "close" and e.at_s <= now_s}
        now = [e for e in left if e.at_s <= now_s]
        assert {e.connection for e in now if e.kind == "open"} == opened - closed
        for connection in opened - closed:
            moves = [m for m in agenda.moves if m.document == connection // 10]
            current = max((m.to for m in moves if m.at_s <= now_s), default=0)
            held = {
                e.generation
                for e in its
                if e.connection == connection and e.kind in ("open", "join") and e.at_s <= now_s
            }
            holds = {e.generation for e in now if e.connection == connection}
            assert holds == {current} | {one for one in held if one > current}


@pytest.mark.parametrize("now_s", [3.0, 20.0, 41.0])
def test_every_edit_that_is_left_finds_its_document(now_s: float) -> None:
    """Also a writer that opens late holds the generation of each edit, before it."""
    plan = Plan(connections_per_document=7, edits_per_document=9, pacing="poisson", seed=4)
    phase = order(4, 30, rate=5, duration_s=60.0, document_edits={0: 18, 1: 10})
    for worker in ("a", "b", "c"):
        holds: dict[int, set[int]] = {}
        for event in left_of(agenda_of(phase, plan, worker), now_s):
            if event.kind in ("open", "join"):
                holds.setdefault(event.connection, set()).add(event.generation)
            elif event.kind == "edit":
                assert event.generation in holds[event.connection]
