"""Scenario files: what they say, what may be overridden, and how a mistake in one is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from run_store.errors import ScenarioError
from scenarios.durations import format_duration, parse_duration_s
from scenarios.loading import load_scenario, overrides_from, scenario_names
from scenarios.model import Scenario
from scenarios.objectives import METRICS, parse_objective

SEED = {
    "local": (40, 2, "local", [0.133333, 0.25, 0.75, 0.116667], [60, 60, 120, 0], None),
    "baseline": (100, 2, "ec2", [2, 5, 10, 2], [60, 60, 120, 0], 1.0),
    "moderate": (500, 3, "ec2", [3, 10, 30, 3], [90, 90, 180, 0], 2.0),
    "heavy": (1000, 5, "ec2", [5, 15, 60, 5], [150, 150, 300, 0], 3.0),
    "stress": (2000, 10, "ec2", [5, 20, 60, 5], [300, 600, 1200, 0], 6.0),
}
GOOD = """
connections = 4
objectives = ["edits.failed == 0"]

[phases.load]
kind = "sustained"
duration = "10s"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def message_of(named: str, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(named, overrides)
    assert caught.value.exit_code == 2
    return caught.value.message


@pytest.mark.parametrize("name", SEED)
def test_the_scenarios_are_those_of_the_table(name: str) -> None:
    """Connections, workers, phases, edits and hourly limits are what the design's table says."""
    connections, workers, fleet, minutes, edits, usd = SEED[name]
    scenario = load_scenario(name)
    assert (scenario.name, scenario.connections) == (name, connections)
    assert (scenario.fleet.workers, scenario.fleet.kind) == (workers, fleet)
    assert [phase.duration_s / 60 for phase in scenario.phases] == pytest.approx(minutes, rel=1e-4)
    assert [phase.edits_per_minute for phase in scenario.phases] == edits
    assert scenario.max_usd_per_hour == usd


def test_the_scenarios_are_listed_from_small_to_large() -> None:
    """The list is in the order of their connections, and holds every file."""
    assert scenario_names() == list(SEED)


@pytest.mark.parametrize("name", SEED)
def test_a_scenario_survives_its_own_json(name: str) -> None:
    """What a run writes into run.json reads back as the same scenario."""
    scenario = load_scenario(name)
    again = json.loads(json.dumps(scenario.model_dump(mode="json", by_alias=True)))
    assert Scenario.model_validate(again) == scenario


def test_a_file_is_a_scenario_by_its_path(tmp_path: Path) -> None:
    """A path names a scenario, and the file's stem is its name unless it says another."""
    assert load_scenario(written(tmp_path, GOOD)).name == "mine"
    assert load_scenario(written(tmp_path, 'name = "yours"\n' + GOOD)).name == "yours"


def test_a_warm_up_never_asks_for_more_than_the_scenario() -> None:
    """With 4 connections in all, a warm-up to 10 opens 4."""
    scenario = load_scenario("local", ["connections=4"])
    assert [scenario.connections_at_end_of(phase) for phase in scenario.phases] == [4, 4, 4, 4]
    assert scenario.peak_connections == 4


def test_overrides_reach_every_depth() -> None:
    """Lines as `--set` takes them change plain fields, phases, tables and lists."""
    scenario = load_scenario(
        "local",
        [
            "connections=7",
            "phases.ramp-up.duration=1m30s",
            "phases.sustained.edits_per_minute=30.5",
            "fleet.workers = 3",
            'objectives=["edits.failed == 0"]',
            "description=two words",
        ],
    )
    assert (scenario.connections, scenario.fleet.workers) == (7, 3)
    assert scenario.phases[1].duration_s == 90
    assert scenario.phases[2].edits_per_minute == 30.5
    assert scenario.objectives == ("edits.failed == 0",)
    assert scenario.description == "two words"


def test_overrides_from_python_are_the_same() -> None:
    """A mapping of dotted keys, nested tables, and `--set` lines give one scenario."""
    lines = ["connections=7", "phases.sustained.duration=20s"]
    dotted = {"connections": 7, "phases.sustained.duration": "20s"}
    nested = {"connections": 7, "phases": {"sustained": {"duration": 20}}}
    assert overrides_from(lines) == dotted
    scenarios = [load_scenario("local", given) for given in (lines, dotted, nested)]
    assert scenarios[0] == scenarios[1] == scenarios[2]


@pytest.mark.parametrize(
    ("old", "new", "key", "reason"),
    [
        ("connections = 4", 'connections = "many"', "connections", "should be a whole number"),
        ("connections = 4", "connections = 4.5", "connections", "should be a whole number"),
        ("connections = 4", "connections = true", "connections", "true and false"),
        ("connections = 4", "connections = -1", "connections", "greater than or equal to 0"),
        ("connections = 4", "connections = 4\nfoo = 1", "foo", "no such key"),
        ("connections = 4", "", "connections", "must be given"),
        ('"10s"', '"-10s"', "phases.load.duration", "is not a duration"),
        ('"10s"', "-10", "phases.load.duration", "a duration is zero or more"),
        ('"10s"', "0", "phases.load.duration", "should be greater than 0"),
        ('"10s"', "inf", "phases.load.duration", "a duration is zero or more"),
        ('"sustained"', '"sustain"', "phases.load.kind", "should be 'warmup', 'ramp'"),
        ('duration = "10s"', "", "phases.load.duration", "must be given"),
        ('"10s"', '"10s"\nedits = 1', "phases.load.edits", "no such key"),
        ('"10s"', '"10s"\nedits_per_minute = inf', "phases.load.edits_per_minute", "finite"),
        ("== 0", "== x", "objectives", "cannot be read at character 17"),
        ('["edits.failed == 0"]', '"x"', "objectives", "should be a list"),
        ("edits.failed", "lod: edits.failed", "scenario", "names the phase 'lod'; there is load"),
        ("[phases.load]", "[phases.'Lo ad']", "phases.Lo ad.name", "letters, digits and hyphens"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_file_key_and_reason(
    tmp_path: Path, old: str, new: str, key: str, reason: str
) -> None:
    """Each mistake is one line that names the key, under the file's name, and nothing else."""
    file = written(tmp_path, GOOD.replace(old, new))
    first, line, *more = message_of(file).splitlines()
    assert first == f"{file} is not valid:"
    assert line.startswith(f"  {key}: ")
    assert reason in line
    assert not [other for other in more if ": " in other]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Three mistakes give three lines."""
    text = GOOD.replace("connections = 4", "connections = -1\nfoo = 1").replace('"10s"', "0")
    assert len(message_of(written(tmp_path, text)).splitlines()) == 4


def test_a_scenario_needs_a_phase(tmp_path: Path) -> None:
    """A file without phases, and one with an empty table of them, say so."""
    assert "phases: must be given" in message_of(written(tmp_path, "connections = 4"))
    empty = written(tmp_path, "connections = 4\n[phases]")
    assert "phases: there must be one at least" in message_of(empty)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """No such name, no such file, no TOML and no text are told apart."""
    assert message_of("no-such") == "There is no scenario called 'no-such'."
    assert "There is no scenario file" in message_of(str(tmp_path / "none.toml"))
    assert "is not valid TOML: " in message_of(written(tmp_path, "connections = "))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "is not valid TOML: " in message_of(str(binary))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("connections", "The override 'connections' is not key=value."),
        ("=3", "The override '=3' is not key=value."),
        ("nonsense=1", "nonsense: no such key (given: 1)"),
        ("phases.no.duration=3s", "there is no phase called 'no'"),
        ("phases.load.duration=never", "phases.load.duration: 'never' is not a duration"),
        ("connections.x=1", "connections is a value, not a table"),
        ("connections=-1", "connections: should be greater than or equal to 0 (given: -1)"),
    ],
)
def test_a_mistake_in_an_override_is_told(tmp_path: Path, override: str, told: str) -> None:
    """An override that cannot be meant is refused with its key."""
    assert told in message_of(written(tmp_path, GOOD), override)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("20s", 20), ("1m30s", 90), ("1.5h", 5400), ("250ms", 0.25), (7, 7), ("7.5", 7.5), ("0", 0)],
)
def test_durations_are_read_as_people_write_them(given: object, seconds: float) -> None:
    """Units may be mixed, and a plain number is seconds."""
    assert parse_duration_s(given) == seconds


@pytest.mark.parametrize(
    "given", ["", "s", "10 apples", "-1s", -1, None, True, "nan", float("inf")]
)
def test_what_is_no_duration_is_refused(given: object) -> None:
    """Neither words, nor less than nothing, nor for ever."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(given)


def test_durations_are_shown_to_the_second() -> None:
    """Only units that count for something are shown."""
    shown = [format_duration(seconds) for seconds in (0, 45.4, 60, 75, 3600, 5100, 3661)]
    assert shown == ["0s", "45s", "1m", "1m 15s", "1h", "1h 25m", "1h 1m 1s"]


def test_an_objective_holds_all_its_parts() -> None:
    """Phase, metric, operator, value in the metric's unit, window and stop are read."""
    read = parse_objective("sustained: acknowledgement_ms.p99 <= 0.25s for 30s stop")
    assert (read.phase, read.metric, read.operator) == ("sustained", "acknowledgement_ms.p99", "<=")
    assert (read.value, read.window_s, read.stop) == (250, 30, True)
    assert parse_objective("edits.error_rate < 5%").value == 0.05
    assert parse_objective("connections.health_score >= 95%").value == 95
    assert parse_objective("relay.memory_growth_mb < 100mb").value == 100


@pytest.mark.parametrize(
    ("text", "got", "met"),
    [
        ("edits.failed < 5", 4, True),
        ("edits.failed < 5", 5, False),
        ("edits.failed <= 5", 5, True),
        ("edits.failed > 5", 5, False),
        ("edits.failed >= 5", 5, True),
        ("edits.failed == 5", 5, True),
        ("edits.failed != 5", 5, False),
    ],
)
def test_an_objective_judges_by_its_operator(text: str, got: float, *, met: bool) -> None:
    """The limit itself belongs to <= and >= and not to < and >."""
    assert parse_objective(text).is_met_by(got) is met


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("", 1),
        ("delivery_ms.p96 < 1s", 1),
        ("sustained: nothing < 1", 12),
        ("edits.failed = 0", 14),
        ("edits.failed < ", 16),
        ("edits.failed < many", 16),
        ("edits.failed < 1s", 16),
        ("delivery_ms.p95 < 5%", 19),
        ("edits.failed < 1 for ever", 22),
        ("edits.failed < 1 for 0s", 22),
        ("edits.failed < 1 please", 18),
    ],
)
def test_a_mark_stands_under_what_cannot_be_read(text: str, character: int) -> None:
    """The message names the character, and shows the text with a mark below it."""
    with pytest.raises(ScenarioError) as caught:
        parse_objective(text)
    first, shown, mark = caught.value.message.splitlines()
    assert first.startswith(f"Objective cannot be read at character {character}: ")
    assert shown == f"  {text}"
    assert mark == f"  {' ' * (character - 1)}^"


def test_a_mistyped_metric_gets_a_proposal() -> None:
    """The nearest metric is named."""
    with pytest.raises(ScenarioError, match=r"did you mean delivery_ms\.p95\?"):
        parse_objective("delivery_ms.95 < 1s")


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_can_be_an_objective(metric: str) -> None:
    """What the list of metrics holds can be written down and read back."""
    assert parse_objective(f"{metric} < 1").metric == metric
