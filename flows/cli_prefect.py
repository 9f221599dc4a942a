"""The Prefect API that a run from the command line uses: the user's own, or one for this run.

Prefect would start a server by itself, in our process group: Ctrl-C would end it before the flow
could tear down. So ours is a guarded child. Everything here happens before Prefect is imported,
because Prefect reads its settings once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from flows.early_interrupts import remembered_interrupts
from run_store.errors import CannotRunError, DeadlineError
from tasks import locks, processes
from tasks.local_services import free_port

SERVER_READY_WITHIN_S = 180.0
"""The first start makes the database: 12 s on an idle machine, minutes on a busy one."""
SENT_WITHIN_S = 5.0
QUIET = {
    # It fails without internet, and a load test is nobody else's business.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_PROMPT": "false",
}


def connected_api_url(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the API that the user has connected Prefect to, or None.

    By PREFECT_API_URL, `prefect.toml` in this folder, or the active profile, in this order.
    """
    if url := environment.get("PREFECT_API_URL"):
        return url
    if url := _at(_toml(Path("prefect.toml")), "api", "url"):
        return url
    home = Path(environment.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    profiles = _toml(Path(environment.get("PREFECT_PROFILES_PATH") or home / "profiles.toml"))
    active = environment.get("PREFECT_PROFILE") or profiles.get("active")
    return _at(profiles, "profiles", active, "PREFECT_API_URL")


@contextlib.contextmanager
def prefect_api(results: Path, *, say: Callable[[str], None]) -> Iterator[str]:
    """Have a Prefect API for flows of this process; gives its address.

    One that the user connected Prefect to is used as it is. Else a server is started whose
    database is in `results/prefect/`, where every run of this folder is kept. Raises
    CannotRunError or DeadlineError.
    """
    connected = connected_api_url()
    if connected is not None:
        check_api(connected)
        yield connected
        return
    use_home_in(results)
    say("starting Prefect (about 15 s the first time, 5 s later)...")
    with prefect_server(results, port=free_port(), ui=False) as url:
        os.environ.update(QUIET, PREFECT_API_URL=url)
        try:
            yield url
        finally:
            _send_the_rest()


def use_home_in(results: Path) -> Path:
    """Have Prefect keep its things in the results folder, unless the user chose a place."""
    home = Path(os.environ.setdefault("PREFECT_HOME", str((results / "prefect").resolve())))
    home.mkdir(parents=True, exist_ok=True)
    return home


@contextlib.contextmanager
def prefect_server(results: Path, *, port: int, ui: bool) -> Iterator[str]:
    """Run a Prefect server for as long as the `with`, and give its API's address.

    Raises CannotRunError with the end of its log if it does not start.
    """
    home = use_home_in(results)
    spec = find_spec("prefect")
    if spec is None or not spec.submodule_search_locations:
        raise CannotRunError("Prefect is not installed.", hint="Run `make setup`.")
    command = [sys.executable, "-m", "uvicorn", "--app-dir", spec.submodule_search_locations[0]]
    command += ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--log-level", "error", "--lifespan", "on"]
    own = {**os.environ, **QUIET, "PREFECT_HOME": str(home), "PREFECT__SERVER_FINAL": "1"}
    own["PREFECT_UI_ENABLED"] = str(int(ui))
    url = f"http://127.0.0.1:{port}/api"
    # What the UI's own script calls; without it, it asks a port of Prefect's choosing.
    own["PREFECT_UI_API_URL"] = url
    own.pop("PREFECT_API_URL", None)
    if not ui:
        own["PREFECT__SERVER_EPHEMERAL"] = "1"
    log = home / "server.log"
    # Two servers that both bring the database up to date would lock each other out.
    with contextlib.ExitStack() as starting:
        raise_if_interrupted = starting.enter_context(remembered_interrupts())
        starting.enter_context(
            locks.held(home / "starting.lock", within_s=SERVER_READY_WITHIN_S),
        )
        server = processes.start("Prefect's server", command, log=log, environment=own, grace_s=5)
        try:
            _wait_until_healthy(server, url, raise_if_interrupted)
        except BaseException:
            server.stop()
            raise
    try:
        yield url
    finally:
        server.stop()


def _wait_until_healthy(
    server: processes.GuardedProcess, url: str, raise_if_interrupted: Callable[[], None]
) -> None:
    deadline = time.monotonic() + SERVER_READY_WITHIN_S
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            raise_if_interrupted()
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"{url}/health").is_success:
                    return
            if server.exit_code() is not None:
                raise CannotRunError(
                    f"Prefect's server ended with exit code {server.exit_code()}.",
                    hint=f"The end of {server.log}:\n{server.tail()}",
                )
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"Prefect's server was not ready within {SERVER_READY_WITHIN_S:g} s.",
                    hint=f"See {server.log}.",
                )
            time.sleep(0.1)


def _send_the_rest() -> None:
    """Send the log lines and events that wait for their turn, while the server is there.

    Left to the end of the process, Prefect would try for a minute to reach a server that is gone.
    """
    # Not imported before a flow has been: then there is nothing to send.
    handlers = sys.modules.get("prefect.logging.handlers")
    events = sys.modules.get("prefect.events.worker")
    if handlers is not None:
        handlers.APILogWorker.drain_all(timeout=SENT_WITHIN_S)
    if events is not None:
        events.EventsWorker.drain_all(timeout=SENT_WITHIN_S)


def check_api(url: str) -> None:
    """Raise CannotRunError unless something answers at a Prefect API's address."""
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CannotRunError(
            f"Prefect's API {url} does not answer: {error}.",
            hint="Start it, or run without one of your own: unset PREFECT_API_URL, "
            "or `prefect profile use ephemeral`.",
        ) from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # Prefect itself will say what is wrong with it


def _at(table: Any, *keys: Any) -> str | None:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, str) and table else None
