"""The documents agree with what there is: commands, options, exit codes, fields, figures."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main
from packaging.requirements import Requirement
from pydantic import BaseModel

from flows.cli import app
from flows.cli_estimate import SEED_USD, arithmetic
from run_store.errors import RelayLoadError
from scenarios.durations import format_duration
from scenarios.loading import load_scenario, scenario_names
from scenarios.model import FleetSpec, NetworkProfile, Phase, Scenario
from scenarios.objectives import METRICS
from tasks.cost import estimate

ROOT = Path(__file__).resolve().parent.parent
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
SCENARIOS = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group


def section(text: str, title: str) -> str:
    """Return what stands under a heading, up to the next one of its rank."""
    rank = "#" * (len(title) - len(title.lstrip("#")))
    return re.split(rf"^{rank} ", text.split(f"{title}\n", maxsplit=1)[1], flags=re.MULTILINE)[0]


def first_column(table: str) -> list[str]:
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return [row for row in rows[1:] if not row.startswith("---")]


def test_the_commands_are_those_that_exist() -> None:
    """The table of commands lists each of them once, in the order of the help."""
    table = COMMAND_LINE.split("## Exit codes", maxsplit=1)[0]
    assert [cell.strip("`").split()[1] for cell in first_column(table)] == list(COMMANDS)


def test_the_exit_codes_are_those_that_exist() -> None:
    """The table of exit codes holds 0 and the codes of all our errors, and no other."""

    def codes(kind: type[RelayLoadError]) -> Iterator[int]:
        yield kind.exit_code
        for below in kind.__subclasses__():
            yield from codes(below)

    told = [int(cell) for cell in first_column(section(COMMAND_LINE, "## Exit codes"))]
    assert told == sorted({0, *codes(RelayLoadError)})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_told(command: str) -> None:
    """Each long option of a command stands in the document."""
    options = [name for option in COMMANDS[command].params for name in option.opts]
    for name in options:
        if name.startswith("--") and name != "--help":
            assert re.search(rf"[`\[ ]{name}\b", COMMAND_LINE), name


def test_every_variable_is_told() -> None:
    """Each environment variable of ours that the code reads stands in the document's table."""
    told = " ".join(first_column(section(COMMAND_LINE, "## Environment")))
    for package in ("flows", "tasks", "worker_agent", "scenarios", "run_store", "reports"):
        for file in (ROOT / package).rglob("*.py"):
            for name in re.findall(r'"(RELAY_(?:URL|LOAD_[A-Z_]+))"', file.read_text("utf-8")):
                assert f"`{name}`" in told, f"{name}, in {file.relative_to(ROOT)}"


@pytest.mark.parametrize("model", [Scenario, Phase, FleetSpec, NetworkProfile])
def test_every_field_of_a_scenario_is_told(model: type[BaseModel]) -> None:
    """Each field that a scenario's file may have stands in the document by its name there."""
    for name, field in model.model_fields.items():
        written = field.alias or name
        if model is Phase and name == "name":
            continue  # it is the table's own name
        assert f"`{written}`" in SCENARIOS, f"{model.__name__}.{written}"


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_is_told(metric: str) -> None:
    """Each metric that an objective may name stands in the document, whole or by its parts."""
    head, _, statistic = metric.rpartition(".")
    assert f"`{metric}`" in SCENARIOS or (
        f"`{head}`" in SCENARIOS and f"`.{statistic}`" in SCENARIOS
    )


def test_the_table_of_scenarios_is_true() -> None:
    """Names, phases, edits and estimates of the document's table are the files'."""
    rows = [line.split("|")[1:-1] for line in SCENARIOS.splitlines() if line.startswith("| `")]
    table = {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in rows}
    for name in scenario_names():
        scenario = load_scenario(name)
        connections, workers, phases, edits, cost = table[name]
        assert connections.startswith(str(scenario.connections))
        assert workers.startswith(str(scenario.fleet.workers))
        units = [(phase.duration_s, "s") for phase in scenario.phases]
        if scenario.fleet.kind == "ec2":
            assert workers.endswith(scenario.fleet.instance_types[0])
            units = [(phase.duration_s / 60, " min") for phase in scenario.phases]
            assert phases == ", ".join(f"{length:g}" for length, _ in units) + " min"
        else:
            assert phases == ", ".join(f"{length:g} s" for length, _ in units)
        assert edits == ", ".join(f"{phase.edits_per_minute:g}" for phase in scenario.phases)
        costs = estimate(scenario)
        assert costs is not None
        assert cost == (f"${costs.usd:.2f}" if costs.usd else "nothing")


def test_the_arithmetic_of_the_estimates_is_what_the_command_writes() -> None:
    """The document holds the arithmetic that the code does, and no figure is twice another's."""
    assert arithmetic() in SCENARIOS, "run python -m flows.cli_estimate docs/scenarios.md"
    for name, seed_usd in SEED_USD.items():
        cost = estimate(load_scenario(name))
        assert cost is not None
        assert seed_usd / 2 <= cost.usd <= seed_usd * 2


def test_the_example_scenario_is_one(tmp_path: Path) -> None:
    """The scenario that the document shows can be loaded and does what its text says."""
    example = SCENARIOS.split("```toml\n", maxsplit=1)[1].split("```", maxsplit=1)[0]
    file = tmp_path / "sixty.toml"
    file.write_text(example, encoding="utf-8")
    scenario = load_scenario(str(file))
    assert (scenario.connections, format_duration(scenario.duration_s)) == (60, "2m 30s")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Each link to a file of the project names one that is there."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_prefects_server_imports_with_the_installed_fastapi() -> None:
    """Fastapi is within its bounds, and Prefect's API, which later ones break, can be imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {Requirement(line).name: Requirement(line) for line in project["dependencies"]}
    assert version("fastapi") in wanted["fastapi"].specifier
    from prefect.server.api.server import create_app  # noqa: PLC0415 - this import is the test

    from flows.relay_load import relay_load  # noqa: PLC0415 - likewise

    assert callable(create_app)
    assert relay_load.name == "relay-load"
