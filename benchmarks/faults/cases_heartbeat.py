"""Case: a run's process and its worker are gone at once, and Prefect's own automation sees it.

It takes a Prefect server of its own with all of its services, and what `relay-load install`
registers there. Prefect's least interval of a heartbeat is 30 s, and the automation waits for five.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx

from benchmarks.faults.case import Case, HungError, Scale
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.site import Site, until
from benchmarks.faults.stage import Stage
from tasks import processes
from tasks.local_services import free_port
from tasks.processes import PROJECT

POOL = "relay-load"
SERVER = """
import sys, threading
from pathlib import Path
from flows.cli_prefect import prefect_server
with prefect_server(Path(sys.argv[1]), port=int(sys.argv[2]), ui=True):
    threading.Event().wait()
"""
UP_WITHIN_S = 180.0
FIRES_WITHIN_S = 150.0 + 150.0
"""What `prefect.yaml` says, and what it takes until the sweep has done its work."""
WHY = "Its heartbeat stopped, and nobody raises its lease."


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the case, where there is time for it."""
    if scale.full:
        yield Case(
            "rings/heartbeat",
            "a deployed run and its worker are killed at once: the automation runs the sweep",
            _heartbeat,
        )


def _heartbeat(site: Site) -> str:
    stage = _own_prefect(site)
    site.stage = stage
    account = f"http://127.0.0.1:{_emulated_account(site)}"
    # The worker hands its environment on to the runs, the sweep's among them.
    site.environment |= {
        "AWS_ENDPOINT_URL_EC2": account,
        "AWS_DEFAULT_REGION": "eu-north-1",
        "RELAY_LOAD_STORE": site.parameters["store"],
        "RELAY_LOAD_RESULTS": str(site.results),
    }
    site.overrides["phases.load.duration"] = "60s"
    worker = _worker(site, "doomed")
    deployment = stage.ask("GET", "/deployments/name/relay-load/local")["id"]
    site.deployed(deployment)
    site.order(LOAD)
    # Standing still it cannot see that the flow ends, and call its hook.
    worker.send_signal(signal.SIGSTOP)
    site.send(signal.SIGKILL)
    killed = time.time()
    worker.kill()
    worker.wait()
    _worker(site, "successor")
    swept = until(lambda: _swept(site), within_s=FIRES_WITHIN_S, what="the sweep of it", every_s=2)
    site.expect(swept == "COMPLETED", f"the sweep ended as {swept}")
    state = stage.ask("GET", f"/flow_runs/{site.flow_run}")["state"]
    site.expect(state["message"] == WHY, f"the run is {state['name']}: {state['message']}")
    site.expect(bool(site.summary()), "the sweep has made no report")
    return f"{state['name']} after {time.time() - killed:.0f} s"


def _swept(site: Site) -> str:
    """Return how the sweep that the automation ran for this run has ended; empty before that."""
    body = {"flows": {"name": {"any_": ["relay-load-sweep"]}}}
    for run in site.stage.ask("POST", "/flow_runs/filter", body):
        if site.flow_run in str(run["parameters"].get("flow_run")):
            ended = run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            return str(run["state_type"]) if ended else ""
    return ""


def _own_prefect(site: Site) -> Stage:
    """Start a server with its services, and install what we register there."""
    home, port = site.folder / "own", free_port()
    (home / "prefect").mkdir(parents=True)
    environment = {**site.stage.environment, **site.own_environment()}
    environment["PREFECT_HOME"] = str(home / "prefect")
    del environment["PREFECT_API_URL"]
    _started(site, "server", [sys.executable, "-c", SERVER, str(home), str(port)], environment)
    api = f"http://127.0.0.1:{port}/api"
    _answers(f"{api}/health")
    environment["PREFECT_API_URL"] = api
    done = subprocess.run(
        [str(Path(sys.executable).with_name("relay-load")), "install"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=UP_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise HungError(f"install ended with {done.returncode}: {done.stderr[-800:]}")
    return Stage(site.stage.folder, api, site.stage.store, site.stage.scale)


def _emulated_account(site: Site) -> int:
    """Start an emulator of EC2; return its port."""
    port = free_port()
    program = str(Path(sys.executable).with_name("moto_server"))
    _started(site, "ec2", [program, "-H", "127.0.0.1", "-p", str(port)], site.stage.environment)
    _answers(f"http://127.0.0.1:{port}/moto-api/")
    return port


def _worker(site: Site, name: str) -> subprocess.Popen[bytes]:
    """Start a worker that nothing guards, so that it can be killed alone; wait until it is there.

    It is of this case's mark, and ended with it.
    """
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    with (site.folder / f"{name}.log").open("wb") as log:
        worker = subprocess.Popen(
            [*command, "--type", "process", "--name", name],
            cwd=PROJECT,
            stdout=log,
            stderr=log,
            env={
                **site.stage.environment,
                **site.own_environment(),
                "PREFECT_WORKER_QUERY_SECONDS": "1",
            },
            start_new_session=True,
        )

    def end() -> None:
        worker.terminate()
        worker.wait(60)

    site.before_audit.callback(end)

    def is_there() -> bool:
        known = site.stage.ask("POST", f"/work_pools/{POOL}/workers/filter", {})
        return name in [one["name"] for one in known]

    until(is_there, within_s=UP_WITHIN_S, what=f"the worker {name}")
    return worker


def _started(site: Site, name: str, command: list[str], environment: dict[str, str]) -> None:
    process = processes.start(
        name, command, log=site.folder / f"{name}.log", environment=environment, grace_s=10
    )
    site.before_audit.callback(process.stop)


def _answers(url: str) -> None:
    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=5, trust_env=False).is_success
        return False

    until(answers, within_s=UP_WITHIN_S, what=url, every_s=0.5)
