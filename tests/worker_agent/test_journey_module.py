import random
import subprocess
import sys
from pathlib import Path

import pytest

from run_store.agent_config import AgentConfig
from run_store.errors import ScenarioError
from run_store.layout import RunLayout
from run_store.messages import Status
from scenarios.loading import load_scenario
from scenarios.model import Scenario
from tests.store_server import StoreServer
from worker_agent.clock import RunClock
from worker_agent.journey import check_journey, journey_files, load_journey
from worker_agent.row_buffer import ERRORS_KEPT_PER_S, RowBuffer

ROOT = Path(__file__).parents[2]
JOURNEYS = Path(__file__).parent / "journeys"
GOOD = "async def edit(page, user):\n    pass\n"


def scenario(journey: str, **fields: object) -> Scenario:
    plain = {
        "name": "own",
        "journey": journey,
        "isolation": "context",
        "connections": 2,
        "phases": {"phase": {"kind": "sustained", "duration": 1}},
    }
    return Scenario.model_validate(plain | fields)


@pytest.mark.parametrize(
    ("journey", "said"),
    [
        ("edit", "is not module:function"),
        ("counter:", "is not module:function"),
        ("no such module:edit", "'no such module' is no module's name"),
        ("no_such_module_anywhere:edit", "there is no module no_such_module_anywhere"),
        ("no_such.module:edit", "there is no module no_such.module"),
        ("no/such/file.py:edit", "there is no file"),
        (f"{JOURNEYS}/faults.py:misses", f"{JOURNEYS}/faults.py has no function misses"),
        (f"{JOURNEYS}/needs_more.py:edit", f"({JOURNEYS}/needs_more.py, line 3): ModuleNotFound"),
        (f"{JOURNEYS}/wrong_shape.py:plain", "wrong_shape.py:plain is not an async function"),
        (f"{JOURNEYS}/wrong_shape.py:lonely", "cannot be called with 2 arguments"),
        (f"{JOURNEYS}/wrong_shape.py:not_callable", "not_callable is not an async function"),
    ],
)
def test_a_journey_that_cannot_be_run_is_told_by_file_and_name(journey: str, said: str) -> None:
    """What is wrong with a journey's module is said before a run, with the file and the name."""
    with pytest.raises(ScenarioError) as caught:
        check_journey(scenario(journey))
    assert said in caught.value.message
    assert caught.value.hint


def test_a_scenario_without_a_journey_needs_nothing() -> None:
    """Nothing is checked and nothing travels for a scenario that has no journey."""
    check_journey(load_scenario("local"))
    assert journey_files(load_scenario("local")) == []


def test_the_example_is_found_whole() -> None:
    """The example has every function but a teardown, and travels with the agent itself."""
    example = load_scenario(str(ROOT / "worker_agent" / "examples" / "counter.toml"))
    journey = load_journey(example.journey)
    assert None not in (journey.setup, journey.token, journey.observe, journey.state)
    assert journey.teardown is None
    assert journey_files(example) == []


def test_a_module_beside_the_scenario_comes_first(tmp_path: Path) -> None:
    """`mine:edit` means the file beside the scenario file, wherever the command is run."""
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "own.toml").write_text(
        'journey = "mine:edit"\nisolation = "context"\nconnections = 1\n'
        '[phases.only]\nkind = "sustained"\nduration = "1s"\n'
    )
    own = load_scenario(str(tmp_path / "own.toml"))
    assert own.journey == f"{tmp_path / 'mine.py'}:edit"
    check_journey(own)
    assert journey_files(own) == [tmp_path / "mine.py"]


def test_a_module_of_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path and a module's name both count from the folder that the command is run in."""
    (tmp_path / "here_i_am.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    for journey in ("here_i_am.py:edit", "here_i_am:edit"):
        check_journey(scenario(journey))
        assert journey_files(scenario(journey)) == [tmp_path / "here_i_am.py"]


def test_a_module_of_a_package_travels_with_all_of_it(tmp_path: Path) -> None:
    """A journey may import from its own package, so the whole package travels."""
    package = tmp_path / "own_site"
    (package / "users").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "users" / "__init__.py").write_text("")
    (package / "names.py").write_text("WHO = 'me'\n")
    (package / "users" / "clicking.py").write_text(f"from own_site.names import WHO\n{GOOD}")
    journey = f"{package / 'users' / 'clicking.py'}:edit"
    check_journey(scenario(journey))
    assert journey_files(scenario(journey)) == [package]
    assert journey_files(scenario("own_site.users.clicking:edit")) == [package]


