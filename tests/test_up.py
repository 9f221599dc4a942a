"""`relay-load up`: everything for runs from Prefect's UI, on one machine, until Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.local_services import free_port
from tests.command_line import PROGRAM, SHORT, environment, processes_of, relay_load
from tests.waiting import wait_for

DEPLOYMENTS = ["baseline", "heavy", "local", "moderate", "stress", "sweep", "weekly"]


@contextmanager
def started(
    folder: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start `relay-load up`, as a terminal does; end it if the test did not."""
    log = folder / "up.log"
    with log.open("w") as output:
        up = subprocess.Popen(
            [str(PROGRAM), "up", *arguments],
            cwd=folder,
            env=environment(folder, **(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            yield up, log
        finally:
            if up.poll() is None:
                up.send_signal(signal.SIGTERM)
                up.wait(120)


def api_of(up: subprocess.Popen[str], log: Path) -> str:
    """Wait until everything is there; return the address of Prefect's API."""
    wait_for(
        lambda: "Ctrl-C stops all of this" in log.read_text() or up.poll() is not None,
        within_s=180,
    )
    address = re.search(r"Prefect's UI: (\S+)", log.read_text())
    assert address, log.read_text()
    return f"{address[1]}/api"


def relay_of(log: Path) -> str:
    """Return the address of the relay that `up` has started."""
    relay = re.search(r"The local relay: (\S+)", log.read_text())
    assert relay, log.read_text()
    return relay[1]


def run_deployment(folder: Path, api: str, name: str, **parameters: object) -> None:
    """Run a deployment as its user does, and see it complete."""
    given = (f"{key}={json.dumps(value)}" for key, value in parameters.items())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "prefect", "deployment", "run", name),
            *(word for text in given for word in ("--param", text)),
            "--watch",
        ],
        cwd=folder,
        env=environment(folder, PREFECT_API_URL=api),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    worker_log = folder / "results" / "prefect" / "worker.log"
    assert "'Completed'" in done.stdout, done.stdout + worker_log.read_text()[-4000:]


def scheduled_runs(api: str) -> list[str]:
    """Return the flow runs that wait for their time."""
    asked = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    return [run["name"] for run in httpx.post(f"{api}/flow_runs/filter", json=asked).json()]


def deployment(api: str, name: str) -> dict[str, Any]:
    """Return the deployment of that name."""
    [found] = httpx.post(
        f"{api}/deployments/filter", json={"deployments": {"name": {"any_": [name]}}}
    ).json()
    return dict(found)


def switch_on_weekly(api: str) -> None:
    """Do what a user of the weekly search does in Prefect's UI."""
    weekly = deployment(api, "weekly")
    url = f"{api}/deployments/{weekly['id']}"
    [schedule] = weekly["schedules"]
    on = httpx.patch(f"{url}/schedules/{schedule['id']}", json={"active": True})
    parameters = {**weekly["parameters"], "relay_url": "ws://relay.test/"}
    told = httpx.patch(url, json={"parameters": parameters})
    assert (on.is_success, told.is_success) == (True, True)


@pytest.mark.slow
@pytest.mark.flow
@pytest.mark.timeout(300)
def test_all_deployments_are_there_and_keep_what_a_user_chose(tmp_path: Path) -> None:
    """The server makes runs of what has a schedule, and nothing stays after Ctrl-C.

    Registering once more leaves a schedule on that was switched on, and a parameter that was set.
    """
    ports = ["--port", str(free_port()), "--relay-port", str(free_port())]
    with started(tmp_path, *ports) as (up, log):
        api = api_of(up, log)
        assert httpx.get(api.removesuffix("/api")).is_success
        found = httpx.post(f"{api}/deployments/filter", json={}).json()
        assert sorted(entry["name"] for entry in found) == DEPLOYMENTS
        assert {entry["concurrency_options"]["collision_strategy"] for entry in found} == {
            "ENQUEUE"
        }
        switch_on_weekly(api)
        registered = relay_load("install", cwd=tmp_path, variables={"PREFECT_API_URL": api})
        assert "deployment relay-capacity/weekly, scheduled 0 6 * * 1\n" in registered.out
        weekly = deployment(api, "weekly")
        assert [one["active"] for one in weekly["schedules"]] == [True]
        assert weekly["parameters"]["relay_url"] == "ws://relay.test/"
        assert weekly["parameters"]["max_usd"] == 10
        # The sweep has a schedule: the server itself must make runs of it.
        wait_for(lambda: scheduled_runs(api), within_s=60)
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    wait_for(lambda: not processes_of(tmp_path), why=lambda: processes_of(tmp_path))


@pytest.mark.slow
@pytest.mark.flow
@pytest.mark.browser
@pytest.mark.timeout(420)
def test_a_deployment_runs_to_its_report(tmp_path: Path) -> None:
    """It loads the relay that `up` has, and its report lies in the folder where `up` stands."""
    ports = ["--port", str(free_port()), "--relay-port", str(free_port())]
    with started(tmp_path, *ports) as (up, log):
        run_deployment(tmp_path, api_of(up, log), "relay-load/local", overrides=SHORT)
        assert len(list(tmp_path.glob("results/local-*/report.html"))) == 1
        run = json.loads(relay_load("runs", "--json", cwd=tmp_path).out)[0]
        assert (run["verdict"], run["relay_url"]) == ("passed", relay_of(log))
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    wait_for(lambda: not processes_of(tmp_path), why=lambda: processes_of(tmp_path))


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    """A relay that cannot have the port it was given ends `up` with 1, and nothing stays."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = relay_load("up", "--relay-port", port, cwd=tmp_path)
    assert ended.code == 1
    assert "The local relay does not start" in ended.told
    wait_for(lambda: not processes_of(tmp_path), why=lambda: processes_of(tmp_path))
