from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from run_store.messages import Line, Order, PhaseRecord, PhaseRef
from run_store.schedule import plan_of, planned_edits
from scenarios.loading import load_scenario
from scenarios.model import Scenario
from tasks.plan import (
    EDITS_OF_AN_ATTEMPT,
    WIND_DOWN_S,
    Progress,
    connections_before,
    plan_order,
    reconnect_order,
    remaining_phases,
    slots_of,
    stop_order,
    wind_down_order,
)

WORKERS = ["worker-1", "worker-2"]


def scenario(**overrides: Any) -> Scenario:
    return load_scenario(
        "local", {key.replace("__", "."): value for key, value in overrides.items()}
    )


def order(index: int, of: Scenario, *, progress: Progress | None = None, **more: Any) -> Order:
    given = {"slots": WORKERS, "starts_at_us": 7, **more}
    return plan_order(of, index, progress=progress or Progress.of_attempt(1), **given)


@pytest.mark.parametrize(
    ("index", "connections", "edits_per_s", "why"),
    [
        (0, Line(start=0, end=10), Line(start=1, end=1), "the warm-up starts from nothing"),
        (1, Line(start=10, end=40), Line(start=1, end=1), "the ramp goes on where that ended"),
        (2, Line(start=40, end=40), Line(start=2, end=2), "sustained load is level at once"),
        (3, Line(start=40, end=40), Line(start=0, end=0), "the cool-down keeps connections"),
    ],
)
def test_phases_follow_one_another(
    index: int, connections: Line, edits_per_s: Line, why: str
) -> None:
    """Each phase's lines begin where the phase before it ended."""
    progress, of = Progress.of_attempt(1), scenario()
    for earlier in range(index):
        progress = progress.after(order(earlier, of, progress=progress), plan_of(of))
    planned = order(index, of, progress=progress)
    assert planned.connections == connections, why
    assert planned.edits_per_s == edits_per_s, why
    assert planned.number == index + 1
    assert planned.phase == PhaseRef(
        index=index, name=of.phases[index].name, kind=of.phases[index].kind
    )
    assert planned.check_replicas == (of.phases[index].kind == "cooldown")


def test_a_cool_down_keeps_what_steps_of_load_held() -> None:
    """It asks on for nothing beyond that, and soon; one that names a number has that."""
    refused = replace(Progress.of_attempt(1), connections=120)
    planned = order(3, scenario(), progress=refused, held=60)
    assert planned.connections == Line(start=120, end=60)
    assert planned.connections_within_s == 3
    assert planned.check_replicas
    named = scenario(phases__cooldown__connections=5)
    assert order(3, named, progress=refused, held=60).connections == Line(start=120, end=5)
    # Another phase behind steps has its own plan.
    assert order(2, scenario(), progress=refused, held=60).connections == Line(start=120, end=40)


def test_edits_of_all_phases_have_numbers_of_their_own() -> None:
    """No edit's number is given twice, and documents count what each phase adds."""
    of = scenario(connections_per_document=10)
    progress, numbers = Progress.of_attempt(1), list[int]()
    for index in range(len(of.phases)):
        planned = order(index, of, progress=progress)
        numbers += [edit.edit for edit in planned_edits(planned, plan_of(of))]
        progress = progress.after(planned, plan_of(of))
    assert numbers == list(range(len(numbers)))
    assert sum(progress.document_edits.values()) == len(numbers) == 8 + 15 + 90


def test_attempts_share_no_number() -> None:
    """A retry numbers its edits from another beginning, since its documents are fresh as well."""
    assert Progress.of_attempt(1).next_edit == 0
    assert Progress.of_attempt(3).next_edit == 2 * EDITS_OF_AN_ATTEMPT
    assert Progress.of_attempt(3).document_edits == {}


@pytest.mark.parametrize(
    ("seconds", "connections", "made"), [(0, 10, 0), (7.5, 25, 7), (15, 40, 15)]
)
def test_a_phase_that_is_cut_counts_what_was_made(
    seconds: float, connections: int, made: int
) -> None:
    """Connections and documents stand where the cut found them; numbers are not used again."""
    of = scenario()
    progress = Progress.of_attempt(1).after(order(0, of), plan_of(of))
    ramp = order(1, of, progress=progress)
    cut = progress.after_part(ramp, plan_of(of), seconds)
    assert cut.connections == connections
    assert cut.document_edits[0] - progress.document_edits[0] == made
    assert cut.next_edit == progress.after(ramp, plan_of(of)).next_edit
    assert cut.next_order == ramp.number + 1


def test_a_rate_may_move_and_needs_connections() -> None:
    """A phase's rate moves if it names a start; without connections nobody edits."""
    moving = scenario(phases__sustained__edits_per_minute_start=30)
    assert order(2, moving).edits_per_s == Line(start=0.5, end=2)
    empty = scenario(connections=0, phases__sustained__edits_per_minute_start=30)
    assert order(2, empty).edits_per_s == Line(start=0, end=0)
    assert not planned_edits(order(2, empty), plan_of(empty))


