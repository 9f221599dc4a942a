from __future__ import annotations

from typing import Any

import pytest

from reports.capacity import explained, points_of, saturation_of, sentence_of
from run_store.capacity import CapacityResult
from run_store.steps import Percentiles, Step, StepFigures, StepGenerator, StepObjective

P95 = "delivery_ms.p95 < 1s stop"


def step(number: int, connections: int, *, edits: float = 2.0, **more: Any) -> Step:
    figures = {
        "connections_healthy": connections,
        "edits_per_second": edits,
        "edits_offered": 60,
        "relay_memory_mb": 100.0,
        **more.pop("figures", {}),
    }
    fields = {"outcome": "good", "generator": StepGenerator(lateness_p99_ms=2.0), **more}
    return Step(
        number=number,
        attempt=1,
        order=number,
        phase="01-search",
        connections=connections,
        edits_per_second=edits,
        started_us=number * 10_000_000,
        judged_from_us=number * 10_000_000 + 5_000_000,
        ended_us=number * 10_000_000 + 9_000_000,
        figures=StepFigures(**figures),
        **fields,
    )


def slow(p95_ms: float, **more: Any) -> dict[str, Any]:
    return {"acknowledgement_ms": Percentiles(p95=p95_ms), **more}


GOOD = step(1, 100, figures=slow(20, delivery_ms=Percentiles(p95=80), relay_cpu_share=0.3))
EXPLANATIONS: list[tuple[Step, str]] = [
    (
        step(2, 200, outcome="bad", figures=slow(900)),
        "acknowledgements queue while memory and the generator are steady",
    ),
    (
        step(2, 200, outcome="bad", figures=slow(900, relay_memory_mb=240.0)),
        (
            "acknowledgements queue and the relay's memory grows from 100 to 240 MB while the "
            "generator is steady"
        ),
    ),
    (
        step(2, 200, outcome="bad", figures=slow(900, relay_cpu_share=0.99)),
        (
            "acknowledgements queue and the relay keeps 0.99 of a core busy while memory and the "
            "generator are steady"
        ),
    ),
    (
        step(2, 200, outcome="bad", figures=slow(900, relay_cpu_share=2.3)),
        "acknowledgements queue and the relay keeps 2.3 cores busy while memory",
    ),
    (
        step(2, 200, outcome="bad", figures=slow(900, relay_cpu_share=0.33)),
        "acknowledgements queue while the relay's CPU, memory and the generator are steady",
    ),
    (
        # It grew with the load and is not full: neither steady nor what is short.
        step(2, 200, outcome="bad", figures=slow(900, relay_cpu_share=0.8)),
        "acknowledgements queue while memory and the generator are steady",
    ),
    (
        step(2, 200, outcome="bad", figures=slow(20, delivery_ms=Percentiles(p95=2000))),
        (
            "deliveries queue behind acknowledgements that do not while memory and the generator "
            "are steady"
        ),
    ),
    (
        step(2, 200, outcome="bad", relay="refused", figures={"relay_memory_mb": None}),
        "the relay refuses connections while the generator is steady",
    ),
    (
        step(
            2,
            200,
            outcome="bad",
            objectives=(
                StepObjective(
                    text="edits.error_rate < 5% stop", metric="edits.error_rate", got=1, met=False
                ),
            ),
            generator=StepGenerator(lateness_p99_ms=90, saturated=True),
        ),
        "edits fail while memory is steady",
    ),
    (
        step(2, 200, outcome="bad", relay="dead", figures={"relay_memory_mb": None}),
        "the relay dies",
    ),
]


@pytest.mark.parametrize(("bad", "said"), EXPLANATIONS)
def test_what_explains_a_capacity_is_what_changed(bad: Step, said: str) -> None:
    """What grew is named, and what did not is called steady; what was not measured is neither."""
    assert explained(GOOD, bad).startswith(said)


def test_a_relay_that_publishes_no_cpu_is_not_said_to_lack_it() -> None:
    """Without a figure of the relay's CPU the word does not occur."""
    assert "CPU" not in explained(GOOD, step(2, 200, outcome="bad", figures=slow(900)))


SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {
            "kind": "between",
            "capacity": 1240,
            "low": 1180,
            "high": 1300,
            "objective": P95,
            "explanation": "acknowledgements queue while memory and the generator are steady",
        },
        (
            "1240 connections (1180-1300) at delivery p95 < 1 s; above that acknowledgements queue "
            "while memory and the generator are steady"
        ),
    ),
    (
        {"kind": "between", "capacity": 3.2, "low": 3, "high": 3.4, "over": "edits"},
        "3.2 edits/s (3-3.4)",
    ),
    (
        {"kind": "at_least", "low": 2000, "why": "no objective gave way up to the limit of 2000"},
        "at least 2000 connections: no objective gave way up to the limit of 2000",
    ),
    (
        {"kind": "below", "high": 10, "objective": "edits.error_rate < 5%", "why": "it failed"},
        "below 10 connections at edits error rate < 5 %: it failed",
    ),
    (
        {"kind": "died", "low": 20, "high": 40, "came_back": False, "why": "it died at 40"},
        "the relay died at 40 connections and did not come back; it had held 20",
    ),
    (
        {
            "kind": "died",
            "high": 40,
            "started_us": 5_000_000,
            "died_us": 100_000_000,
            "came_back": False,
        },
        "the relay died at 40 connections, 95 s after the first step began, and did not come back",
    ),
    ({"kind": "died", "high": 40, "low": 20}, "the relay died at 40 connections; it had held 20"),
    (
        {
            "kind": "between",
            "subject": "generator",
            "capacity": 103,
            "low": 100,
            "high": 106,
            "objective": "the worker keeps its schedule",
            "explanation": "12 of 300 edits began more than 50 ms late",
        },
        (
            "one worker holds 103 connections (100-106) as long as the worker keeps its schedule; "
            "above that 12 of 300 edits began more than 50 ms late"
        ),
    ),
    (
        {"kind": "at_least", "subject": "generator", "low": 20, "why": "the relay gave way first"},
        "one worker holds at least 20 connections: the relay gave way first",
    ),
    (
        {"kind": "below", "subject": "generator", "high": 20, "why": "it was late"},
        "one worker does not hold 20 connections: it was late",
    ),
    ({"kind": "unknown", "why": "too little was seen"}, "the capacity is not known: too little"),
    (
        {"kind": "between", "capacity": 50, "low": 40, "high": 60, "is_precise": False},
        "50 connections (40-60), less precisely than was asked for",
    ),
]


@pytest.mark.parametrize(("fields", "said"), SENTENCES)
def test_an_answer_is_one_sentence(fields: dict[str, Any], said: str) -> None:
    """Capacity, interval, objective and what explains it, in the words of the glossary."""
    assert sentence_of(CapacityResult(**{"over": "connections", **fields})).startswith(said)


def test_where_documents_have_fixed_members_connections_bend_no_throughput() -> None:
    """With more connections there are more documents, and no edit is handed on to more."""
    result = CapacityResult(kind="between", over="connections", members=20)
    steps = [step(n, load) for n, load in enumerate((10, 20, 40, 80), start=1)]
    assert [p.throughput for p in points_of(steps, result)] == [20, 40, 40, 40]
    fit = saturation_of(steps, result)
    assert "20 connections share a document" in fit.sentence("connections")
    grown = [step(n, load, edits=load / 5) for n, load in enumerate((20, 40, 80, 160), start=1)]
    both = result.model_copy(update={"over": "both"})
    assert saturation_of(grown, both).is_good
    assert "no limit is in sight" in saturation_of(grown, both).sentence("connections")


def test_throughput_over_connections_is_what_is_handed_on() -> None:
    """Where connections are the load, throughput is edits times the connections in sync."""
    result = CapacityResult(kind="between", over="connections")
    steps = [step(n, load) for n, load in enumerate((10, 20, 40, 80), start=1)]
    steps.append(step(5, 160, outcome="generator_saturated"))
    steps.append(step(6, 160, outcome="bad", relay="dead"))
    assert [(p.load, p.throughput) for p in points_of(steps, result)] == [
        (10, 20),
        (20, 40),
        (40, 80),
        (80, 160),
    ]
    assert saturation_of(steps, result).is_good
    assert [p.load for p in points_of(steps[:1], result.model_copy(update={"over": "edits"}))] == [
        2
    ]
