"""What the suite puts between a run and a server, so that it can be cut, slowed and refused."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

Way = Literal["open", "cut", "refuse"]
_CHUNK = 16384
_STEP_S = 0.05


class Link:
    """A way to a server on loopback, byte for byte; a context manager that gives itself.

    `way` is "open"; "cut" (nothing passes and nobody is told, as when a cable is pulled) or
    "refuse" (connections are closed, as when the server is gone). `delay_s` holds back what
    passes, `bytes_per_s` throttles it (0: not).
    """

    def __init__(self, host: str, port: int, *, listen: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._listener = socket.create_server((listen, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.way: Way = "open"
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._listener.close()
        self._drop()

    def refuse(self) -> None:
        """Close what is open, and take no more."""
        self.way = "refuse"
        self._drop()

    def _drop(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client:
            while self.way == "cut" and not self._ended.is_set():
                time.sleep(_STEP_S)
            if self.way == "refuse" or self._ended.is_set():
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                return
            with server:
                self._open |= {client, server}
                try:
                    with contextlib.suppress(OSError):
                        self._between(client, server)
                finally:
                    self._open -= {client, server}

    def _between(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        while not self._ended.is_set() and self.way != "refuse":
            if self.way == "cut":
                time.sleep(_STEP_S)
                continue
            ready, _, _ = select.select(list(other), [], [], _STEP_S)
            for one in ready:
                data = one.recv(_CHUNK)
                if not data:
                    return
                wait_s = self.delay_s
                if self.bytes_per_s:
                    wait_s += len(data) / self.bytes_per_s
                if wait_s:
                    self._ended.wait(wait_s)
                other[one].sendall(data)


@dataclass(frozen=True)
class Request:
    """One HTTP request as it came."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered in the server's place."""

    status: int
    body: str = ""
    content_type: str = "application/xml"


def s3_error(status: int, code: str) -> Answer:
    """Return an error as S3 words it."""
    return Answer(status, f"<Error><Code>{code}</Code><Message>of the suite</Message></Error>")


class Teller:
    """An HTTP server that passes requests on, unless `tell` has an answer of its own."""

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.tell: Callable[[Request], Answer | None] = lambda _: None
        teller = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = teller.tell(Request(self.command, self.path, body))
                if answer is None:
                    self._pass_on(body)
                    return
                data = answer.body.encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def _pass_on(self, body: bytes) -> None:
                connection = http.client.HTTPConnection(*upstream, timeout=60)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                    connection.request(self.command, self.path, body=body, headers=headers)
                    got = connection.getresponse()
                    data = got.read()
                except OSError:
                    self.close_connection = True
                    return
                finally:
                    connection.close()
                self.send_response(got.status)
                for name, value in got.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = got.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815 - the base's names

            def log_message(self, *_words: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
