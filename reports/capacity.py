"""What a capacity search says in words, and what in the steps explains it.

The last step that held and the first that did not stand side by side. What grew between them
names the symptom; what was near its limit, of all that was measured, names the cause. What a
relay does not publish is never said to be short or to be plentiful.
"""

from __future__ import annotations

from collections.abc import Sequence

from reports.saturation import Point, Saturation, fitted
from run_store.capacity import CapacityResult, Subject
from run_store.errors import ScenarioError
from run_store.steps import Step, StepFigures
from scenarios.objectives import parse_objective

GREW = 1.5
"""A latency that is this many times what it was is said to have grown."""
MEMORY_GREW = CPU_GREW = 1.2
CPU_FULL = 0.85
"""A relay that keeps so much of a core busy, as one that runs in one thread may, is short of it."""
STEADY_LATENESS_MS = 20.0


def sentence_of(result: CapacityResult) -> str:
    """Return the answer of a search as one sentence, with its interval and what explains it."""
    text = _answer(result) if result.subject == "relay" else _of_one_worker(result)
    tail = result.explanation or result.why
    if result.kind == "died":
        return text
    if result.kind == "between" and result.explanation:
        return f"{text}; above that {tail}"
    return f"{text}: {tail}" if tail and tail not in text else text


def _answer(result: CapacityResult) -> str:
    unit, at = result.unit, _at(result.objective)
    if result.kind == "between" and result.capacity is not None:
        return (
            f"{number(result.capacity)} {unit} ({number(result.low)}-{number(result.high)}){at}"
            + ("" if result.is_precise else ", less precisely than was asked for")
        )
    if result.kind == "at_least":
        return f"at least {number(result.low)} {unit}"
    if result.kind == "below":
        return f"below {number(result.high)} {unit}{at}"
    if result.kind == "died":
        held = f"; it had held {number(result.low)}" if result.low is not None else ""
        when = ""
        if result.died_us is not None:
            when = (
                f", {(result.died_us - result.started_us) / 1e6:.0f} s after the first step began"
            )
        gone = ""
        if result.came_back is False:
            gone = f"{',' if when else ''} and did not come back"
        return f"the relay died at {number(result.high)} {unit}{when}{gone}{held}"
    return "the capacity is not known"


def _of_one_worker(result: CapacityResult) -> str:
    """Return the answer of a calibration, which is about the worker and not about the relay."""
    if result.kind == "below":
        return f"one worker does not hold {number(result.high)} {result.unit}"
    if result.kind in ("between", "at_least"):
        return f"one worker holds {_answer(result)}"
    return "what one worker holds is not known"


def explained(good: Step | None, bad: Step | None, *, subject: Subject = "relay") -> str:
    """Return what changes between the last step that held and the first that did not."""
    if bad is None:
        return ""
    if subject == "generator":
        return bad.generator.why
    symptom = _symptom(good, bad)
    rest = [text for text in (_cpu(good, bad), _memory(good, bad)) if text]
    steady = [name for name, text in rest if text == "steady"]
    short = [text for _, text in rest if text != "steady"]
    if not bad.generator.saturated and bad.generator.lateness_p99_ms < STEADY_LATENESS_MS:
        steady.append("the generator")
    sentence = " and ".join([symptom, *short])
    if steady:
        are = "is" if len(steady) == 1 else "are"
        sentence += f" while {_listed(steady)} {are} steady"
    return sentence


def _symptom(good: Step | None, bad: Step) -> str:
    before = good.figures if good else StepFigures()
    now = bad.figures
    missed = {objective.metric.partition(".")[0] for objective in bad.missed}
    signs = (
        (bad.relay in ("dead", "restarted"), "the relay dies"),
        (bad.relay == "refused", "the relay refuses connections"),
        (
            _grew(before.acknowledgement_ms.p95, now.acknowledgement_ms.p95),
            "acknowledgements queue",
        ),
        (
            _grew(before.delivery_ms.p95, now.delivery_ms.p95),
            "deliveries queue behind acknowledgements that do not",
        ),
        ("edits" in missed, "edits fail"),
        ("connections" in missed or now.dropped > 0, "connections are lost"),
    )
    return next((text for seen, text in signs if seen), "the objective is missed")


