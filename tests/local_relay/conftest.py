"""A local relay for each module of tests, without faults at the beginning of each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.local_relay.clients import OFF
from tests.relay_process import RelayProcess, start_relay


@pytest.fixture(scope="module")
def running() -> Iterator[RelayProcess]:
    with start_relay() as relay:
        yield relay


@pytest.fixture
def relay(running: RelayProcess) -> Iterator[RelayProcess]:
    """Give the module's relay without faults, and with no connection left from an earlier test."""
    running.drop(share=1)
    running.admin("PUT", "/faults", OFF)
    yield running
    running.admin("PUT", "/faults", OFF)


@pytest.fixture
def many(relay: RelayProcess) -> Iterator[Callable[[int], list[Connection]]]:
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(connect(relay.url)) for _ in range(count)]
