"""The page's files, served on loopback: Chromium caches and compiles them as any site's."""

from __future__ import annotations

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from run_store.errors import BrowserError

DIST = Path(__file__).parent / "page" / "dist"


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    extensions_map = {  # noqa: RUF012 - typed by the base class
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript",
        ".map": "application/json",
        ".wasm": "application/wasm",
        "": "application/octet-stream",
    }

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's signature
        """Say nothing: a page load is no news."""


class Assets:
    """A loopback server for the page; a context manager that gives its address."""

    def __init__(self, folder: Path = DIST) -> None:
        if not any(folder.glob("*.js")):
            raise BrowserError(f"The page in {folder} is not built.", hint="Run `make setup`.")
        handler = functools.partial(_Quiet, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>/`."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def start(self) -> None:
        """Serve until the process ends."""
        threading.Thread(target=self._server.serve_forever, daemon=True, name="assets").start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