def _cpu(good: Step | None, bad: Step) -> tuple[str, str] | None:
    """Return what is known of the relay's CPU, in cores; None if it explains nothing.

    So it is of a relay that does not publish its CPU, and of one whose use of it grew as its load
    did and left some of it.
    """
    before, now = (good.figures.relay_cpu_share if good else None), bad.figures.relay_cpu_share
    if now is None:
        return None
    if now >= CPU_FULL:
        return "CPU", f"the relay keeps {now:.2g} of a core busy" if now < 1 else (
            f"the relay keeps {now:.2g} cores busy"
        )
    if before is not None and now <= before * CPU_GREW:
        return "the relay's CPU", "steady"
    return None


def _memory(good: Step | None, bad: Step) -> tuple[str, str] | None:
    before, now = (good.figures.relay_memory_mb if good else None), bad.figures.relay_memory_mb
    if before is None or now is None:
        return None
    if now > before * MEMORY_GREW:
        return "memory", f"the relay's memory grows from {number(before)} to {number(now)} MB"
    return "memory", "steady"


def saturation_of(steps: Sequence[Step], result: CapacityResult) -> Saturation:
    """Return the scalability law fitted to the steps of a search, as `points_of` takes them."""
    points = points_of(steps, result)
    most = max((point.load for point in points), default=0.0)
    if result.over == "connections" and 0 < result.members < most:
        return Saturation(
            points=tuple(sorted(points, key=lambda point: point.load)),
            problem=(
                f"{result.members:,} connections share a document, so that with more of them no "
                "more is handed on"
            ),
        )
    return fitted(points)


def points_of(steps: Sequence[Step], result: CapacityResult) -> list[Point]:
    """Return load and throughput of each step that says something of the relay.

    Throughput is edits acknowledged a second; where connections are the load, it is what the
    relay hands on to them: that times the connections in sync that share a document.
    """
    points = []
    for step in steps:
        if step.outcome in ("doubtful", "generator_saturated") or step.relay != "ok":
            continue
        rate = step.figures.edits_per_second
        if result.over == "edits":
            points.append(Point(step.edits_per_second, rate))
        else:
            healthy = step.figures.connections_healthy
            share = min(healthy, result.members or healthy)
            points.append(Point(step.connections, rate * share))
    return points


def load_of(step: Step, result: CapacityResult) -> float:
    """Return a step's load, in the search's unit."""
    return step.edits_per_second if result.over == "edits" else float(step.connections)


def number(value: float | None) -> str:
    """Return a load as a sentence says it: whole from 100 on, else with three digits."""
    if value is None:
        return "?"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def _at(objective: str) -> str:
    """Return `at delivery p95 < 1 s` for an objective's text."""
    if not objective:
        return ""
    try:
        parsed = parse_objective(objective)
    except ScenarioError:
        return f" as long as {objective}"
    head, _, statistic = parsed.metric.partition(".")
    if head.endswith("_ms"):
        value = f"{parsed.value / 1000:g} s" if parsed.value >= 1000 else f"{parsed.value:g} ms"  # noqa: PLR2004
        name = f"{head.removesuffix('_ms').replace('_', ' ')} {statistic}"
        return f" at {name} {parsed.operator} {value}"
    value = f"{parsed.value * 100:g} %" if parsed.metric.endswith("rate") else f"{parsed.value:g}"
    return f" at {parsed.metric.replace('.', ' ').replace('_', ' ')} {parsed.operator} {value}"


def _grew(before: float | None, now: float | None) -> bool:
    return before is not None and now is not None and now > before * GREW


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"
