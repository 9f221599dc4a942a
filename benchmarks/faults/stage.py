"""What all cases share: a Prefect server with a process worker, and an S3 server of the suite's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.faults.case import HungError, Scale
from flows.cli_prefect import prefect_server
from tasks import processes
from tasks.local_services import free_port
from tasks.processes import PROJECT
from tests.fleets.ssh_hosts import installed_worker
from tests.store_server import StoreServer

INSIDE = Path(__file__).with_name("inside")
FIRST_HOST = "127.0.1.140"
POOL = "faults"
SET_FOLDER = "prefect.deployments.steps.set_working_directory"
WORKER_READY_WITHIN_S = 120.0
BUSY_WITHIN_S = 20.0
SCENARIO = """
description = "A run of about ten seconds, for the suite of faults."
connections = 4
own_relay = true

[fleet]
kind = "local"
workers = 1

[phases.warmup]
kind = "warmup"
duration = "1s"
connections = 2
edits_per_minute = 120

[phases.load]
kind = "sustained"
duration = "6s"
edits_per_minute = 240

[phases.cooldown]
kind = "cooldown"
duration = "1s"
"""


@dataclass
class Stage:
    """The shared parts. `length_s` is how long a run takes that nothing is done to."""

    folder: Path
    api: str
    store: StoreServer
    scale: Scale
    length_s: float = 25.0
    _host_lock: threading.Lock = field(default_factory=threading.Lock)
    _installed: Path | None = None
    _worker_lock: threading.Lock = field(default_factory=threading.Lock)
    _worker: processes.GuardedProcess | None = None
    _deployment: str = ""

    @property
    def scenario(self) -> Path:
        """The scenario of all cases; a case overrides what it needs to."""
        return self.folder / "faults.toml"

    @property
    def environment(self) -> dict[str, str]:
        """What every run under test finds: the API, the store's keys, and the suite's hooks."""
        keys = self.store.address.secrets() or ("", "", "")
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(INSIDE), str(PROJECT))),
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.folder / "prefect-client"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "AWS_ENDPOINT_URL_S3": self.store.address.endpoint_url or "",
            "AWS_ACCESS_KEY_ID": keys[0],
            "AWS_SECRET_ACCESS_KEY": keys[1],
        }

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Prefect's API; return what it answers. Its small database may be busy for a while."""
        deadline = time.monotonic() + BUSY_WITHIN_S
        with httpx.Client(trust_env=False, timeout=30) as client:
            while True:
                answer = client.request(method, f"{self.api}{path}", json=body)
                busy = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
                if not busy or time.monotonic() > deadline:
                    break
                time.sleep(0.5)
        if answer.status_code >= httpx.codes.BAD_REQUEST and answer.status_code != (
            httpx.codes.CONFLICT
        ):
            raise HungError(f"Prefect answered {answer.status_code} to {path}: {answer.text[:300]}")
        return answer.json() if answer.content else None

    def deployment(self) -> str:
        """Return the id of the deployment of the flow, with a worker that serves it."""
        with self._worker_lock:
            if not self._deployment:
                self.ask("POST", "/work_pools/", {"name": POOL, "type": "process"})
                self._worker = self.start_worker("faults", POOL)
                self._deployment = self.deploy("suite", POOL)
        return self._deployment

    def installed_worker(self) -> Path:
        """Return what a deployment installs on a host, which finds the suite's hooks there."""
        with self._host_lock:
            if self._installed is None:
                folder = self.folder / "first-host"
                folder.mkdir()
                environment = asyncio.run(installed_worker(folder, FIRST_HOST))
                [packages] = environment.glob("lib/python3.*/site-packages")
                (packages / "sitecustomize.py").symlink_to(INSIDE / "sitecustomize.py")
                self._installed = environment
        return self._installed

    def deploy(self, name: str, pool: str) -> str:
        """Register the flow for a work pool; return the deployment's id."""
        flow = self.ask("POST", "/flows/", {"name": "relay-load"})
        made = self.ask(
            "POST",
            "/deployments/",
            {
                "name": name,
                "flow_id": flow["id"],
                "work_pool_name": pool,
                "entrypoint": "flows/relay_load.py:relay_load",
                # As `prefect deploy` does it; a path would have each run copy all that is there.
                "pull_steps": [{SET_FOLDER: {"directory": str(PROJECT)}}],
                "enforce_parameter_schema": False,
            },
        )
        return str(made["id"])

    def start_worker(self, name: str, pool: str) -> processes.GuardedProcess:
        """Start a process worker of a pool, and wait until Prefect knows it."""
        words = ["-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        worker = processes.start(
            "Prefect's worker",
            [sys.executable, *words, "--name", name],
            log=self.folder / f"worker-{name}.log",
            environment={**self.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"},
            grace_s=10,
        )
        deadline = time.monotonic() + WORKER_READY_WITHIN_S
        while not self.ask("POST", f"/work_pools/{pool}/workers/filter", {}):
            if time.monotonic() > deadline or worker.exit_code() is not None:
                raise HungError(f"Prefect's worker does not start:\n{worker.tail()}")
            time.sleep(0.2)
        return worker

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.stop()


@contextlib.contextmanager
def set_stage(folder: Path, scale: Scale) -> Iterator[Stage]:
    """Start the shared servers; they are there for as long as the `with` lasts."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "PREFECT_", "RELAY_"))]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = str(folder / "prefect")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    (folder / "prefect").mkdir(parents=True)
    with (
        StoreServer(folder / "s3") as store,
        prefect_server(folder, port=free_port(), ui=False) as api,
    ):
        stage = Stage(folder, api, store, scale)
        stage.scenario.write_text(SCENARIO, encoding="utf-8")
        try:
            yield stage
        finally:
            stage.close()


def port_of(url: str) -> int:
    """Return a URL's port."""
    return urlsplit(url).port or 80


def as_plan(**plan: Any) -> str:
    """Return a plan for `inside/sitecustomize.py` as the environment holds it."""
    return json.dumps({name: value for name, value in plan.items() if value})
