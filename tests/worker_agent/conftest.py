from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from run_store.layout import RunLayout
from tests.store_server import StoreServer
from tests.worker_agent.scenes import SCENES
from worker_agent.spool import Spool


@pytest.fixture(scope="session")
def server(store_server: StoreServer) -> StoreServer:
    """Give the S3 server that no test takes away."""
    return store_server


@pytest.fixture
def spool(server: StoreServer, tmp_path: Path) -> Iterator[Spool]:
    """Give a spool of the worker `w` in a run of the test's own."""
    spool = Spool(
        tmp_path / "spool",
        store=server.store(),
        layout=RunLayout(tmp_path.name),
        attempt=1,
        worker="w",
    )
    yield spool
    spool.close()


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
