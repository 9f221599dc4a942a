"""The command line as a user has it: a real process, with an environment of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
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
    timeout_s: float = 60,
) -> Ended:
    """Run `relay-load` to its end, in a folder and with a home of the test's own."""
    done = subprocess.run(
        [str(PROGRAM), *arguments],
        cwd=cwd,
        env=environment(cwd, **(variables or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


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
