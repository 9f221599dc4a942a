from collections.abc import Iterator

import pytest

from run_store.store import Store
from tests.store_server import StoreServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """Give one S3 server for all tests of the store."""
    with StoreServer(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(server: StoreServer, request: pytest.FixtureRequest) -> Store:
    """Give a store of the test's own: a prefix that nobody else uses."""
    prefix = f"{request.node.name.replace('[', '-').replace(']', '')}/"
    return Store(server.address.model_copy(update={"prefix": prefix}), timeout_s=5, tries=2)
