"""Child processes that die with their parent, however it dies.

Each is started by a guardian in a session of its own, so that Ctrl-C reaches us and not them.
The lifeline is a pipe whose write end only this process holds: the kernel closes it when we
end, by SIGKILL too, and in whichever thread the child was started.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from run_store.errors import CannotRunError, DeadlineError

_log = logging.getLogger(__name__)
PROJECT = Path(__file__).resolve().parent.parent
"""Where our packages are importable from, in a checkout and in an installed wheel."""
GUARDIAN = Path(__file__).with_name("guardian.py")
GUARDIAN_GRACE_S = 15.0
"""What a guardian may need beyond its command's grace: twice its own, and some scheduling."""
_START_TOLERANCE_S = 0.05
_running: set[GuardedProcess] = set()
"""Whoever starts a process need not keep it: it ends with us, and not with a variable."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that any other can find again: pids are used again, start times are not."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the identity of a process that runs now; psutil.Error if there is none."""
        return cls(pid=pid, started=psutil.Process(pid).create_time())

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote."""
        table = json.loads(text)
        return cls(pid=int(table["pid"]), started=float(table["started"]))

    def to_json(self) -> str:
        """Return the identity as one JSON object."""
        return json.dumps({"pid": self.pid, "started": self.started})

    def find(self) -> psutil.Process | None:
        """Return the process, or None if it has ended (a zombie has)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _START_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def end(self, *, within_s: float) -> bool:
        """Send SIGTERM, and SIGKILL when `within_s` is over; return whether it runs no more."""
        for ask, wait_s in ((psutil.Process.terminate, within_s), (psutil.Process.kill, 5.0)):
            process = self.find()
            if process is None:
                return True
            with contextlib.suppress(psutil.NoSuchProcess):
                ask(process)
            if wait_until(lambda: self.find() is None, within_s=wait_s):
                return True
        return False


class GuardedProcess:
    """A running command and its guardian. `start` starts one."""

    def __init__(
        self, name: str, guardian: subprocess.Popen[bytes], *, log: Path, grace_s: float
    ) -> None:
        self.name = name
        self.log = log
        self.identity = ProcessIdentity.of(guardian.pid)
        self._guardian = guardian
        self._grace_s = grace_s

    def exit_code(self) -> int | None:
        """Return the command's exit code (128 + n for signal n); None while it runs."""
        return self._guardian.poll()

    def stop(self) -> int | None:
        """End the command and all below it; return its exit code. May be called again."""
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._guardian.wait(self._grace_s + GUARDIAN_GRACE_S)
        _log.warning("The guardian of %s did not end by itself.", self.name)
        self._guardian.kill()
        return self._guardian.wait()

    def tail(self, lines: int = 8) -> str:
        """Return the last lines of its log, for an error message."""
        return tail(self.log, lines)


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    output: Path | None = None,
    environment: Mapping[str, str] | None = None,
    grace_s: float = 10.0,
) -> GuardedProcess:
    """Start a command that ends when this process ends.

    Both streams go to `log`; stdout goes to `output` if that is given. `environment` replaces
    ours. `grace_s` is the time between SIGTERM and SIGKILL. Raises CannotRunError.
    """
    guardian = start_guardian(
        command,
        log=log,
        output=output,
        environment=environment,
        grace_s=grace_s,
        lifeline=subprocess.PIPE,
    )
    process = GuardedProcess(name, guardian, log=log, grace_s=grace_s)
    _running.difference_update([one for one in list(_running) if one.exit_code() is not None])
    _running.add(process)
    return process


def start_guardian(
    command: Sequence[str | Path],
    *,
    log: Path,
    lifeline: int,
    output: Path | None = None,
    environment: Mapping[str, str] | None = None,
    grace_s: float = 10.0,
    options: Sequence[str | Path] = (),
) -> subprocess.Popen[bytes]:
    """Start a guardian for a command; `lifeline` is its stdin."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = ["-P", GUARDIAN, "--grace-s", str(grace_s), *options, "--", *command]
    with contextlib.ExitStack() as files:
        to_log = files.enter_context(log.open("ab"))
        to_output = files.enter_context(output.open("wb")) if output else to_log
        try:
            return subprocess.Popen(
                [sys.executable, *map(str, words)],
                stdin=lifeline,
                stdout=to_output,
                stderr=to_log,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise CannotRunError(f"{command[0]} could not be started: {error}.") from error


def own_environment(**more: str) -> dict[str, str]:
    """Return our environment, made so that our own packages can be imported in a child."""
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def wait_for_line(process: GuardedProcess, output: Path, *, within_s: float) -> str:
    """Return the first line that a process writes to `output`.

    Raises CannotRunError with the end of its log if it ends before, DeadlineError if nothing
    comes in time.
    """
    deadline = time.monotonic() + within_s
    while True:
        ended = process.exit_code()
        line, newline, _ = output.read_text(encoding="utf-8", errors="replace").partition("\n")
        if newline:
            return line
        if ended is not None:
            raise CannotRunError(
                f"{process.name} ended with exit code {ended} before it was ready.",
                hint=f"The end of {process.log}:\n{process.tail()}",
            )
        if time.monotonic() > deadline:
            raise DeadlineError(
                f"{process.name} was not ready within {within_s:g} s.", hint=f"See {process.log}."
            )
        time.sleep(0.02)


def wait_until(condition: Callable[[], bool], *, within_s: float, every_s: float = 0.05) -> bool:
    """Return whether `condition()` came true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def tail(file: Path, lines: int = 8) -> str:
    """Return the last lines of a text file; nothing if it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