def test_a_storm_drops_its_share_and_others_drop_nothing() -> None:
    """Only an order of kind storm names a share to drop."""
    stormy = scenario(phases__sustained__kind="storm", phases__sustained__drop_share=0.5)
    assert order(2, stormy).drop_share == 0.5
    assert order(1, stormy).drop_share == 0


@pytest.mark.parametrize(
    ("slots", "polls_relay", "samplers"),
    [
        (WORKERS, True, WORKERS),
        (["", "worker-2"], True, ["worker-2"]),
        (["worker-2", "worker-2"], True, ["worker-2"]),
        (WORKERS, False, []),
    ],
)
def test_who_samples_the_relay(slots: list[str], polls_relay: bool, samplers: list[str]) -> None:
    """Live workers may, each named once, in order; nobody polls a relay without metrics."""
    planned = order(0, scenario(), slots=slots, polls_relay=polls_relay)
    assert planned.relay_samplers == samplers


@pytest.mark.parametrize(
    ("lost", "spread", "slots"),
    [
        ([], False, ["a", "b", "c"]),
        (["b"], False, ["a", "", "c"]),
        (["b"], True, ["a", "a", "c"]),
        (["a", "b"], True, ["c", "c", "c"]),
        (["a", "b", "c"], True, ["", "", ""]),
    ],
)
def test_slots_of_lost_workers(lost: list[str], spread: bool, slots: list[str]) -> None:
    """A lost worker's slot is empty, or another's if the scenario spreads connections."""
    assert slots_of(["a", "b", "c"], lost, spread=spread) == slots


def record(label: str, stopped_early: str = "") -> PhaseRecord:
    return PhaseRecord(
        phase=PhaseRef(index=0, name="x", kind="ramp"),
        label=label,
        attempt=1,
        order=1,
        started_us=0,
        ended_us=1,
        planned_s=1,
        connections=Line(start=0, end=0),
        edits_per_s=Line(start=0, end=0),
        edits_planned=0,
        first_edit=0,
        stopped_early=stopped_early,
    )


@pytest.mark.parametrize(
    ("done", "remaining"),
    [
        ([], [0, 1, 2, 3]),
        ([record("00-warmup"), record("01-ramp-up")], [2, 3]),
        ([record("00-warmup"), record("01-ramp-up", "interrupted")], [1, 2, 3]),
        ([record("00-warmup"), record("03-cooldown")], [1, 2, 3]),
        ([record(f"0{i}-{n}") for i, n in enumerate(["warmup", "ramp-up", "sustained"])], [3]),
    ],
)
def test_what_a_retry_still_has_to_do(done: list[PhaseRecord], remaining: list[int]) -> None:
    """A retry goes on with the first phase that is not complete, and does all behind it."""
    assert remaining_phases(scenario(), done) == remaining


def test_a_complete_run_has_nothing_left() -> None:
    """When every phase is complete a retry only makes the report."""
    names = ["warmup", "ramp-up", "sustained", "cooldown"]
    assert remaining_phases(scenario(), [record(f"0{i}-{n}") for i, n in enumerate(names)]) == []


def test_a_retry_brings_its_connections_back_first() -> None:
    """Connections come back in a line, without edits, under a label of no phase."""
    of = scenario()
    assert [connections_before(of, index) for index in range(4)] == [0, 10, 40, 40]
    planned = reconnect_order(
        2, connections=40, progress=Progress.of_attempt(2), slots=WORKERS, starts_at_us=1
    )
    assert planned.connections == Line(start=0, end=40)
    assert planned.duration_s == pytest.approx(3.0)
    assert planned.edits_per_s == Line(start=0, end=0)
    assert planned.phase is not None
    assert planned.phase.name not in [phase.name for phase in of.phases]
    many = reconnect_order(
        2, connections=1000, progress=Progress.of_attempt(2), slots=WORKERS, starts_at_us=1
    )
    assert many.duration_s == pytest.approx(50.0)


def test_a_run_that_is_cut_short_still_cools_down() -> None:
    """The cool-down is shortened and keeps the connections that there are."""
    of = scenario()
    progress = Progress(attempt=1, next_order=3, connections=25, next_edit=50)
    planned = wind_down_order(of, 1, progress=progress, slots=WORKERS, starts_at_us=1)
    assert planned is not None
    assert planned.phase is not None
    assert planned.phase.name == "cooldown"
    assert planned.connections == Line(start=25, end=25)
    assert planned.duration_s == WIND_DOWN_S < of.phases[3].duration_s
    assert planned.check_replicas
    assert wind_down_order(of, 3, progress=progress, slots=WORKERS, starts_at_us=1) is None


def test_the_stop_is_the_next_order() -> None:
    """A stop order has the next number and says why."""
    stop = stop_order(Progress(attempt=2, next_order=9), starts_at_us=5, reason="asked to")
    assert (stop.number, stop.attempt, stop.action, stop.reason) == (9, 2, "stop", "asked to")
