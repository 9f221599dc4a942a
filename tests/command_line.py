"""The command line as a user has it: a real process, with an environment of the test's own."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from run_store.store import StoreAddress

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).parent / "relay-load"
SHORT = {
    "connections": 6,
    "phases.warmup.duration": "2s",
    "phases.ramp-up.duration": "2s",
    "phases.sustained.duration": "4s",
    "phases.cooldown.duration": "1s",
}
"""What makes the local scenario a matter of seconds."""
_USERS_OWN = ("PREFECT_", "RELAY_", "AWS_", "PLAYWRIGHT_")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What it wrote to stderr, without line ends, which depend on a terminal's width."""
        return " ".join(self.err.split())


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment without anything that the user of this machine has set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_USERS_OWN)}
    chromium = {key: value for key, value in os.environ.items() if key == "RELAY_LOAD_CHROMIUM"}
    return {**kept, **chromium, "HOME": str(home), "COLUMNS": "200", "TERM": "dumb", **more}


def relay_load(
    *arguments: str,
    cwd: Path,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = 180,
) -> Ended:
    """Run `relay-load` to its end, in a folder and with a home of the test's own.

    Its process is forked from one that has imported most of it: that takes a second or two.
    """
    starter = _starter()
    assert starter.stdin is not None
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, name) for name in ("out", "err")}
        for file in files.values():
            file.touch()
        command = {
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": environment(cwd, **(variables or {})),
            **{name: str(file) for name, file in files.items()},
        }
        starter.stdin.write(json.dumps(command) + "\n")
        starter.stdin.flush()
        code = _exit_code(starter, timeout_s)
        out, err = (file.read_text(encoding="utf-8") for file in files.values())
    assert "Traceback" not in err, err
    return Ended(code, out, err)


@functools.cache
def _starter() -> subprocess.Popen[str]:
    """Return what starts the commands of this process's tests; it ends with this process."""
    starter = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("command_starter.py"))],
        env=environment(Path(os.devnull), PYTHONPATH=str(ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(starter.communicate)
    return starter


def _exit_code(starter: subprocess.Popen[str], within_s: float) -> int:
    """Read what became of the command that was started last; end it when its time is over."""
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    overtime = threading.Timer(within_s, os.kill, (pid, signal.SIGKILL))
    overtime.start()
    try:
        code = int(starter.stdout.readline())
    finally:
        overtime.cancel()
    assert code != -signal.SIGKILL, f"relay-load did not end within {within_s:g} s"
    return code


def overrides(**more: object) -> list[str]:
    """Return `--set` arguments for a short run, with more of them."""
    words = {**SHORT, **more}
    return [word for key, value in words.items() for word in ("--set", f"{key}={value}")]


def store_arguments(address: StoreAddress) -> list[str]:
    """Return `--store` for an address; its endpoint and keys come by `store_environment`."""
    return ["--store", address.url]


def store_environment(address: StoreAddress) -> dict[str, str]:
    """Return what the usual AWS places say of an address."""
    keys = address.secrets()
    assert keys is not None
    assert address.endpoint_url is not None
    return {
        "AWS_ENDPOINT_URL": address.endpoint_url,
        "AWS_ACCESS_KEY_ID": keys[0],
        "AWS_SECRET_ACCESS_KEY": keys[1],
    }


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that work in, or were told of, a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            words = [*command, process.cwd(), process.environ().get("HOME", "")]
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(" ".join(command))
    return found
