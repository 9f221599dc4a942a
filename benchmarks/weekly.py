"""The weekly search, tried for real: a schedule fires, the trend grows, a slower relay is told.

    python -m benchmarks.weekly

`relay-load up` runs Prefect's server and a worker; the deployment `relay-capacity/weekly` gets a
schedule that is due two minutes ahead, with a short search of a local relay as its
parameters. What the scheduler starts is the first run. Two more follow against the same relay,
and one after its time to serve a message was raised by half. The automation of docs/capacity.md is
made as it stands there, but for the address, where a web server of ours listens.

The last line is a JSON object: `fired` (the schedule's run ended Completed), `points` in the
trend after each run, `unchanged_reported` and `slower_reported` (whether the third and the fourth
run were called a regression), `event` (Prefect has its event), `alarm` (what the automation sent),
`capacities`. It fails unless the slower relay was reported, the unchanged one was not, the alarm
came, and the trend grew by one point each time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tasks.local_services import free_port
from tests.command_line import environment, relay_load
from tests.relay_process import start_relay
from tests.test_up import api_of, started
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
ALARM_WITHIN_S = 60
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "capacity.md"
HOOK_IN_DOCUMENT = "https://hooks.example.org/relay"
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
    # At least a minute and a half: a server that has just started may take most of one to look
    # at new schedules, and a run that was due before that is tomorrow's.
    due = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=150)
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


@contextmanager
def web_server() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a web server of ours, and the bodies that are posted to it."""
    bodies: list[str] = []

    class Takes(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            bodies.append(self.rfile.read(length).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Takes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/relay", bodies
    finally:
        server.shutdown()
        server.server_close()


def set_alarm(api: str, folder: Path, hook: str) -> None:
    """Make the automation of the documents, which calls `hook`."""
    text = DOCUMENT.read_text(encoding="utf-8")
    [script] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    if HOOK_IN_DOCUMENT not in script:
        raise SystemExit(f"{DOCUMENT} has no {HOOK_IN_DOCUMENT}")
    subprocess.run(
        [sys.executable, "-c", script.replace(HOOK_IN_DOCUMENT, hook)],
        cwd=folder,
        env=environment(folder, PREFECT_API_URL=api),
        timeout=120,
        check=True,
    )


def measured(folder: Path) -> dict[str, Any]:
    """Carry it out; return the figures."""
    ports = ["--port", str(free_port()), "--relay-port", str(free_port())]
    flags = ("--service-ms", str(SERVICE_MS), "--service-noise", "0.3")
    with (
        started(folder, *ports) as (up, log),
        start_relay(*flags) as relay,
        web_server() as (hook, alarms),
    ):
        api = api_of(up, log)
        [deployment] = asked(
            api, "/deployments/filter", {"deployments": {"name": {"any_": ["weekly"]}}}
        )
        set_alarm(api, folder, hook)
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
        with contextlib.suppress(AssertionError):
            wait_for(lambda: alarms, within_s=ALARM_WITHIN_S)
        events = asked(api, "/events/filter", {"filter": {"event": {"name": [EVENT]}}})
        return {
            "fired": first == "COMPLETED",
            "points": grown,
            "unchanged_reported": any(unchanged),
            "slower_reported": slower,
            "event": len(events["events"]),
            "alarm": alarms,
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
    told = figures["event"] == 1 and len(figures["alarm"]) == 1
    return 0 if good and told and figures["points"] == [1, 2, 3, 4] else 1


if __name__ == "__main__":
    sys.exit(main())
