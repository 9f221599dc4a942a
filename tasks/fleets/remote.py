"""A host that is reached over SSH: its address, whom we trust it to be, and commands on it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import asyncssh

from run_store.errors import FleetError, UsageError
from scenarios.model import FleetSpec

CONNECT_WITHIN_S = 20.0
KEEPALIVE_S = 10.0
_HOST = re.compile(
    r"^(?:(?P<user>[a-z_][a-z0-9_.-]*)@)?"
    r"(?:\[(?P<v6>[0-9a-fA-F:]+)\]|(?P<name>[A-Za-z0-9._-]+))"
    r"(?::(?P<port>\d{1,5}))?$"
)
_TAIL_LINES = 12


@dataclass(frozen=True)
class Host:
    """Where a host's SSH server listens, and as whom to log in."""

    address: str
    port: int = 22
    user: str = "root"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `user@address:port`; user and port may be left out. Raises UsageError."""
        match = _HOST.match(text.strip())
        port = int(match["port"] or 22) if match else 0
        if match is None or not 0 < port < 2**16:
            raise UsageError(
                f"{text!r} is not a host.", hint="Write user@address:port, or [address] for IPv6."
            )
        return cls(
            address=match["v6"] or match["name"],
            port=port,
            user=match["user"] or os.environ.get("USER") or "root",
        )

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{address}:{self.port}"


@dataclass(frozen=True)
class Access:
    """How to log in, and which host keys are right.

    `host_keys` maps `address`, `address:port` or `*` to a key's SHA256 fingerprint, which then is
    the only key that counts for that host; else `known_hosts` is asked (None: the user's own file).
    Without `key_file` the agent and the user's usual keys are tried.
    """

    key_file: Path | None = None
    known_hosts: Path | None = None
    host_keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_scenario(cls, fleet: FleetSpec) -> Self:
        """Return what the scenario says; RELAY_LOAD_SSH_KEY and RELAY_LOAD_KNOWN_HOSTS else."""
        key = fleet.key_file or os.environ.get("RELAY_LOAD_SSH_KEY", "")
        known = fleet.known_hosts or os.environ.get("RELAY_LOAD_KNOWN_HOSTS", "")
        return cls(
            key_file=_existing(key, "SSH key") if key else None,
            known_hosts=_existing(known, "known_hosts file") if known else None,
            host_keys=dict(_pinned(line) for line in fleet.host_keys),
        )

    def fingerprint_of(self, host: Host) -> str | None:
        """Return the fingerprint that is pinned for a host, if one is."""
        by_port = self.host_keys.get(f"{host.address}:{host.port}")
        return by_port or self.host_keys.get(host.address) or self.host_keys.get("*")


class RemoteCommandError(FleetError):
    """A command on a host failed; the message holds the end of what it wrote to stderr."""


class _Pinned(asyncssh.SSHClient):
    """Accepts one host key."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self.offered = ""

    def validate_host_public_key(self, _host: str, _addr: str, _port: int, key: Any) -> bool:
        """Say whether the host's key is the pinned one."""
        self.offered = key.get_fingerprint("sha256")
        return self.offered == self._fingerprint


class Remote:
    """An open connection to a host. Use as `async with`, or close it."""

    def __init__(self, host: Host, connection: Any) -> None:
        self.host = host
        self._connection = connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; nothing that runs on the host ends by that."""
        self._connection.close()
        await self._connection.wait_closed()

    @property
    def is_open(self) -> bool:
        """Whether the connection has not been closed or lost."""
        return not self._connection.is_closed()

    async def run_script(
        self, script: str, arguments: Sequence[str], *, within_s: float, doing: str
    ) -> str:
        """Run a shell script, given on stdin, with arguments that hold no secret.

        Return what it wrote to stdout. Raises RemoteCommandError with the end of its stderr.
        """
        words = " ".join(shlex.quote(word) for word in ("sh", "-s", "--", *arguments))
        try:
            async with asyncio.timeout(within_s):
                done = await self._connection.run(words, input=script, check=False)
        except TimeoutError:
            raise RemoteCommandError(
                f"{self.host} did not finish to {doing} within {within_s:g} s."
            ) from None
        except (OSError, asyncssh.Error) as error:
            raise RemoteCommandError(
                f"The connection to {self.host} broke while it was to {doing}: {_said(error)}."
            ) from error
        if done.exit_status != 0:
            said = str(done.stderr or done.stdout or "").strip().splitlines()[-_TAIL_LINES:]
            how = (
                f"exit code {done.exit_status}"
                if done.exit_status is not None
                else f"signal {done.exit_signal[0] if done.exit_signal else 'unknown'}"
            )
            raise RemoteCommandError(f"{self.host} could not {doing} ({how}): " + "\n".join(said))
        return str(done.stdout)

    async def put(self, files: dict[Path, str], *, within_s: float, mode: int = 0o600) -> None:
        """Copy local files to paths on the host whose folders exist; each is whole or not there.

        Raises RemoteCommandError.
        """
        try:
            async with asyncio.timeout(within_s), self._connection.start_sftp_client() as sftp:
                for source, target in files.items():
                    draft = f"{target}.part"
                    attributes = asyncssh.SFTPAttrs(permissions=mode)
                    # The mode is set when the file is made, so nobody can open it before.
                    async with sftp.open(draft, "wb", attributes) as file:
                        await file.write(await asyncio.to_thread(source.read_bytes))
                    await sftp.chmod(draft, mode)
                    await sftp.posix_rename(draft, target)
        except TimeoutError:
            raise RemoteCommandError(
                f"Copying to {self.host} took more than {within_s:g} s."
            ) from None
        except (OSError, asyncssh.Error) as error:
            raise RemoteCommandError(f"Copying to {self.host} failed: {_said(error)}.") from error

    async def get_output(self, command: Sequence[str], target: Path, *, within_s: float) -> None:
        """Write what a command on the host prints, as bytes, to a local file."""
        words = " ".join(shlex.quote(word) for word in command)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.timeout(within_s):
                done = await self._connection.run(
                    words, stdout=str(target), encoding=None, check=False
                )
        except (OSError, TimeoutError, asyncssh.Error) as error:
            raise RemoteCommandError(
                f"Fetching from {self.host} failed: {_said(error)}."
            ) from error
        if done.exit_status != 0:
            raise RemoteCommandError(
                f"Fetching from {self.host} failed: {bytes(done.stderr or b'').decode().strip()}"
            )


async def connect(host: Host, access: Access, *, within_s: float = CONNECT_WITHIN_S) -> Remote:
    """Log in to a host whose key is known.

    Raises FleetError: no answer in time, a host key that is not the known one (it is never
    accepted), or a login that the host refuses.
    """
    options: dict[str, Any] = {
        "port": host.port,
        "username": host.user,
        "keepalive_interval": KEEPALIVE_S,
        "connect_timeout": within_s,
        "login_timeout": within_s,
    }
    if access.key_file is not None:
        options |= {"client_keys": [str(access.key_file)], "agent_path": None}
    fingerprint = access.fingerprint_of(host)
    pinned = _Pinned(fingerprint or "")
    if fingerprint is not None:
        options |= {"known_hosts": ([], [], []), "client_factory": lambda: pinned}
    elif access.known_hosts is not None:
        options["known_hosts"] = str(access.known_hosts)
    try:
        async with asyncio.timeout(within_s):
            return Remote(host, await asyncssh.connect(host.address, **options))
    except asyncssh.HostKeyNotVerifiable as error:
        wanted = f" {pinned.offered} is not the pinned {fingerprint}" if fingerprint else ""
        raise FleetError(
            f"The host key of {host} is not trusted, so it was not used: {_said(error)}{wanted}.",
            hint=(
                "Compare the key with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_*.pub "
                "there), then add it to known_hosts or to fleet.host_keys."
            ),
        ) from error
    except asyncssh.PermissionDenied as error:
        raise FleetError(
            f"{host} refused our login: {_said(error)}.",
            hint="Name the right key with fleet.key_file, or add it to your SSH agent.",
        ) from error
    except (OSError, TimeoutError, asyncssh.Error, asyncssh.KeyImportError, ValueError) as error:
        raise FleetError(
            f"{host} cannot be reached by SSH: {_said(error)}.",
            hint="Is it up, and does its firewall let port 22 in from here?",
        ) from error


def _existing(path: str, what: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise FleetError(f"There is no {what} {path}.")
    return found


def _pinned(line: str) -> tuple[str, str]:
    words = line.split()
    if len(words) != 2 or not words[1].startswith("SHA256:"):  # noqa: PLR2004 - address and key
        raise UsageError(
            f"{line!r} in fleet.host_keys is not a pinned host key.",
            hint='Write "address SHA256:..." or "address:port SHA256:...".',
        )
    return words[0], words[1]


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "reason", "") or str(error) or type(error).__name__
    return str(text).rstrip(".")
