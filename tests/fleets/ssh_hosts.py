"""Real SSH servers on loopback addresses, each a host of its own for a fleet."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from scenarios.loading import load_scenario
from tasks.fleets import deployment
from tasks.fleets.remote import Access, Host, connect
from tasks.fleets.wheelhouse import make_payload

READY_WITHIN_S = 60.0
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
NO_INDEX = "PIP_INDEX_URL=http://127.0.0.1:9/simple PIP_RETRIES=1 PIP_CONFIG_FILE=/dev/null"
"""For a host's `environment`: it reaches no package index."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
needs_sshd = pytest.mark.skipif(SSHD is None, reason="needs Debian's openssh-server")


@dataclass(frozen=True)
class SshHost:
    """A running server: where it listens, its key, and where what we install there goes."""

    address: str
    port: int
    fingerprint: str
    host_key: str
    prefix: Path
    process: subprocess.Popen[bytes]

    @property
    def text(self) -> str:
        """The host as a scenario names it."""
        return f"{os.environ.get('USER') or 'root'}@{self.address}:{self.port}"

    @property
    def pinned(self) -> str:
        """Its line in `fleet.host_keys`."""
        return f"{self.address}:{self.port} {self.fingerprint}"

    @property
    def known(self) -> str:
        """Its line in a known_hosts file."""
        return f"[{self.address}]:{self.port} {self.host_key}"


def make_key(path: Path) -> str:
    """Make an ed25519 key pair; return the public half as one line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True
    )
    return path.with_suffix(".pub").read_text(encoding="utf-8").strip()


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def ssh_host(
    folder: Path,
    address: str,
    *,
    user_key: str,
    port: int = 0,
    host_key: Path | None = None,
    environment: str = "",
    prefix: Path | None = None,
    prepared: Path | None = None,
    system: str = "",
    disk_mb: int = 0,
    netns: str = "",
) -> Iterator[SshHost]:
    """Run an SSH server that lets the owner of `user_key` in, and end it afterwards.

    `environment` are words of sshd's SetEnv. `prepared` is an installed environment, which the
    host then has as if an earlier run had left it there. `system` is its os-release, and `disk_mb`
    the size of the disk that our folder is on: both need root, and are mounted for the host alone.
    `netns` is the network namespace that it stands in, where `port` must be given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if host_key is None:
        host_key = folder / "host_key"
        make_key(host_key)
    public = host_key.with_suffix(".pub").read_text(encoding="utf-8").strip()
    (folder / "authorized_keys").write_text(user_key + "\n", encoding="utf-8")
    prefix = prefix or folder / "prefix"
    if prepared is not None:
        (prefix / "env").mkdir(parents=True)
        (prefix / "env" / prepared.name).symlink_to(prepared)
    port = port or free_port(address)
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress {address}\nPort {port}\nHostKey {host_key}\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
        f"Subsystem sftp internal-sftp\nSetEnv RELAY_LOAD_HOME={prefix} {environment}\n",
        encoding="utf-8",
    )
    mounts = []
    if system:
        (folder / "os-release").write_text(system, encoding="utf-8")
        mounts.append(f"mount --bind {folder}/os-release /etc/os-release")
    if disk_mb:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        mounts.append(f"mount -t tmpfs -o size={disk_mb}m none {prefix.parent}")
    own = ["unshare", "--mount", "sh", "-ec", f'{"; ".join(mounts)}; exec "$@"', "sh"]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "sshd.log").open("wb") as log:
        inside = ("ip", "netns", "exec", netns) if netns else ()
        command = [*inside, *(own if mounts else ()), str(SSHD), "-D", "-e", "-f", str(config)]
        process = subprocess.Popen(command, stderr=log)
    try:
        _wait(address, port, process, folder / "sshd.log")
        said = subprocess.run(
            ["ssh-keygen", "-lf", str(host_key.with_suffix(".pub"))],
            check=True,
            capture_output=True,
            text=True,
        )
        yield SshHost(
            address=address,
            port=port,
            fingerprint=said.stdout.split()[1],
            host_key=public,
            prefix=prefix,
            process=process,
        )
    finally:
        # The server leaves its logins to themselves: one whose network is gone would stay.
        logins = psutil.Process(process.pid).children() if process.poll() is None else []
        process.terminate()
        process.wait(timeout=60)
        for login in logins:
            with contextlib.suppress(psutil.NoSuchProcess):
                login.kill()


async def installed_worker(folder: Path, address: str) -> Path:
    """Deploy to a host for the first time; return the environment that this installs there."""
    key = folder / "user_key"
    public = make_key(key)
    payload = make_payload(folder / "wheel", load_scenario("local"))
    with ssh_host(folder / "host", address, user_key=public) as host:
        access = Access(key_file=key, host_keys={host.address: host.fingerprint})
        async with await connect(Host.from_text(host.text), access) as remote:
            place = await deployment.install(
                remote, payload, run_id="first", attempt=1, worker="worker-1"
            )
            await deployment.remove(remote, "first", keep_installed=True)
        return host.prefix / "env" / place.environment


def _wait(address: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"sshd is not ready: {log.read_text(encoding='utf-8')}")
