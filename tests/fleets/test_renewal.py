from __future__ import annotations

import asyncio
import secrets
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from run_store.credentials import StoreCredentials
from run_store.messages import Lease, Status
from run_store.store import StoreAddress
from tasks.fleets import ssh
from tasks.fleets.deployment import CREDENTIALS
from tasks.fleets.ssh import SshFleet
from tasks.fleets.worker_access import Supply, WorkerAccess
from tests.fleets.ssh_hosts import needs_sshd, ssh_host
from tests.fleets.test_ssh import context_of, public
from tests.store_server import StoreServer
from tests.waiting import wait_for

pytestmark = [needs_sshd, pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(180)]


def credentials_of(address: StoreAddress) -> StoreCredentials:
    assert address.access_key is not None
    assert address.secret_key is not None
    return StoreCredentials(access_key=address.access_key, secret_key=address.secret_key)


async def test_a_running_agent_gets_new_credentials_over_ssh(
    tmp_path: Path, user_key: Path, worker_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first keys end the next are on the host, and the agent goes on with them."""
    monkeypatch.setattr(ssh, "LOOK_EVERY_S", 0.2)
    clock = [0.0]
    with (
        ssh_host(
            tmp_path / "a", "127.0.1.8", user_key=public(user_key), prepared=worker_environment
        ) as host,
        StoreServer(tmp_path / "s3") as server,
    ):
        first = server.address
        second = first.model_copy(
            update={
                "access_key": SecretStr(secrets.token_hex(8)),
                "secret_key": SecretStr(secrets.token_hex(16)),
            }
        )
        supplies = iter(
            [
                Supply(credentials_of(first), renew_at=1000.0),
                Supply(credentials_of(second), renew_at=2000.0),
            ]
        )
        logins = WorkerAccess(lambda: next(supplies), now=lambda: clock[0])
        monkeypatch.setattr(ssh, "access_of", lambda _: logins)
        context = context_of(
            tmp_path, host.text, key=user_key, pinned=(host.pinned,), address=first
        )
        layout = context.layout
        server.store().put_message(
            layout.lease(1), Lease(counter=1, every_s=2, expires_after_s=600)
        )
        fleet = SshFleet()
        [worker] = await fleet.acquire(context)
        try:
            await fleet.deploy(context, worker)

            def beat() -> int:
                status = server.store().get_message(layout.status(1, worker.name), Status)
                return status.beat if status and status.state == "ready" else 0

            await asyncio.to_thread(wait_for, beat, within_s=60)
            given = host.prefix / "runs" / "ssh-run" / "attempt-1" / worker.name / CREDENTIALS
            assert StoreCredentials.from_file(given) == credentials_of(first)
            # Nobody asks whether it is alive, as of a substitute that stands ready.
            clock[0] = 1001.0
            async with asyncio.timeout(30):
                while StoreCredentials.from_file(given) != credentials_of(second):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.1)
            assert await fleet.is_alive(context, worker)
            assert stat.S_IMODE(given.stat().st_mode) == 0o600
            # From here on the store refuses the first keys.
            server.stop()
            server.address = second
            server.start()
            before = beat()
            await asyncio.to_thread(wait_for, lambda: beat() > before + 1, within_s=30)
        finally:
            assert await fleet.release(context) == []
        assert not host.prefix.exists()
