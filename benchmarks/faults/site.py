"""Where one case plays: a run of its own, what is done to it, and what can be seen of it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

from benchmarks.faults.case import HungError
from benchmarks.faults.stage import Stage, as_plan
from run_store.layout import RUNS, RunLayout
from run_store.store import Store
from tasks.processes import PROJECT
from tests.flow_process import MARK, with_mark

T = TypeVar("T")
ENDS_WITHIN_S = 120.0
SWEPT_AFTER_S = 3.0
SWEEP = """
import json, sys
from flows import sweep
sweep.has_account = lambda _: False  # the environment's keys are the S3 server's
sweep.sweep(**json.loads(sys.argv[1]))
"""
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def until(condition: Callable[[], T], *, within_s: float, what: str, every_s: float = 0.1) -> T:
    """Return a condition's first true value; HungError if none comes in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise HungError(f"{what}: not within {within_s:g} s")
        time.sleep(every_s)
    return value


class Site:
    """One case's folder, mark, prefix in the bucket, and runs."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.mark = uuid.uuid4().hex
        self.folder = stage.folder / "cases" / name.replace("/", "-").replace(" ", "-")
        self.results = self.folder / "results"
        self.ledger = self.folder / "ledger"
        self.ledger.mkdir(parents=True)
        self.prefix = uuid.uuid4().hex[:12]
        self.plan: dict[str, Any] = {"ledger": str(self.ledger)}
        self.environment: dict[str, str] = {}
        self.parameters: dict[str, Any] = {
            "scenario": str(stage.scenario),
            "results": str(self.results),
            "store": f"s3://relay-load/{self.prefix}",
        }
        self.overrides: dict[str, Any] = {}
        self.flow_run = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.closing = contextlib.ExitStack()
        self.before_audit = contextlib.ExitStack()
        self.names: list[str] = []
        self.problems: list[str] = []
        self.left: list[str] = []

    # What a case does.

    def plainly(self) -> None:
        """Start the flow in a process of its own, which no worker looks after."""
        with (self.folder / "flow.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.faults.child", json.dumps(self._given())],
                cwd=PROJECT,
                stdout=log,
                stderr=log,
                env={**self.stage.environment, **self.own_environment()},
                start_new_session=True,
            )

    def deployed(self, deployment: str = "") -> None:
        """Have a worker start the flow, as a click in Prefect's UI does."""
        made = self.stage.ask(
            "POST",
            f"/deployments/{deployment or self.stage.deployment()}/create_flow_run",
            {
                "parameters": self._given(),
                "state": {"type": "SCHEDULED"},
                "job_variables": {"env": self.own_environment()},
                "enforce_parameter_schema": False,
            },
        )
        self.flow_run = made["id"]

    def cancel(self) -> None:
        """Cancel the flow run through Prefect's API."""
        body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        self.stage.ask("POST", f"/flow_runs/{self.flow_run}/set_state", body)

    def retry(self) -> None:
        """Have the flow run tried again, as the button in Prefect's UI does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        self.stage.ask("POST", f"/flow_runs/{self.flow_run}/set_state", {"state": state})
        if self.state_type() in TERMINAL:
            raise HungError(f"Prefect does not take the retry: {self.state()}")

    def send(self, number: signal.Signals) -> None:
        """Send the flow's process a signal, and it alone."""
        process = self.flow_process()
        if process is not None:
            process.send_signal(number)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop the flow's process for as long as the `with`, if it is there."""
        process = self.flow_process()
        if process is None:
            yield
            return
        process.suspend()
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def wait(self, within_s: float = ENDS_WITHIN_S) -> str:
        """Wait for the end; return the exit code of a plain run, or a deployed one's state."""
        if self.process is not None:
            try:
                return f"exit {self.process.wait(within_s)}"
            except subprocess.TimeoutExpired:
                raise HungError(f"the flow runs after {within_s:g} s: {self.said()}") from None
        return until(
            lambda: self.state() if self.state_type() in TERMINAL else "",
            within_s=within_s,
            what=f"the end of flow run {self.flow_run}, {self.state()}",
            every_s=0.3,
        )

    def sweep(self) -> None:
        """Run the sweep, as its schedule does, and have it wait no minute for signs of life."""
        plan = as_plan(set={"tasks.owed:QUIET_FOR_S": SWEPT_AFTER_S})
        given = {"store": self.parameters["store"]}
        with (self.folder / "sweep.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-c", SWEEP, json.dumps(given)],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**self.stage.environment, MARK: self.mark, "RELAY_LOAD_FAULTS": plan},
                timeout=ENDS_WITHIN_S,
                check=False,
            )
        if done.returncode != 0:
            said = (self.folder / "sweep.log").read_text(errors="replace")[-800:]
            raise HungError(f"the sweep ended with {done.returncode}: {said}")

    # What a case sees.

    def said(self, characters: int = 1500) -> str:
        """Return the end of a plain run's output."""
        file = self.folder / "flow.log"
        return file.read_text(errors="replace")[-characters:] if file.exists() else ""

    def flow_process(self) -> psutil.Process | None:
        """Return the process in which the flow runs, if there is one."""
        if self.process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                return psutil.Process(self.process.pid) if self.process.poll() is None else None
            return None
        for process in with_mark(self.mark):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if {"prefect.engine", "prefect.flow_engine"} & set(words) or (
                    "flow-run" in words and "execute" in words
                ):
                    return process
        return None

    def agents(self) -> dict[str, psutil.Process]:
        """Return the agents by their workers' names; their guardians are not among them."""
        found = {}
        for process in with_mark(self.mark):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if "worker_agent" in words and not any("guardian.py" in word for word in words):
                    found[Path(words[-1]).parent.name] = process
        return found

    def store(self) -> Store:
        """Return a client of this case's part of the bucket, by the way that nothing disturbs."""
        address = self.stage.store.address.model_copy(update={"prefix": f"{self.prefix}/"})
        return Store(address, timeout_s=10, tries=5)

    def run_id(self) -> str:
        """Return the run's id; nothing before it has one."""
        names = self.store().folders(RUNS)
        return names[-1] if names else ""

    def summary(self) -> dict[str, Any]:
        """Return the report's summary from the bucket; empty if there is none."""
        run_id = self.run_id()
        body = self.store().get(RunLayout(run_id).report("summary.json")) if run_id else None
        return json.loads(body) if body else {}

    def state(self) -> str:
        """Return the name of the deployed flow run's state."""
        return str((self.stage.ask("GET", f"/flow_runs/{self.flow_run}")["state"] or {})["name"])

    def state_type(self) -> str:
        """Return the type of the deployed flow run's state."""
        return str(self.stage.ask("GET", f"/flow_runs/{self.flow_run}")["state_type"])

    def order(self, number: int, *, attempt: int = 1, within_s: float = 90) -> None:
        """Wait until an order stands in the bucket and its instant has come."""

        def there() -> bool:
            self._still()
            run_id = self.run_id()
            if not run_id:
                return False
            body = self.store().get(RunLayout(run_id).order(attempt, number))
            return body is not None and json.loads(body)["starts_at_us"] <= time.time() * 1e6

        until(there, within_s=within_s, what=f"order {number} of attempt {attempt}")

    def task(self, name: str, *, within_s: float = 90) -> None:
        """Wait until a task of the deployed flow run is running."""
        body = {
            "flow_runs": {"id": {"any_": [self.flow_run]}},
            "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}, "name": {"like_": name}},
        }
        until(
            lambda: self.stage.ask("POST", "/task_runs/filter", body),
            within_s=within_s,
            what=f"the task {name} to be running",
        )

    def times(self, task: str) -> int:
        """Return how often a task of the deployed flow run was run, in all of its attempts."""
        body = {
            "flow_runs": {"id": {"any_": [self.flow_run]}},
            "task_runs": {"name": {"like_": task}},
        }
        return len(self.stage.ask("POST", "/task_runs/filter", body))

    def must_name(self, *names: str) -> None:
        """Have the report checked for words that name what happened."""
        self.names += names

    def expect(self, holds: bool, otherwise: str) -> None:
        """Have the case fail for a reason unless something holds."""
        if not holds:
            self.problems.append(otherwise)

    def gone(self, within_s: float = 60.0) -> list[str]:
        """Return what processes of this case are left after a while, as text."""
        deadline = time.monotonic() + within_s
        while (left := with_mark(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [_said_of(process) for process in left]

    def clean(self) -> None:
        """End what is left, for the sake of the cases behind, and the case's own servers."""
        for process in with_mark(self.mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait()
        self.closing.close()

    def _still(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            raise HungError(f"the flow has ended before: {self.said()}")

    def _given(self) -> dict[str, Any]:
        return {**self.parameters, "overrides": self.overrides}

    def own_environment(self) -> dict[str, str]:
        """Return what marks a process as this case's, and what is done inside it."""
        return {MARK: self.mark, "RELAY_LOAD_FAULTS": as_plan(**self.plan), **self.environment}


def _said_of(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:160]}"
    except psutil.Error:
        return str(process.pid)
