from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.loading import load_scenario
from tasks.fleets import deployment, ec2
from tasks.fleets.remote import Access, Host, connect
from tasks.fleets.wheelhouse import make_payload
from tests.fleets.emulated_ec2 import Account, emulated_account
from tests.fleets.ssh_hosts import make_key, ssh_host


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
    folder = tmp_path_factory.mktemp("first-host")
    key = folder / "user_key"
    public = make_key(key)
    payload = make_payload(folder / "wheel", load_scenario("local"))
    with ssh_host(folder / "host", "127.0.1.40", user_key=public) as host:
        access = Access(key_file=key, host_keys={host.address: host.fingerprint})
        async with await connect(Host.from_text(host.text), access) as remote:
            place = await deployment.install(
                remote, payload, run_id="first", attempt=1, worker="worker-1"
            )
            await deployment.remove(remote, "first", keep_installed=True)
        return host.prefix / "env" / place.environment
