from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import psutil
import pytest

from run_store.errors import RelayError, StoreError
from run_store.store import Store, StoreAddress
from tasks import processes
from tasks.local_services import local_relay, local_store
from tasks.processes import wait_until

USER = textwrap.dedent(
    """
    import sys, time
    from tasks.local_services import local_store
    with local_store(sys.argv[1]) as address:
        print(address.endpoint_url, flush=True)
        sys.stdin.readline()
    """
)


def another_user(results: Path) -> subprocess.Popen[str]:
    """Start another process that uses a store until it is told to go on or killed."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(results)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=processes.own_environment(),
    )


def endpoint(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def server_of(address: StoreAddress) -> psutil.Process:
    """Return the process that listens at an address."""
    port = int((address.endpoint_url or "").rpartition(":")[2])
    for connection in psutil.net_connections("tcp4"):
        listens = connection.status == psutil.CONN_LISTEN
        if listens and connection.laddr and connection.laddr.port == port:
            return psutil.Process(connection.pid)
    raise AssertionError(f"nobody listens on {port}")


def answers(address: StoreAddress) -> bool:
    try:
        Store(address, timeout_s=1, tries=1).keys(".none")
    except StoreError:
        return False
    return True


def test_a_store_is_there_and_its_objects_stay(tmp_path: Path) -> None:
    """A store takes objects, its folder keeps them, and its server ends with its last user."""
    service = local_store(tmp_path)
    with service as address:
        Store(address).check()
        Store(address).put("runs/a/run.json", b"{}")
        assert (tmp_path / "store/relay-load/runs/a/run.json").read_bytes() == b"{}"
        assert stat.S_IMODE(service.address_file.stat().st_mode) == 0o600
        assert StoreAddress.from_file(service.address_file) == address
        first = address
    assert wait_until(lambda: not answers(first), within_s=60)
    assert wait_until(lambda: not service.address_file.exists(), within_s=60)
    with local_store(tmp_path) as address:
        assert Store(address).get("runs/a/run.json") == b"{}"
        assert address.access_key != first.access_key


def test_new_and_changed_objects_are_seen_at_once(tmp_path: Path) -> None:
    """Listings and reads follow each write, whoever asked for the folder before."""
    with local_store(tmp_path) as address:
        writer, reader = Store(address), Store(address)
        for number in range(20):
            key = f"runs/x/orders/{number:06d}.json"
            assert reader.get(key) is None
            writer.put(key, str(number).encode())
            writer.put("runs/x/status.json", str(number).encode() * 1000)
            assert reader.get(key) == str(number).encode()
            assert reader.get("runs/x/status.json") == str(number).encode() * 1000
            assert len(reader.keys("runs/x/orders/")) == number + 1
        assert reader.folders("runs/") == ["x"]
        writer.delete(key)
        assert reader.get(key) is None


def test_wrong_keys_are_refused(tmp_path: Path) -> None:
    """Nobody without the server's own key gets in, and no argument of it shows that key."""
    with local_store(tmp_path) as address:
        secrets = address.secrets()
        assert secrets is not None
        wrong = address.model_copy(
            update={"secret_key": StoreAddress(bucket="abc", secret_key="no").secret_key}
        )
        with pytest.raises(StoreError, match="refused our credentials"):
            Store(wrong).check()
        assert secrets[1] not in " ".join(server_of(address).cmdline())


@pytest.mark.parametrize("killed", ["the first user", "the second user"])
def test_users_share_one_server(tmp_path: Path, killed: str) -> None:
    """Two processes share a server; neither's SIGKILL takes it from the other or keeps it."""
    users = [another_user(tmp_path)]
    first = endpoint(users[0])
    users.append(another_user(tmp_path))
    assert endpoint(users[1]) == first
    address = StoreAddress.from_file(local_store(tmp_path).address_file)
    victim, other = users if killed == "the first user" else users[::-1]
    victim.kill()
    victim.wait()
    # Several looks of the guardian at its lock. A busy server is asked three times; one that is
    # gone refuses at once.
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        Store(address).keys(".none")
        time.sleep(0.25)
    other.communicate("\n", timeout=60)
    assert wait_until(lambda: not answers(address), within_s=60)


def test_users_that_come_together_start_one_server(tmp_path: Path) -> None:
    """Of several processes that start at the same instant all get the same server."""
    users = [another_user(tmp_path) for _ in range(4)]
    assert len({endpoint(user) for user in users}) == 1
    for user in users:
        user.communicate("\n", timeout=60)
    assert [user.returncode for user in users] == [0] * 4


def test_a_killed_server_is_replaced(tmp_path: Path) -> None:
    """Whoever comes after the server was killed starts another, though its file still stands."""
    with local_store(tmp_path) as address:
        server_of(address).send_signal(signal.SIGKILL)
        assert wait_until(lambda: not answers(address), within_s=60)
        with local_store(tmp_path) as again:
            assert Store(again).keys(".none") == []


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    """Cancelling while a store starts gives it up again."""
    service = local_store(tmp_path)

    async def use() -> None:
        async with service:
            await asyncio.sleep(60)

    task = asyncio.create_task(use())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(
        wait_until, lambda: not service.address_file.exists(), within_s=60
    )


def test_an_unusable_folder_is_told(tmp_path: Path) -> None:
    """A results folder that is a file is an error that says what to do."""
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="--results"), local_store(tmp_path / "results"):
        pass


def test_a_local_relay_answers_and_ends(tmp_path: Path) -> None:
    """The relay is ready inside the `with`, takes flags, and is gone behind it."""
    service = local_relay(log=tmp_path / "relay.log", flags=["--metrics-off"])
    with service as relay:
        assert relay.url.startswith("ws://127.0.0.1:")
        assert httpx.get(relay.http_url, timeout=60).status_code == 200
        assert httpx.get(f"{relay.admin_url}/faults", timeout=60).json()["metrics_off"]
        assert psutil.pid_exists(relay.pid)
    assert wait_until(lambda: not psutil.pid_exists(relay.pid), within_s=60)
    assert [file.name for file in tmp_path.iterdir()] == ["relay.log"]


def test_a_relay_that_does_not_start_is_told(tmp_path: Path) -> None:
    """A flag that the relay does not know is an error with the relay's own words."""
    with (
        pytest.raises(RelayError, match=r"(?s)does not start.*no-such-flag"),
        local_relay(log=tmp_path / "relay.log", flags=["--no-such-flag"]),
    ):
        pass
