import pickle
from pathlib import Path

import pytest
from pydantic import BaseModel

from run_store import errors, messages
from run_store.errors import RelayLoadError
from run_store.histogram import Histogram
from run_store.messages import (
    Attempt,
    Lease,
    Line,
    LostWorker,
    Order,
    PhaseDone,
    PhaseRecord,
    PhaseRef,
    RunRecord,
    Status,
)
from run_store.samples import CONNECTION_EVENTS, SCHEMAS
from run_store.steps import Percentiles, Step, StepFigures, StepGenerator, StepObjective

PHASE = PhaseRef(index=1, name="ramp-up", kind="ramp")
MESSAGES: list[BaseModel] = [
    Lease(counter=3, every_s=2, expires_after_s=30),
    Order(
        number=2,
        attempt=1,
        action="run",
        starts_at_us=1_700_000_000_000_001,
        duration_s=15,
        phase=PHASE,
        connections=Line(start=0, end=40),
        slots=["w1", ""],
        document_edits={0: 12, 7: 3},
    ),
    Order(number=3, attempt=1, action="stop", starts_at_us=0, reason="done"),
    Status(
        worker="w1",
        attempt=1,
        beat=7,
        at_us=1,
        state="running",
        delivery=Histogram(counts={3: 1.5}),
        done=[PhaseDone(phase="00-a", order=1, parts={"edits": 2})],
    ),
    PhaseRecord(
        phase=PHASE,
        label="01-ramp-up",
        attempt=1,
        order=2,
        started_us=1,
        ended_us=2,
        planned_s=15,
        connections=Line(start=0, end=40),
        edits_per_s=Line(start=1, end=1),
        edits_planned=15,
        first_edit=8,
        document_edits_after={0: 23},
        lost=[
            LostWorker(
                worker="w2", phase="01-ramp-up", last_seen_us=1, noticed_us=2, connections=20
            )
        ],
    ),
    RunRecord(
        run_id="r-1",
        scenario={"name": "local"},
        relay_url="ws://127.0.0.1:1",
        fleet="local",
        created_us=1,
        attempts=[Attempt(number=1, started_us=1)],
    ),
    Step(
        number=3,
        attempt=1,
        order=6,
        phase="02-stress",
        connections=400,
        edits_per_second=2.5,
        started_us=1,
        judged_from_us=2,
        ended_us=3,
        figures=StepFigures(delivery_ms=Percentiles(p95=1200.5), refused=4),
        objectives=(
            StepObjective(text="delivery_ms.p95 < 1s stop", metric="delivery_ms.p95", met=False),
        ),
        generator=StepGenerator(lateness_p99_ms=3.5, cpu_share=0.5),
        relay="refused",
        outcome="bad",
        why="4 connections were refused",
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: type(one).__name__)
def test_a_message_is_read_as_it_was_written(message: BaseModel) -> None:
    """JSON keeps every field, numbers as keys among them."""
    assert type(message).model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: type(one).__name__)
def test_keys_of_a_newer_writer_are_ignored(message: BaseModel) -> None:
    """An agent and an orchestrator of different versions can talk."""
    newer = {**message.model_dump(mode="json"), "invented_later": {"a": [1]}}
    assert type(message).model_validate(newer) == message


@pytest.mark.parametrize(
    ("share", "value"), [(-1, 10), (0, 10), (0.25, 15), (0.5, 20), (1, 30), (7, 30)]
)
def test_a_line_is_straight_and_stays_at_its_ends(share: float, value: float) -> None:
    """Between its ends a value moves evenly; before and after it is at one of them."""
    assert Line(start=10, end=30).at(share) == value


def subclasses(of: type[RelayLoadError]) -> list[type[RelayLoadError]]:
    return [of, *(inner for sub in of.__subclasses__() for inner in subclasses(sub))]


@pytest.mark.parametrize("kind", subclasses(RelayLoadError))
def test_an_error_survives_being_pickled(kind: type[RelayLoadError]) -> None:
    """Message, hint and kind come through to another process."""
    error = kind("What happened.", hint="What to do.")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in the line itself
    assert type(again) is kind
    assert (again.message, again.hint, str(again)) == (error.message, error.hint, str(error))
    assert str(error) == "What happened. What to do."


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    """The module's docstring names every error in it, and the exit code of each branch."""
    drawn = errors.__doc__ or ""
    for kind in subclasses(RelayLoadError):
        if kind.__module__ == errors.__name__:
            assert kind.__name__ in drawn
    for kind, code in (
        (errors.UsageError, 2),
        (errors.StoreError, 1),
        (errors.ObjectivesMissedError, 3),
        (errors.InvalidRunError, 4),
        (errors.InterruptedRunError, 130),
    ):
        assert kind.exit_code == code
        assert f"exit {code}" in drawn


def test_every_kind_of_sample_counts_its_time_in_microseconds() -> None:
    """Instants are whole microseconds, durations are floats in the unit that their name says."""
    for kind, schema in SCHEMAS.items():
        for field in schema:
            if field.name.endswith("_us"):
                assert str(field.type) == "int64", (kind, field.name)
            if field.name.endswith(("_ms", "_mb", "_s", "_percent")):
                assert str(field.type) == "double", (kind, field.name)
    assert len(set(CONNECTION_EVENTS)) == len(CONNECTION_EVENTS)


def test_the_page_and_the_schemas_agree_on_columns() -> None:
    """Every column that the page's recorder fills is declared, in that order, for its kind."""
    recorder = Path(messages.__file__).parents[1] / "worker_agent/page/src/recorder.js"
    text = recorder.read_text(encoding="utf-8")
    columns = text[text.index("const COLUMNS") : text.index("};", text.index("const COLUMNS"))]
    for line in columns.split("],"):
        kind, found, names = line.partition(": [")
        if not found:
            continue
        kind = kind.replace("{", " ").split()[-1]
        wanted = {name.strip(' "\n') for name in names.split(",")} - {""}
        assert wanted <= set(SCHEMAS[kind].names), kind
