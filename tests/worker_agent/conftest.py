import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from run_store.agent_config import AgentConfig
from tests.relay_process import ROOT
from tests.store_server import StoreServer
from tests.worker_agent.ending_scenes import Abandoned, Hasty, Restart
from tests.worker_agent.outage_scenes import Faults, Outages
from tests.worker_agent.plan_scenes import Grown, Late, Plain
from tests.worker_agent.samples import StartWriter, spool_at
from tests.worker_agent.scenes import SCENES
from worker_agent.spool import Spool


@pytest.fixture(scope="session")
def server(store_server: StoreServer) -> StoreServer:
    """Give the S3 server that no test takes away."""
    return store_server


@pytest.fixture
def spool(server: StoreServer, tmp_path: Path) -> Iterator[Spool]:
    """Give a spool of the worker `w` in a run of the test's own."""
    spool = spool_at(tmp_path / "spool", server.store(), tmp_path.name)
    yield spool
    spool.close()


WRITER = ROOT / "tests/worker_agent/spool_writer.py"


@pytest.fixture
def config(server: StoreServer, tmp_path: Path) -> AgentConfig:
    """Give the config of a worker in a run of the test's own."""
    return AgentConfig(
        run_id=tmp_path.name,
        attempt=1,
        worker="w",
        store=server.address,
        relay_url="ws://127.0.0.1:1/",
        scenario={},
        spool=tmp_path / "spool",
    )


@pytest.fixture
def start_writer(config: AgentConfig, tmp_path: Path) -> Iterator[StartWriter]:
    """Give a function that starts a process which writes into the spool of `config`."""
    config.to_file(tmp_path / "agent.json")
    started: list[subprocess.Popen[str]] = []

    def start(mode: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(WRITER), str(tmp_path / "agent.json"), mode],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def played(
    request: pytest.FixtureRequest,
    server: StoreServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, "Future[object]"]]:
    """Play side by side the scenes of all tests that were chosen, each once.

    Scenes mostly wait, and more at once would make each other late on two cores.
    """
    wanted = {
        name
        for item in request.session.items
        if isinstance(item, pytest.Function)
        for name in item.fixturenames
        if name in SCENES
    }
    folder = tmp_path_factory.mktemp("scenes")
    with ThreadPoolExecutor(6) as stages:
        yield {
            name: stages.submit(scene, folder / name.replace("_", "-"), server)
            for name, scene in SCENES.items()
            if name in wanted
        }


SCENE_WITHIN_S = 280.0
Played = dict[str, "Future[object]"]


def _result(played: Played, scene: str) -> Any:
    return played[scene].result(SCENE_WITHIN_S)


@pytest.fixture(scope="session")
def plain(played: Played) -> Plain:
    """Give a run of two agents in which nothing goes wrong."""
    scene = _result(played, "plain")
    assert isinstance(scene, Plain)
    return scene


@pytest.fixture(scope="session")
def outages(played: Played) -> Outages:
    """Give a run whose S3 and relay were away for a while."""
    scene = _result(played, "outages")
    assert isinstance(scene, Outages)
    return scene


@pytest.fixture(scope="session")
def restart(played: Played) -> Restart:
    """Give a run whose agent was killed, replaced, and told to end."""
    scene = _result(played, "restart")
    assert isinstance(scene, Restart)
    return scene


@pytest.fixture(scope="session")
def handshakes(played: Played) -> Faults:
    """Give a run whose relay talked nonsense to newcomers for a while."""
    scene = _result(played, "handshakes")
    assert isinstance(scene, Faults)
    return scene


@pytest.fixture(scope="session")
def no_documents(played: Played) -> Faults:
    """Give a run whose relay had no documents."""
    scene = _result(played, "no_documents")
    assert isinstance(scene, Faults)
    return scene


@pytest.fixture(scope="session")
def abandoned(played: Played) -> Abandoned:
    """Give a run whose disk was full and whose orchestrator went away."""
    scene = _result(played, "abandoned")
    if scene is None:
        pytest.skip("a file system can be mounted by root only")
    assert isinstance(scene, Abandoned)
    return scene


@pytest.fixture(scope="session")
def hasty(played: Played) -> Hasty:
    """Give a run whose agent was told twice to end while S3 was away."""
    scene = _result(played, "hasty")
    assert isinstance(scene, Hasty)
    return scene


@pytest.fixture(scope="session")
def late(played: Played) -> Late:
    """Give a run whose agent heard of its orders late."""
    scene = _result(played, "late")
    assert isinstance(scene, Late)
    return scene


@pytest.fixture(scope="session")
def grown(played: Played) -> Grown:
    """Give a run whose pages were too large for the next order."""
    scene = _result(played, "grown")
    assert isinstance(scene, Grown)
    return scene
