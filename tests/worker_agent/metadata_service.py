"""A machine's metadata service on loopback, which speaks its second version only."""

from __future__ import annotations

import datetime as dt
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

TOKEN = "a-token"


class MetadataService:
    """Serves no notice until `announce`; counts the questions. A context manager."""

    def __init__(self) -> None:
        self.body = ""
        self.token = TOKEN
        self.fails = False
        self.asked: list[tuple[str, str, int]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                lasts = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                self._answer(200 if lasts else 400, service.token)

            def do_GET(self) -> None:
                if service.fails:
                    self._answer(500, "")
                elif self.headers.get("X-aws-ec2-metadata-token") != service.token:
                    self._answer(401, "")
                else:
                    self._answer(200 if service.body else 404, service.body)

            def _answer(self, code: int, body: str) -> None:
                service.asked.append((self.command, self.path, code))
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve from now on."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def announce(self, in_s: float = 120.0) -> None:
        """Say that the machine will be taken away."""
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=in_s)
        self.body = json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
