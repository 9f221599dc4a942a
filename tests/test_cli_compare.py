"""`relay-load compare`: two runs from a bucket, a verdict and an exit code."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from flows import cli_compare
from flows.cli_compare import as_dict, share_of
from reports.compare import ComparedRun, NotComparableError, compare_runs, compared_run
from reports.compare_page import render_comparison
from run_store.errors import NoSuchRunError, UsageError
from run_store.store import Store, StoreAddress
from tests.command_line import Ended, relay_load, store_arguments, store_environment
from tests.reports.synthetic import Columns, RunWriter, SyntheticPhase, healthy_run
from tests.store_server import StoreServer

PHASES = (
    SyntheticPhase("warmup", "warmup", 5, 4, 1),
    SyntheticPhase("sustained", "sustained", 60, 6, 5),
    SyntheticPhase("cooldown", "cooldown", 5, 6, 0),
)


def a_run(run_id: str, *, seed: int, slower: float = 1.0) -> RunWriter:
    """Return a healthy run whose deliveries take `slower` times as long."""
    run = healthy_run(run_id, phases=PHASES, seed=seed)

    def slow_down(columns: Columns) -> None:
        took = columns["seen_us"] - columns["sent_us"]
        columns["seen_us"] = columns["sent_us"] + np.round(took * slower).astype(np.int64)

    run.change("deliveries", "sustained", slow_down)
    return run


def going_on(run_id: str) -> RunWriter:
    run = a_run(run_id, seed=4)
    run.record_changes = {"ended_us": None, "state": "running"}
    return run


def without_deliveries(run_id: str) -> RunWriter:
    run = a_run(run_id, seed=5)
    run.samples = {key: rows for key, rows in run.samples.items() if key[0] != "deliveries"}
    return run


@pytest.fixture(scope="module")
def address(store_server: StoreServer) -> StoreAddress:
    """Give a store with a baseline, one like it, and a slower one of another isolation."""
    address = store_server.address.model_copy(update={"prefix": "comparisons/"})
    store = Store(address)
    a_run("local-before", seed=1).write(store)
    a_run("local-same", seed=2).write(store)
    slow = a_run("local-slow", seed=3, slower=1.5)
    slow.scenario["isolation"] = "context"
    slow.write(store)
    return address


def compare(address: StoreAddress, folder: Path, *arguments: str) -> Ended:
    return relay_load(
        "compare",
        *arguments,
        *store_arguments(address),
        cwd=folder,
        variables=store_environment(address),
    )


def test_a_run_that_is_no_slower_ends_with_0(address: StoreAddress, tmp_path: Path) -> None:
    """Two runs of one kind differ by chance; figures and verdict are shown."""
    ended = compare(address, tmp_path, "before", "same")
    assert ended.code == 0, ended.err
    assert "No regression" in ended.out
    assert "relay memory growth" in ended.out


def test_a_slower_run_ends_with_3(address: StoreAddress, tmp_path: Path) -> None:
    """Deliveries that take half as long again are a regression; acknowledgements are as before.

    The slower run was told another isolation too: --force compares the two all the same.
    """
    page = tmp_path / "pages" / "compared.html"
    ended = compare(address, tmp_path, "before", "slow", "--force", "--json", "--html", str(page))
    assert ended.code == 3, ended.err
    told = json.loads(ended.out)
    assert told["verdict"] == "regression"
    assert told["headline"].startswith("Regression: delivery p50, delivery p95 slower.")
    assert told["differences"] == ["isolation: shared and context"]
    by_metric = {row["metric"]: row for row in told["latencies"]}
    p50 = by_metric["delivery_ms.p50"]
    assert p50["change"] == "slower"
    assert p50["interval_95"][0] > 1
    assert 1.3 < p50["ratio"] < 1.6
    assert p50["cliffs_delta"] > 0.5
    assert by_metric["acknowledgement_ms.p50"]["change"] != "slower"
    assert "regression" in page.read_text(encoding="utf-8")


def test_runs_that_differ_are_refused_with_1(address: StoreAddress, tmp_path: Path) -> None:
    """What the two were told differently is named."""
    refused = compare(address, tmp_path, "before", "slow")
    assert refused.code == 1
    assert "isolation: shared and context" in refused.told


def test_a_command_that_names_one_run_ends_with_2(address: StoreAddress, tmp_path: Path) -> None:
    """Without a second run there is nothing to compare."""
    ended = compare(address, tmp_path, "before")
    assert ended.code == 2
    assert "RUN_B" in ended.told


def test_an_unknown_run_is_told(
    address: StoreAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is not in the store ends the command with 1."""
    for name, value in store_environment(address).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NoSuchRunError, match="There is no run nowhere") as raised:
        cli_compare.compare("before", "nowhere", store=address.url, results=tmp_path)
    assert raised.value.exit_code == 1