@pytest.mark.parametrize(
    "fields", [{"isolation": "shared"}, {"network": {"latency_ms": 50}}, {"history": 10}]
)
def test_a_journey_takes_nothing_that_its_page_would_ignore(fields: dict[str, object]) -> None:
    """A scenario that asks for what only the load's own client does is refused."""
    with pytest.raises(ValueError, match="a journey"):
        scenario(f"{JOURNEYS}/faults.py:returns", **fields)


@pytest.mark.parametrize(
    ("journey", "code", "said"),
    [
        ("worker_agent.examples.counter:edit", 0, "edit, setup, observe, state, token"),
        (f"{JOURNEYS}/needs_more.py:edit", 2, "no_such_package_anywhere"),
    ],
)
def test_a_journey_can_be_checked_in_a_process_of_its_own(
    journey: str, code: int, said: str
) -> None:
    """`python -m worker_agent.journey check` says what is there, or what is wrong, and exits 2."""
    done = subprocess.run(
        [sys.executable, "-m", "worker_agent.journey", "check", journey],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == code
    assert said in (done.stderr if code else done.stdout)
    assert "Traceback" not in done.stderr


@pytest.mark.browser
def test_an_agent_whose_journey_cannot_be_run_says_so(server: StoreServer, tmp_path: Path) -> None:
    """The agent ends at once, and its last heartbeat names the file and the missing function."""
    config = AgentConfig(
        run_id=tmp_path.name,
        attempt=1,
        worker="w",
        store=server.address,
        relay_url="ws://127.0.0.1:9",
        scenario=scenario(f"{JOURNEYS}/faults.py:misses").model_dump(mode="json", by_alias=True),
        spool=tmp_path / "spool",
    )
    config.to_file(tmp_path / "w.json")
    done = subprocess.run(
        [sys.executable, "-m", "worker_agent", "--config", str(tmp_path / "w.json")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    status = server.store().get_message(RunLayout(tmp_path.name).status(1, "w"), Status)
    assert status is not None
    assert status.state == "failed"
    assert f"{JOURNEYS}/faults.py has no function misses" in status.message


class _Clock(RunClock):
    """A clock that goes when it is told to."""

    us = 1_000_000_000

    def now_us(self) -> int:
        return self.us


def test_deliveries_beyond_the_rate_are_a_weighted_sample() -> None:
    """Beyond the scenario's rate a share of deliveries is kept, with weights for the rest."""
    random.seed(7)
    clock = _Clock()
    rows = RowBuffer(clock, deliveries_per_s=100)
    weights = []
    for second in range(5):
        clock.us += 1_000_000
        weights.append([rows.delivery_weight() for _ in range(1000)])
        kept = [weight for weight in weights[second] if weight is not None]
        assert set(kept) == {1.0 if second == 0 else 10.0}
    later = [weight for second in weights[1:] for weight in second if weight is not None]
    assert sum(later) == pytest.approx(4000, rel=0.15)


def test_errors_of_a_kind_are_counted_beyond_a_hundred_a_second() -> None:
    """However many errors come in a second, their weights sum up to their number."""
    clock = _Clock()
    rows = RowBuffer(clock, deliveries_per_s=100)
    for _ in range(1000):
        rows.error("observe_error", "no", 1, 0)
    clock.us += 1_000_000
    columns = rows.drain()["errors"]
    assert len(columns["type"]) == ERRORS_KEPT_PER_S + 1
    assert sum(columns["weight"]) == 1000


def test_the_documented_example_is_the_shipped_one() -> None:
    """What docs/journeys.md shows as Python is in the example, word for word."""
    text = (ROOT / "docs" / "journeys.md").read_text(encoding="utf-8")
    shown = text.split("```python\n")[1].split("```")[0]
    assert shown in (ROOT / "worker_agent" / "examples" / "counter.py").read_text(encoding="utf-8")
