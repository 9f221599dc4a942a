from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from run_store.errors import StoreError
from run_store.store import Store, StoreAddress

RCLONE = Path(sys.executable).with_name("rclone")
DEADLINE_S = 20


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A real S3 server over a folder, and a store in it."""
    port = _free_port()
    server = subprocess.Popen(
        [
            str(RCLONE),
            "serve",
            "s3",
            "--addr",
            f"127.0.0.1:{port}",
            "--auth-key",
            "reports,not-a-secret",
            "--vfs-cache-mode",
            "off",
            str(tmp_path_factory.mktemp("s3")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        store = Store(
            StoreAddress(
                bucket="runs-under-test",
                prefix="a-prefix/",
                endpoint_url=f"http://127.0.0.1:{port}",
                access_key="reports",
                secret_key="not-a-secret",
            ),
            tries=1,
        )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                store.create_bucket()
                break
            except StoreError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.05)
        yield store
    finally:
        server.kill()
        server.wait()
