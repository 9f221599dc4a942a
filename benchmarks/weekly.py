"""The weekly search, tried for real: a schedule fires, the trend grows, a slower relay is told.

    python -m benchmarks.weekly

`relay-load up` runs Prefect's server and a worker; the deployment `relay-capacity/weekly` gets a
schedule that is due a minute or two ahead, with a short search of a local relay as its
parameters. What the scheduler starts is the first run. Two more follow against the same relay,
and one after its time to serve a message was raised by half.

The last line is a JSON object: `fired` (the schedule's run ended Completed), `points` in the
trend after each run, `unchanged_reported` and `slower_reported` (whether the third and the fourth
run were called a regression), `event` (Prefect has its event), `capacities`. It fails unless the
slower relay was reported, the unchanged one was not, and the trend grew by one point each time.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tasks.local_services import free_port
from tests.command_line import environment, relay_load
from tests.relay_process import start_relay
from tests.test_up import started
from tests.waiting import wait_for

SERVICE_MS = 8.0
SLOWER = 1.5
EVENT = "relay-load.capacity.regressed"
SEARCH = {
    "scenario": "local",
    "fleet": "local",
    "max_usd": None,
    "over": "edits",
    "start": 12.0,
    "limit": 96.0,
    "precision": 0.1,
    "hold": "4s",
    "settle": "2s",
    "objectives": ["delivery_ms.p95 < 400"],
    "overrides": {"connections": 32, "connections_per_document": 4, "fleet.workers": 1},
}
RUN_WITHIN_S = 420
_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def asked(api: str, path: str, body: dict[str, Any]) -> Any:
    """Ask Prefect's API; return its answer."""
    answer = httpx.post(f"{api}{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def points(folder: Path) -> list[dict[str, Any]]:
    """Return the trend's points, as `relay-load trend --json` prints them."""
    told = relay_load("trend", "local", "--json", cwd=folder)
    found = json.loads(told.out)
    return list(found["runs"])


def scheduled_run(api: str, deployment: str, parameters: dict[str, Any]) -> str:
    """Give the deployment a schedule that is due soon; return how the run that it makes ends."""
    due = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=75)
    schedule = {"cron": f"{due.minute} {due.hour} * * *", "timezone": "UTC"}
    asked(
        api,
        f"/deployments/{deployment}/schedules",
        [{"active": True, "schedule": schedule, "parameters": parameters}],  # type: ignore[arg-type]
    )
    runs = {
        "flow_runs": {"deployment_id": {"any_": [deployment]}},
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": 1,
    }
    states: list[str] = []

    def has_ended() -> bool:
        states[:] = [run["state_type"] for run in asked(api, "/flow_runs/filter", runs)]
        return bool(states) and states[0] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    wait_for(has_ended, within_s=RUN_WITHIN_S, why=lambda: states)
    return states[0]


def run_now(api: str, folder: Path, parameters: dict[str, Any]) -> bool:
    """Run the deployment as its user does; return whether the run ended as a regression."""
    told = subprocess.run(
        [
            *(sys.executable, "-m", "prefect", "deployment", "run", "relay-capacity/weekly"),
            *("--params", json.dumps(parameters), "--watch"),
        ],
        cwd=folder,
        env=environment(folder, PREFECT_API_URL=api),
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN_S,
        check=False,
    )
    # Not "the newest run": the sweep has runs of its own, and some that are only due.
    named = _RUN.search(told.stdout)
    if named is None:
        raise SystemExit(f"Prefect started no run:\n{told.stdout}{told.stderr}")
    state = httpx.get(f"{api}/flow_runs/{named[0]}", timeout=30).json()["state"]
    print(f"{state['name']}: {state['message']}", file=sys.stderr, flush=True)
    return state["type"] == "FAILED" and "CapacityRegressedError" in state["message"]


def measured(folder: Path) -> dict[str, Any]:
    """Carry it out; return the figures."""
    ports = ["--port", str(free_port()), "--relay-port", str(free_port())]
    flags = ("--service-ms", str(SERVICE_MS), "--service-noise", "0.3")
    with started(folder, *ports) as (up, log), start_relay(*flags) as relay:
        wait_for(
            lambda: "Ctrl-C stops all of this" in log.read_text() or up.poll() is not None,
            within_s=180,
        )
        address = re.search(r"Prefect's UI: (\S+)", log.read_text())
        if address is None:
            raise SystemExit(log.read_text())
        api = f"{address[1]}/api"
        [deployment] = asked(
            api, "/deployments/filter", {"deployments": {"name": {"any_": ["weekly"]}}}
        )
        parameters = {**SEARCH, "relay_url": relay.url}
        first = scheduled_run(api, deployment["id"], parameters)
        grown = [len(points(folder))]
        unchanged = []
        for _ in range(2):
            unchanged.append(run_now(api, folder, parameters))
            grown.append(len(points(folder)))
        relay.set_faults(service_ms=SERVICE_MS * SLOWER)
        slower = run_now(api, folder, parameters)
        grown.append(len(points(folder)))
        events = asked(api, "/events/filter", {"filter": {"event": {"name": [EVENT]}}})
        return {
            "fired": first == "COMPLETED",
            "points": grown,
            "unchanged_reported": any(unchanged),
            "slower_reported": slower,
            "event": len(events["events"]),
            "capacities": [point.get("capacity") for point in points(folder)],
            "exit_code_of_trend": relay_load("trend", "local", cwd=folder).code,
        }


def main() -> int:
    """Print the figures; return 1 if the weekly run did not do what it is for."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        figures = measured(Path(name))
    print(json.dumps({**figures, "seconds": round(time.monotonic() - began)}))
    good = figures["fired"] and figures["slower_reported"] and not figures["unchanged_reported"]
    return 0 if good and figures["points"] == [1, 2, 3, 4] and figures["event"] else 1


if __name__ == "__main__":
    sys.exit(main())
