from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tasks.local_services import RelayAddress
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.metadata_service import MetadataService
from tests.worker_agent.orchestration import Run
from worker_agent.notice import Metadata, next_notice, notice_of


def test_a_notice_is_read() -> None:
    """What will be done and when is taken from EC2's words."""
    notice = notice_of('{"action": "terminate", "time": "2030-01-01T10:00:00Z"}')
    assert (notice.action, notice.at_us) == ("terminate", 1893492000_000_000)
    assert "10:00:00 UTC (terminate)" in notice.reason


@pytest.mark.parametrize("said", ["", "soon", "[]", '{"action": "stop"}', '{"time": "soon"}'])
def test_an_unreadable_notice_is_one(said: str) -> None:
    """A notice that says no time that we know counts as one of two minutes."""
    left_s = notice_of(said).at_us / 1e6 - time.time()
    assert 110 < left_s < 121


def test_only_the_second_version_is_spoken() -> None:
    """Each question carries a token, and a token that has ended is replaced."""
    with MetadataService() as service:
        metadata = Metadata(service.url)
        assert metadata.notice() is None
        service.token = "another"
        with pytest.raises(OSError, match="401"):
            metadata.notice()
        service.announce()
        notice = metadata.notice()
        assert notice is not None
        assert notice.action == "terminate"
        assert [code for _, _, code in service.asked] == [200, 404, 401, 200, 200]


async def test_a_silent_service_is_asked_again() -> None:
    """A service that refuses for a while changes nothing: the notice comes when it is there."""
    with MetadataService() as service:
        service.fails = True
        waiting = asyncio.create_task(next_notice(service.url, every_s=0.01))
        await asyncio.to_thread(wait_for, lambda: len(service.asked) > 2)
        service.announce()
        service.fails = False
        assert (await asyncio.wait_for(waiting, 60)).action == "terminate"


@pytest.mark.browser
def test_an_agent_leaves_in_order(
    tmp_path: Path, server: StoreServer, quiet_relay: RelayAddress
) -> None:
    """On notice an agent says so with the deadline, closes its connections and ships its parts."""
    with MetadataService() as service, Run(tmp_path, server, quiet_relay.url) as run:
        run.lease()
        agent = run.start("worker-1", metadata_url=service.url, notice_poll_s=0.2, ship_every_s=60)
        run.until("worker-1", lambda status: status.state == "ready", within_s=120)
        run.order("load", 60, 4, begin=4, edits_per_s=4)
        run.until("worker-1", lambda status: status.counts.edits_completed > 0)
        service.announce(in_s=90)
        told = run.until("worker-1", lambda status: status.leaving is not None)
        assert told.leaving is not None
        assert "takes this spot machine back" in told.leaving.reason
        assert 30 < told.leaving.deadline_us / 1e6 - time.time() < 91
        wait_for(lambda: agent.poll() is not None, within_s=60, why=lambda: run.log("worker-1"))
        assert agent.returncode == 0
        last = run.status()
        assert last is not None
        assert (last.state, last.unshipped) == ("stopped", {})
        assert last.vitals.connections_open == 0 or last.state == "stopped"
    assert len(run.rows("edits")) >= 1
    assert [row for row in run.rows("errors") if row["type"] == "machine_taken"]
