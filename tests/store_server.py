"""A real S3 server over a folder, which a test can take away and bring back."""

import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from shutil import which
from typing import Self

from run_store.errors import StoreError
from run_store.store import Store, StoreAddress

BUCKET = "relay-load"
READY_WITHIN_S = 20.0
# As tasks/local_services.py has them: shorter cache times make concurrent writes fail.
OPTIONS = ("--dir-cache-time=8760h", "--poll-interval=0", "--vfs-cache-mode=off", "--etag-hash=")


class StoreServer:
    """`rclone serve s3` on a free port of loopback; a context manager that gives itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        (folder / BUCKET).mkdir(parents=True, exist_ok=True)
        self.address = StoreAddress(
            bucket=BUCKET,
            endpoint_url=f"http://127.0.0.1:{self._port}",
            access_key=secrets.token_hex(8),
            secret_key=secrets.token_hex(16),
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve the folder, on the same port as ever, and wait until it answers."""
        rclone = which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
        keys = self.address.secrets()
        assert keys is not None
        self._process = subprocess.Popen(
            [
                *(rclone, "serve", "s3", "--addr", f"127.0.0.1:{self._port}"),
                *("--auth-key", f"{keys[0]},{keys[1]}", *OPTIONS, str(self.folder)),
            ],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            try:
                self.store().keys(".none")
            except StoreError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Take the server away; what it holds stays in the folder."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def store(self, *, timeout_s: float = 5.0, tries: int = 2) -> Store:
        """Give a client of the bucket."""
        return Store(self.address, timeout_s=timeout_s, tries=tries)
