from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from run_store.agent_config import AgentConfig
from run_store.errors import FleetError
from run_store.store import Store
from tasks.fleets import deployment
from tasks.fleets.ssh import SshFleet
from tasks.local_services import local_store
from tasks.run_context import RunContext
from tests.fleets.ssh_hosts import SshHost, needs_sshd, ssh_host
from tests.fleets.test_ssh import NOWHERE, context_of, public
from tests.store_server import StoreServer
from worker_agent.shipping import spool_of

pytestmark = needs_sshd
PHASE = "02-sustained"


def config_of(folder: Path) -> AgentConfig:
    """The config of an agent whose store does not answer."""
    return AgentConfig(
        run_id="ssh-run",
        attempt=1,
        worker="worker-1",
        store=NOWHERE,
        relay_url="ws://127.0.0.1:9/",
        scenario={},
        spool=folder / "spool",
    )


def leave_two_rows(host: SshHost) -> None:
    """Leave on a host what a dead agent could not ship: a part, and a journal without a number."""
    folder = host.prefix / "runs" / "ssh-run" / "attempt-1" / "worker-1"
    folder.mkdir(parents=True)
    config = config_of(folder)
    config.to_file(folder / "agent.json")
    row: dict[str, list[Any]] = {
        "at_us": [time.time_ns() // 1000],
        "type": ["x"],
        "message": ["kept"],
    }
    with contextlib.closing(spool_of(config)) as spool:
        spool.append(PHASE, "errors", row)
        spool.freeze(PHASE)
        spool.append(PHASE, "errors", row)


def rows_of(store: Store, context: RunContext) -> int:
    """Return how many of these rows the bucket holds."""
    keys = store.keys(context.layout.samples("errors"))
    return sum(pq.read_table(io.BytesIO(store.get(key) or b"")).num_rows for key in keys)


async def test_unshipped_samples_are_brought_home(tmp_path: Path, user_key: Path) -> None:
    """What a dead agent could not ship is in the bucket after the release, journal and all."""
    with (
        ssh_host(tmp_path / "a", "127.0.1.6", user_key=public(user_key)) as a,
        local_store(tmp_path / "results") as address,
    ):
        context = context_of(tmp_path, a.text, key=user_key, pinned=(a.pinned,), address=address)
        leave_two_rows(a)
        assert await SshFleet().release(context) == []
        assert rows_of(Store(address), context) == 2
        assert not a.prefix.exists()
        assert list(context.folder.rglob("*.tar")) == []


async def test_a_spool_that_is_fetched_is_not_fetched_again(
    tmp_path: Path, user_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits here while the store is away, and is shipped once, whatever became of its host."""
    with (
        ssh_host(tmp_path / "a", "127.0.1.9", user_key=public(user_key)) as a,
        StoreServer(tmp_path / "s3") as server,
    ):
        address = server.address
        context = context_of(tmp_path, a.text, key=user_key, pinned=(a.pinned,), address=address)
        leave_two_rows(a)
        really_remove = deployment.remove

        async def fails(*_: object, **__: object) -> None:
            raise FleetError("the connection broke")

        server.stop()
        monkeypatch.setattr(deployment, "remove", fails)
        broken, away = await SshFleet().release(context)
        assert "the connection broke" in broken
        assert away.startswith("samples of worker-1, in ")
        server.start()
        assert await SshFleet().release(context) == ["worker-1 (the connection broke)"]
        monkeypatch.setattr(deployment, "remove", really_remove)
        assert await SshFleet().release(context) == []
        assert rows_of(server.store(), context) == 2


async def test_unreachable_host_is_named(tmp_path: Path, user_key: Path) -> None:
    """A host that holds something of ours and does not answer is named by the release."""
    context = context_of(tmp_path, "root@127.0.1.7:9", key=user_key)
    mark = context.folder / "attempt-1" / "worker-1" / "host"
    mark.parent.mkdir(parents=True)
    mark.write_text("root@127.0.1.7:9", encoding="utf-8")
    (left,) = await SshFleet().release(context)
    assert "127.0.1.7" in left
    assert "cannot be reached" in left
