from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest

from reports.build import build_report
from reports.stress import stress_result
from run_store.layout import RunLayout
from run_store.steps import Percentiles, Step, StepFigures, StepObjective
from run_store.store import Store
from tests.reports.synthetic import healthy_run

PHASE = "01-sustained"
LATE = StepObjective(
    text="delivery_ms.p95 < 1s for 10s stop", metric="delivery_ms.p95", got=2100.0, met=False
)


def step(number: int, connections: int, outcome: str = "good", **more: Any) -> Step:
    return Step.model_validate(
        {
            "number": number,
            "attempt": 1,
            "order": number,
            "phase": PHASE,
            "connections": connections,
            "edits_per_second": 2.0,
            "started_us": number * 10_000_000,
            "judged_from_us": number * 10_000_000 + 5_000_000,
            "ended_us": number * 10_000_000 + 9_000_000,
            "figures": StepFigures(
                connections_healthy=connections,
                edits_per_second=2.0,
                delivery_ms=Percentiles(p95=2100.0 if outcome == "bad" else 80.0),
            ),
            "outcome": outcome,
            **more,
        }
    )


BAD = {"objectives": (LATE,), "why": "delivery p95 was 2.1 s"}
CASES: list[tuple[str, list[Step], tuple[str, float | None, float | None]]] = [
    ("held, then not", [step(1, 10), step(2, 20, "bad", **BAD)], ("between", 10, 20)),
    ("not at all", [step(1, 10, "bad", **BAD)], ("below", None, 10)),
    ("always", [step(1, 10), step(2, 20)], ("at_least", 20, None)),
    (
        "the workers gave way first",
        [step(1, 10), step(2, 20, "generator_saturated")],
        ("at_least", 10, None),
    ),
    ("it died", [step(1, 10), step(2, 20, "bad", relay="dead")], ("died", 10, 20)),
    ("started anew", [step(1, 10), step(2, 20, "bad", relay="restarted")], ("between", 10, 20)),
    ("nothing to believe", [step(1, 10, "doubtful")], ("unknown", None, None)),
    (
        "a doubtful step between",
        [step(1, 10), step(2, 20, "doubtful"), step(3, 20, "bad", **BAD)],
        ("between", 10, 20),
    ),
]


@pytest.mark.parametrize(("name", "steps", "wanted"), CASES, ids=[name for name, _, _ in CASES])
def test_steps_bound_the_capacity(
    name: str, steps: list[Step], wanted: tuple[str, float | None, float | None]
) -> None:
    """What held bounds it from below, what the relay did not hold from above, and no other."""
    result = stress_result(steps)
    assert result is not None, name
    assert (result.kind, result.low, result.high) == wanted
    assert result.sentence


def test_without_steps_there_is_no_capacity() -> None:
    """A run that was not stressed says nothing of where its relay breaks."""
    assert stress_result([]) is None


def test_edits_are_the_load_where_only_they_grow() -> None:
    """Loads are counted in what grew from step to step."""
    more = step(2, 10, edits_per_second=8.0)
    result = stress_result([step(1, 10), more])
    assert result is not None
    assert (result.over, result.low) == ("edits", 8.0)
    # After one step only the phase can tell.
    first = stress_result([step(1, 10, "bad", **BAD)], over="edits")
    assert first is not None
    assert first.sentence.startswith("below 2 edits/s at delivery p95 < 1 s")


def test_a_report_shows_where_the_relay_gave_way(store: Store, tmp_path: Path) -> None:
    """The steps in the bucket are the capacity in `summary.json` and a section of the page."""
    run = healthy_run("stress-report", objectives=())
    run.write(store)
    for one in (step(1, 10), step(2, 20, "bad", **BAD)):
        store.put_message(RunLayout(run.run_id).step(PHASE, one.number), one)
    summary = build_report(store, run.run_id, into=tmp_path)
    assert summary.capacity is not None
    assert (summary.capacity["low"], summary.capacity["high"]) == (10, 20)
    assert summary.capacity["objective"] == LATE.text
    page = html.unescape((tmp_path / "report.html").read_text())
    assert summary.capacity["sentence"] in page
    assert f"It took no further step: {BAD['why']}." in page
    assert "The last step that held, and the first that did not" in page
    assert '<a href="#capacity">Capacity</a>' in page
    [headline] = re.findall("<h1>(.*?)</h1>", page)
    assert headline == (
        "Capacity: 10 connections (10-20) at delivery p95 < 1 s; the figures can be believed."
    )
