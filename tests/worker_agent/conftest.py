from collections.abc import Iterator
from pathlib import Path

import pytest

from run_store.layout import RunLayout
from tests.store_server import StoreServer
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
