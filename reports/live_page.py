"""The report of a run that still goes on, rebuilt again and again, and served on loopback."""

from __future__ import annotations

import http.server
import threading
from dataclasses import dataclass
from typing import Self

from reports.build import report_files, summarise
from reports.engine import open_run
from reports.summary import Summary
from run_store.errors import CannotRunError
from run_store.store import Store

TYPES = {"/": "text/html; charset=utf-8", "/summary.json": "application/json"}


@dataclass(frozen=True)
class Look:
    """One look at a run: its page and summary, and up to which second of run time it saw."""

    page: bytes
    summary_json: bytes
    summary: Summary
    seen_s: float | None


def look_at(store: Store, run_id: str) -> Look:
    """Build a run's page from what the bucket has by now, without writing anything there.

    Raises NoSuchRunError, and StoreError if the store refuses or does not answer.
    """
    with open_run(store, run_id) as database:
        summary = summarise(database)
        files = report_files(database, summary)
        seconds = database.columns("timeline_1s")
    at_s = seconds.get("second", [])
    return Look(
        page=files["report.html"],
        summary_json=files["summary.json"],
        summary=summary,
        seen_s=float(at_s[-1]) if len(at_s) else None,
    )


class PageServer:
    """Serves the last look at `/`, and its summary at `/summary.json`, while a `with` lasts.

    The browser asks again by itself every `refresh_s` seconds, for as long as the run goes on;
    it keeps its place on the page. Raises CannotRunError if the port is taken.
    """

    def __init__(self, *, port: int, refresh_s: float) -> None:
        self._look: Look | None = None
        self._refresh_s = refresh_s
        self.last_was_fetched = threading.Event()
        try:
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except (OSError, OverflowError) as error:
            raise CannotRunError(
                f"Port {port} cannot be had: {error}.", hint="Give another, or 0 for any."
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def show(self, look: Look) -> None:
        """Serve this look from now on."""
        self._look = look

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                look = server._look
                kind = TYPES.get(self.path)
                if look is None or kind is None:
                    self.send_error(404 if kind is None else 503)
                    return
                body = look.page if self.path == "/" else look.summary_json
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                if look.summary.running and self.path == "/":
                    self.send_header("Refresh", f"{server._refresh_s:g}")
                self.end_headers()
                self.wfile.write(body)
                if not look.summary.running:
                    server.last_was_fetched.set()

            def log_message(self, *_: object) -> None:
                """Leave the terminal to the command."""

        return Handler
