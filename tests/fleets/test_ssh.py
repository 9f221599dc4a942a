from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from run_store.errors import FleetError, UsageError
from run_store.messages import Lease, PhaseRecord, Status
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from tasks.deploy import start_agents
from tasks.fleets.deployment import SCRIPT
from tasks.fleets.remote import Access, Host, connect
from tasks.fleets.ssh import SshFleet
from tasks.fleets.worker_access import access_of
from tasks.local_services import local_store
from tasks.run_context import RunContext
from tests.fleets.ssh_hosts import SshHost, needs_sshd, ssh_host
from tests.relay_process import start_relay

pytestmark = needs_sshd
NOWHERE = StoreAddress(bucket="none", endpoint_url="http://127.0.0.1:9", region="us-east-1")


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text(encoding="utf-8").strip()


def context_of(
    folder: Path,
    *hosts: str,
    key: Path,
    pinned: tuple[str, ...] = (),
    relay: str = "ws://127.0.0.1:9/",
    address: StoreAddress = NOWHERE,
    **fleet: object,
) -> RunContext:
    """One attempt of a run of about twelve seconds on these hosts."""
    scenario = load_scenario(
        "local",
        {
            "connections": 10,
            "phases.warmup.duration": "2s",
            "phases.warmup.connections": 4,
            "phases.ramp-up.duration": "2s",
            "phases.sustained.duration": "5s",
            "phases.cooldown.duration": "1s",
            "fleet": {
                "kind": "ssh",
                "workers": len(hosts),
                "hosts": hosts,
                "key_file": str(key),
                "host_keys": pinned,
                **fleet,
            },
        },
    )
    return RunContext(
        run_id="ssh-run",
        attempt=1,
        scenario=scenario,
        relay_url=relay,
        has_metrics=True,
        address=address,
        folder=folder / "results" / "ssh-run",
        fleet="ssh",
    )


