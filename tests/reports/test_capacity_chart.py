from __future__ import annotations

import re
import xml.dom.minidom

from reports.capacity import saturation_of
from reports.capacity_chart import capacity_facts, capacity_section
from run_store.capacity import CapacityResult
from run_store.steps import Percentiles, Step
from tests.reports.test_capacity import P95, slow, step


def steps() -> list[Step]:
    held = [
        step(n, load, figures=slow(10 * n, delivery_ms=Percentiles(p95=60 * n), error_rate=0.0))
        for n, load in enumerate((10, 20, 40, 80, 160), start=1)
    ]
    late = slow(900, delivery_ms=Percentiles(p95=2500), error_rate=0.2)
    return [*held, step(6, 320, outcome="bad", figures=late)]


def test_the_section_draws_latency_errors_and_throughput() -> None:
    """Three drawings that are whole XML, the objective's line, and both steps side by side."""
    result = CapacityResult(
        kind="between",
        over="connections",
        capacity=240,
        low=160,
        high=320,
        objective=P95,
        sentence="240 connections (160-320)",
        last_good=5,
        first_bad=6,
    )
    html = str(capacity_section(result, steps()))
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 3
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)  # noqa: S318 - drawn by us
    assert "240 connections (160-320)." in html
    assert "objective: delivery_ms.p95" in drawings[0]
    assert "did not" in html
    facts = capacity_facts(result, saturation_of(steps(), result))
    assert (facts["capacity"], facts["low"], facts["high"]) == (240, 160, 320)


def test_what_one_worker_holds_is_called_a_calibration() -> None:
    """Nobody shall take it for the relay's capacity, neither on the page nor by the summary."""
    result = CapacityResult(kind="at_least", over="both", subject="generator", low=80)
    assert '<h2 id="capacity">Calibration</h2>' in str(capacity_section(result, steps()))
    assert capacity_facts(result, saturation_of(steps(), result))["title"] == "Calibration"
    relays = result.model_copy(update={"subject": "relay"})
    assert '<h2 id="capacity">Capacity</h2>' in str(capacity_section(relays, steps()))


def test_nothing_measured_draws_nothing() -> None:
    """A search without steps has a section without drawings, and says why there is no fit."""
    html = str(capacity_section(CapacityResult(kind="unknown", over="edits"), []))
    assert "<svg" not in html
    assert "0 loads were measured" in html