@pytest.fixture(scope="module")
def before() -> ComparedRun:
    return compared_run(a_run("local-before", seed=1).database())


def test_a_run_that_goes_on_or_lacks_samples_is_refused(before: ComparedRun) -> None:
    """A run that still goes on and one that is invalid are named with the reason."""
    empty = a_run("local-empty", seed=2)
    empty.samples = {}
    for run, reason in (
        (going_on("local-going"), "local-going is still going on"),
        (empty, "local-empty is invalid: "),
    ):
        with pytest.raises(NotComparableError, match=reason):
            compare_runs(before, compared_run(run.database()))


def test_a_run_that_shows_no_deliveries_is_no_pass(before: ComparedRun) -> None:
    """A latency that only one of the two runs has leaves the verdict open."""
    mute = compared_run(without_deliveries("local-mute").database())
    comparison = compare_runs(before, mute, force=True)
    assert comparison.verdict == "undecided"
    assert comparison.headline.startswith("Undecided: delivery p50, delivery p95 not judged.")
    json.dumps(as_dict(comparison), allow_nan=False)
    assert b"not judged" in render_comparison(comparison)


def test_differences_are_those_of_load(before: ComparedRun) -> None:
    """Connections, fleet and phases make runs unlike; objectives and budgets do not."""
    wanting = a_run("local-wanting", seed=2)
    wanting.scenario |= {"objectives": [], "max_usd": 7, "description": "another"}
    assert compare_runs(before, compared_run(wanting.database())).differences == ()
    unlike = a_run("local-unlike", seed=2)
    unlike.scenario |= {"name": "other", "connections": 9}
    unlike.scenario["phases"][1]["edits_per_minute"] = 77.0
    unlike.scenario["fleet"]["workers"] = 5
    unlike.record_changes = {"fleet": "ssh"}
    found = compare_runs(before, compared_run(unlike.database()), force=True).differences
    assert found[:5] == (
        "name: synthetic and other",
        "connections: 6 and 9",
        "fleet: local and ssh",
        "fleet.workers: 2 and 5",
        "phases.sustained.edits_per_minute: 300 and 77",
    )


def test_the_page_needs_nothing_else(before: ComparedRun) -> None:
    """The page has tables and a chart with a line for each run, no script and no address."""
    other = compared_run(a_run("local-other", seed=2, slower=2).database())
    page = render_comparison(compare_runs(before, other)).decode()
    tags: list[str] = []
    paths: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            paths.extend(value or "" for name, value in attrs if name == "d")
            assert not {"src", "href"} & {name for name, _ in attrs}

    Reader().feed(page)
    assert tags.count("table") == 3
    assert "script" not in tags
    assert len(paths) == 2
    assert all(path.count("L") > 40 for path in paths)
    assert paths[0] != paths[1]


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), (" 2.5 %", 0.025), ("0%", 0.0)])
def test_a_percentage(text: str, share: float) -> None:
    """A percentage is a share of 1."""
    assert share_of(text) == share


@pytest.mark.parametrize("text", ["10", "-5%", "ten%", "", "nan%"])
def test_what_is_no_percentage(text: str) -> None:
    """A bare number could be either, and is refused."""
    with pytest.raises(UsageError):
        share_of(text)