def processes_below(prefix: Path) -> list[psutil.Process]:
    """Every process whose command line names a host's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if any(str(prefix) in word for word in words) and "sshd" not in words[0]:
            found.append(process)
    return found


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("me@a.example:2222", Host("a.example", 2222, "me")),
        ("me@[::1]:2200", Host("::1", 2200, "me")),
        ("me@10.0.0.1", Host("10.0.0.1", 22, "me")),
    ],
)
def test_host_is_read(text: str, host: Host) -> None:
    """A host is user, address and port; the port is 22 unless it is given."""
    assert Host.from_text(text) == host


@pytest.mark.parametrize("text", ["", "a b", "me@host:0", "me@host:99999", "$(id)@host", "-oX=y@h"])
def test_what_is_no_host_is_refused(text: str) -> None:
    """Anything that is no address is refused before it is used."""
    with pytest.raises(UsageError, match="is not a host"):
        Host.from_text(text)


async def test_known_hosts_and_pins_are_checked(tmp_path: Path, user_key: Path) -> None:
    """A host is used if known_hosts or a pin holds its key, and refused if not."""
    with (
        ssh_host(tmp_path / "a", "127.0.1.1", user_key=public(user_key)) as a,
        ssh_host(tmp_path / "b", "127.0.1.2", user_key=public(user_key)) as b,
    ):
        known = tmp_path / "known_hosts"
        known.write_text(a.known + "\n", encoding="utf-8")
        host = Host.from_text(a.text)
        for access in (
            Access(key_file=user_key, known_hosts=known),
            Access(key_file=user_key, host_keys={f"{a.address}:{a.port}": a.fingerprint}),
        ):
            async with await connect(host, access) as remote:
                assert remote.is_open
        wrong = tmp_path / "wrong_hosts"
        wrong.write_text(f"[{a.address}]:{a.port} {b.host_key}\n", encoding="utf-8")
        empty = tmp_path / "empty_hosts"
        empty.write_text("", encoding="utf-8")
        for access in (
            Access(key_file=user_key, known_hosts=wrong),
            Access(key_file=user_key, known_hosts=empty),
            Access(key_file=user_key, host_keys={a.address: b.fingerprint}),
        ):
            with pytest.raises(FleetError, match=r"host key of .* is not trusted"):
                await connect(host, access)


async def test_refused_key_is_said(tmp_path: Path, user_key: Path) -> None:
    """A host that does not know our key is named, with what to do."""
    other = tmp_path / "a" / "other"
    with ssh_host(tmp_path / "a", "127.0.1.1", user_key="ssh-ed25519 AAAA") as a:
        assert not other.exists()
        access = Access(key_file=user_key, host_keys={a.address: a.fingerprint})
        with pytest.raises(FleetError, match="refused our login"):
            await connect(Host.from_text(a.text), access)


async def test_silent_host_is_given_up(user_key: Path) -> None:
    """A host that takes the connection and never says a word is given up in time."""
    with socket.socket() as mute:
        mute.bind(("127.0.1.3", 0))
        mute.listen()
        host = Host("127.0.1.3", mute.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(FleetError, match="cannot be reached"):
            await connect(host, Access(key_file=user_key), within_s=1.0)
        assert time.monotonic() - began < 15


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's programs")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """The unit that a host with systemd is given has no mistake that systemd would find."""
    python = tmp_path / "env" / "e" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    made = subprocess.run(
        ["sh", str(SCRIPT), "unit", str(tmp_path), "e", "a"],
        env={**os.environ, "RELAY_LOAD_HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    unit = tmp_path / "relay-load-test.service"
    unit.write_text(made.stdout, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], check=False, capture_output=True, text=True
    )
    assert (done.returncode, unit.name in done.stderr) == (0, False), done.stderr


async def test_a_store_that_is_here_is_no_store_for_others(tmp_path: Path, user_key: Path) -> None:
    """Workers elsewhere are not deployed to, or rented, to find nobody where their store is."""
    here = StoreAddress(bucket="none", endpoint_url="http://127.0.0.1:9", region="us-east-1")
    for fleet in ("ssh", "ec2"):
        context = replace(
            context_of(tmp_path, "root@192.0.2.1", key=user_key, address=here), fleet=fleet
        )
        with pytest.raises(FleetError, match="cannot reach the store") as failed:
            access_of(context)
        assert "--store s3://" in failed.value.hint


async def test_too_few_hosts_are_refused(tmp_path: Path, user_key: Path) -> None:
    """A scenario that names fewer hosts than workers is refused before anything is touched."""
    context = context_of(tmp_path, "root@127.0.1.1:1", key=user_key, workers=2)
    with pytest.raises(FleetError, match="asks for 2 workers and names 1 hosts"):
        await SshFleet().acquire(context)


@pytest.mark.browser
@pytest.mark.timeout(600)
async def test_run_on_two_hosts(tmp_path: Path, user_key: Path, worker_environment: Path) -> None:
    """Two hosts are deployed to, carry a load, and hold nothing of ours afterwards.

    A third that does not answer is dropped, and the run goes on without it.
    """
    key, there = public(user_key), worker_environment
    with (
        ssh_host(tmp_path / "a", "127.0.1.1", user_key=key, prepared=there) as a,
        ssh_host(tmp_path / "b", "127.0.1.2", user_key=key, prepared=there) as b,
        start_relay() as relay,
        local_store(tmp_path / "results") as address,
    ):
        context = context_of(
            tmp_path,
            a.text,
            b.text,
            "root@127.0.1.3:9",
            key=user_key,
            pinned=(a.pinned, b.pinned),
            relay=relay.url,
            address=address,
            min_healthy=0.6,
        )
        fleet = SshFleet()
        try:
            workers = await fleet.acquire(context)
            conductor = await start_agents(context, workers)
            assert "could not be deployed" in conductor.roll.lost["worker-3"].reason
            assert conductor.roll.alive == ["worker-1", "worker-2"]
            config = a.prefix / "runs" / "ssh-run" / "attempt-1" / "worker-1" / "agent.json"
            assert stat.S_IMODE(config.stat().st_mode) == 0o600
            _assert_no_secret_shows(address)
            store = Store(address)
            store.put_message(
                context.layout.lease(1), Lease(counter=1, every_s=2, expires_after_s=600)
            )
            records = [await conductor.run_phase(i) for i in range(len(context.scenario.phases))]
            await conductor.finish("done")
            _assert_loaded(records, store, context)
            assert await fleet.release(context) == []
            assert await SshFleet().release(context) == []
        finally:
            await SshFleet().release(context)
        for host in (a, b):
            assert not host.prefix.exists()
            await _until(lambda host=host: not processes_below(host.prefix))


def _assert_no_secret_shows(address: StoreAddress) -> None:
    secrets = [secret for secret in address.secrets() or () if secret]
    assert secrets
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        assert not any(secret in line for secret in secrets)


def _assert_loaded(records: list[PhaseRecord], store: Store, context: RunContext) -> None:
    assert {name for record in records for name in record.parts} >= {"worker-1", "worker-2"}
    assert store.keys(context.layout.samples("edits"))
    for name in ("worker-1", "worker-2"):
        status = store.get_message(context.layout.status(1, name), Status)
        assert status is not None
        assert status.state == "stopped"
        assert status.counts.edits_completed + status.counts.deliveries > 0


@pytest.mark.browser
@pytest.mark.timeout(600)
async def test_prepared_host_and_killed_agent(
    tmp_path: Path, user_key: Path, worker_environment: Path
) -> None:
    """A prepared host is not installed anew; a killed agent is started again."""
    key, there = public(user_key), worker_environment
    with (
        ssh_host(tmp_path / "a", "127.0.1.4", user_key=key, prepared=there) as a,
        start_relay() as relay,
        local_store(tmp_path / "results") as address,
    ):
        context = context_of(
            tmp_path,
            a.text,
            key=user_key,
            pinned=(a.pinned,),
            relay=relay.url,
            address=address,
            keep_installed=True,
        )
        store = Store(address)
        try:
            conductor = await start_agents(context, await SshFleet().acquire(context))
            pid = _agent_pid(a)
            os.kill(pid, signal.SIGKILL)
            await _until(lambda: _agent_pid(a) != pid and psutil.pid_exists(_agent_pid(a)))
            installed = {path: path.stat().st_ino for path in (a.prefix / "env").glob("*/bin/*")}
            fleet = SshFleet()
            await fleet.deploy(context, (await fleet.acquire(context))[0])
            assert installed
            assert {path: path.stat().st_ino for path in (a.prefix / "env").glob("*/bin/*")} == (
                installed
            )
            assert conductor.roll.alive == ["worker-1"]
            status = store.get_message(context.layout.status(1, "worker-1"), Status)
            assert status is not None
        finally:
            assert await SshFleet().release(context) == []
        assert (a.prefix / "env").is_dir()
        assert not (a.prefix / "runs" / "ssh-run").exists()
        await _until(lambda: not [p for p in processes_below(a.prefix) if p.is_running()])


def _agent_pid(host: SshHost) -> int:
    folder = host.prefix / "runs" / "ssh-run" / "attempt-1" / "worker-1"
    return int((folder / "agent.pid").read_text(encoding="utf-8") or 0)


async def _until(condition: object, within_s: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.1)
