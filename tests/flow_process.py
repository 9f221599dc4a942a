"""A flow in a process of its own, which a test can send signals to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Any

import psutil

from run_store.messages import RunRecord
from tasks.processes import own_environment
from tests.waiting import wait_for

MARK = "RELAY_LOAD_TEST_MARK"
SCRIPT = textwrap.dedent(
    """
    import asyncio, json, sys
    from flows.capacity import relay_capacity
    from flows.relay_load import relay_load
    from run_store.errors import RelayLoadError
    flow = {"relay_load": relay_load, "relay_capacity": relay_capacity}[sys.argv[1]]
    try:
        asyncio.run(flow(**json.loads(sys.argv[2])))
    except RelayLoadError as error:
        print("ENDED WITH", type(error).__name__, error, flush=True)
        sys.exit(error.exit_code)
    """
)
BRIEF = {
    "connections": 6,
    "phases.warmup.duration": "1s",
    "phases.warmup.connections": 2,
    "phases.ramp-up.duration": "2s",
    "phases.sustained.duration": "3s",
    "phases.cooldown.duration": "1s",
}
"""A local run of seven seconds of load."""
LONG = """
connections = 6
own_relay = true
phases.load = { kind = "sustained", duration = "300s", edits_per_minute = 120 }
phases.cooldown = { kind = "cooldown", duration = "1s" }
"""
"""A scenario that is soon in its load, and stays in it for as long as a test can need."""


def with_mark(mark: str) -> list[psutil.Process]:
    """Return all processes that inherited a mark, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
            if alive and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def agents(mark: str) -> dict[str, psutil.Process]:
    """Return the agents by their workers' names; their guardians are not among them."""
    found = {}
    for process in with_mark(mark):
        words = process.cmdline()
        if "worker_agent" in words and not any("guardian.py" in word for word in words):
            found[Path(words[-1]).parent.name] = process
    return found


def run_record(results: Path) -> RunRecord:
    """Return `run.json` of the only run in a results folder."""
    [file] = (results / "store/relay-load/runs").glob("*/run.json")
    return RunRecord.model_validate_json(file.read_bytes())


class FlowProcess:
    """A flow, with a long load unless it is told otherwise, in a session of its own.

    Its log is read as it comes.
    """

    def __init__(self, folder: Path, flow: str = "relay_load", **parameters: Any) -> None:
        self.results = folder / "results"
        self.mark = uuid.uuid4().hex
        self._log = folder / "flow.log"
        scenario = folder / "long.toml"
        scenario.write_text(LONG, encoding="utf-8")
        given = {"scenario": str(scenario), "results": str(self.results), **parameters}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, flow, json.dumps(given)],
                stdout=log,
                stderr=log,
                env=own_environment(**{MARK: self.mark}),
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until it has written a text."""
        wait_for(
            lambda: text in self.said or self._process.poll() is not None,
            within_s=200,
            why=lambda: f"{text!r} in\n{self.said}",
        )
        assert text in self.said, self.said

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, and it alone."""
        self._process.send_signal(number)

    def wait(self, within_s: float = 200) -> int:
        """Return its exit code."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.said}") from None

    def left(self) -> list[str]:
        """Return what it left behind, as text."""
        return [str(process) for process in with_mark(self.mark)]

    def clean(self) -> None:
        """End what is left, for the sake of the tests behind."""
        for process in with_mark(self.mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
