from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from run_store.store import StoreAddress
from scenarios.loading import load_scenario
from tasks.local_services import RelayAddress, local_relay
from tasks.run_context import RunContext
from tests.store_server import StoreServer

# No test may reach out, and a test's server is nobody else's business.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ.pop("RELAY_URL", None)
# The emulator of EC2 makes a thousand images for each account otherwise, and takes a second.
os.environ["MOTO_AMIS_PATH"] = str(Path(__file__).with_name("fleets") / "images.json")
# Each call of the emulator's is said otherwise, thousands of times.
logging.getLogger("werkzeug").setLevel(logging.WARNING)
# A shell has its background jobs ignore Ctrl-C, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# What takes longest comes first, so that all processes of the tests end at about the same time.
FIRST = ("flow", "hosts", "test_lost_workers.py", "test_conductor.py", "test_cuts.py")
NEVER_LATE = (
    "test_agent_spool.py",
    "test_spool_compaction.py",
    "test_spool_disk.py",
    "test_journey_module.py",
    "test_agent_document_ids.py",
    "test_agent_resources.py",
    "test_tabs.py",
)
"""Of the agents' tests those that judge no time."""


@pytest.hookimpl(tryfirst=True)  # before xdist writes the groups behind the tests' names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set apart what must run alone; keep those together that share what is slow to make.

    The agents' scenes play with time: on two cores that others use as well they come late.
    """

    def group(item: pytest.Item) -> str:
        fixtures = getattr(item, "fixturenames", ())
        if "prefect_api" in fixtures:
            return "flow"
        return "hosts" if "worker_environment" in fixtures else item.path.name

    def turn(item: pytest.Item) -> int:
        name = group(item)
        return FIRST.index(name) if name in FIRST else len(FIRST)

    for item in items:
        if item.path.parent.name == "worker_agent":
            if item.path.name not in NEVER_LATE:
                item.add_marker(pytest.mark.alone)
        elif item.get_closest_marker("alone"):
            raise pytest.UsageError(f"scripts/test looks for {item.nodeid} in worker_agent alone")
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=turn)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail where groups are not heeded: a test's server would be started for each test."""
    in_groups = session.config.getoption("dist", "no") == "loadgroup"
    if in_groups and "PYTEST_XDIST_WORKER" in os.environ:
        alone = [item.nodeid for item in session.items if "@" not in item.nodeid]
        assert not alone, f"pytest-xdist does not know the group of {alone[0]}"


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """Give one S3 server that no test takes away."""
    with StoreServer(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store_address(store_server: StoreServer, tmp_path: Path) -> StoreAddress:
    """Give a store of the test's own: a prefix that nobody else uses."""
    return store_server.address.model_copy(update={"prefix": f"{tmp_path.name}/"})


@pytest.fixture
def context(store_address: StoreAddress, tmp_path: Path) -> RunContext:
    """Give the first attempt of a run with three short phases and two workers."""
    overrides = {
        "connections": 8,
        "phases.warmup.duration": "1s",
        "phases.warmup.connections": 2,
        "phases.ramp-up.duration": "1s",
        "phases.sustained.duration": "2s",
        "phases.cooldown.duration": "1s",
    }
    return RunContext(
        run_id="local-test",
        attempt=1,
        scenario=load_scenario("local", overrides),
        relay_url="ws://127.0.0.1:9/",
        has_metrics=True,
        address=store_address,
        folder=tmp_path / "local-test",
        fleet="local",
    )


@pytest.fixture(scope="session")
def quiet_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayAddress]:
    """Give one local relay without faults."""
    with local_relay(log=tmp_path_factory.mktemp("relay") / "relay.log") as relay:
        yield relay


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Give the API of a Prefect server with a database of its own, for this process and children.

    Takes 15 s to start: only tests of the flow ask for it.
    """
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415 - slow to import
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415 - likewise

    with prefect_test_harness(server_startup_timeout=240):
        url = PREFECT_API_URL.value()
        assert url is not None
        os.environ["PREFECT_API_URL"] = url
        yield url
        del os.environ["PREFECT_API_URL"]
