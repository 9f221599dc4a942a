from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.fleets import ec2
from tests.fleets.emulated_ec2 import Account, emulated_account
from tests.fleets.ssh_hosts import installed_worker, make_key


@pytest.fixture
def user_key(tmp_path: Path) -> Path:
    """A throw-away key pair of the user's; the public half is beside it."""
    path = tmp_path / "user_key"
    make_key(path)
    return path


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An empty emulated account, which is looked at more often than a real one."""
    monkeypatch.setattr(ec2, "LOOK_EVERY_S", 0.1)
    with emulated_account(monkeypatch) as empty:
        # The emulator has no price list, and saying so takes it seconds.
        empty.answer("GetProducts", {"PriceList": []}, times=1000)
        yield empty


@pytest.fixture(scope="session")
async def worker_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a first deployment installs on a host: made once, over SSH, as on any other host."""
    return await installed_worker(tmp_path_factory.mktemp("first-host"), "127.0.1.40")
