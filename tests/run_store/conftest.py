import pytest

from run_store.store import Store
from tests.store_server import StoreServer


@pytest.fixture(scope="session")
def server(store_server: StoreServer) -> StoreServer:
    """Give the S3 server that no test takes away."""
    return store_server


@pytest.fixture
def store(server: StoreServer, request: pytest.FixtureRequest) -> Store:
    """Give a store of the test's own: a prefix that nobody else uses."""
    prefix = f"{request.node.name.replace('[', '-').replace(']', '')}/"
    return Store(server.address.model_copy(update={"prefix": prefix}), timeout_s=5, tries=2)
