"""The guardian of one child process: nothing below it outlives it, however anyone dies.

    python guardian.py [--grace-s S] [--until-unlocked FILE] [--then-delete FILE] -- COMMAND...

It is two processes. The outer one holds the lifeline: the read end of a pipe on stdin, whose
end of file says that whoever started it is gone (or, with `--until-unlocked`, a file on which
each user holds a shared lock). The inner one starts the command. Both are subreapers, so that
what the command leaves behind comes to them and not to init.

    who dies               what follows
    the starter            end of file: the command gets SIGTERM, and SIGKILL after the grace
    the command            the inner one kills what it left behind, and ends with its exit code
    the inner guardian     the kernel kills the command; the outer one kills all that is left
    the outer guardian     the kernel sends SIGTERM to the inner one, which ends the rest

SIGTERM to the outer guardian ends the command in the same way as the end of its lifeline. This
file uses nothing but the standard library and Linux, and is run by its path: it starts quickly.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_LOCK_POLL_S = 0.5
_EXTRA_GRACE_S = 5.0
"""What the outer one gives the inner one beyond the command's own grace."""


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def _die_with_parent(parent: int, with_signal: int) -> None:
    """Have the kernel signal this process when its parent ends; it may have ended already."""
    _prctl(_SET_PDEATHSIG, with_signal)
    if os.getppid() != parent:
        os.kill(os.getpid(), with_signal)


class _Wakes:
    """Signals as something to wait for: SIGTERM is remembered, SIGCHLD only wakes."""

    def __init__(self) -> None:
        self.asked_to_end = False
        self._read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _on_term(self, *_: object) -> None:
        self.asked_to_end = True

    def wait(self, timeout_s: float | None, *files: int) -> set[int]:
        """Sleep until a signal, the timeout, or one of `files` is readable; return those."""
        ready, _, _ = select.select([self._read, *files], [], [], timeout_s)
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)
        return set(ready) - {self._read}


def _fork() -> int:
    """Fork with SIGTERM held back in both processes until each lets it in.

    The child has our handler until it has set its own: a SIGTERM in between would be lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    return os.fork()


def _let_term_in() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _reap() -> dict[int, int]:
    """Collect children that have ended; return their exit codes (128 + n for signal n)."""
    codes: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(status)
            codes[pid] = code if code >= 0 else 128 - code
    return codes


def _children_by_parent() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name may hold anything, so the fields are counted from its last bracket.
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _descendants() -> Iterator[int]:
    children = _children_by_parent()
    waiting = children.get(os.getpid(), [])
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _kill_descendants() -> None:
    """Kill all that is below this process, until there is nothing more.

    The children of one that was killed come to us, so a new look finds those that were made
    between the look before and the kill.
    """
    deadline = time.monotonic() + _EXTRA_GRACE_S
    while time.monotonic() < deadline:
        _reap()
        found = list(_descendants())
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _end(wakes: _Wakes, pid: int, grace_s: float) -> int:
    """Ask a child to end; return its exit code once it has, or after the grace."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (left_s := deadline - time.monotonic()) > 0:
        codes = _reap()
        if pid in codes:
            return codes[pid]
        wakes.wait(left_s)
    # It may have ended while we were kept from looking.
    return _reap().get(pid, 128 + signal.SIGKILL)


def _inner(outer: int, command: list[str], grace_s: float) -> NoReturn:
    """Start the command, wait for it, and leave nothing behind."""
    wakes = _Wakes()
    _die_with_parent(outer, signal.SIGTERM)
    _prctl(_SET_CHILD_SUBREAPER, 1)
    me = os.getpid()
    pid = _fork()
    if pid == 0:
        _become(me, command)
    _let_term_in()
    code = None
    while code is None:
        code = _reap().get(pid)
        if code is None and wakes.asked_to_end:
            code = _end(wakes, pid, grace_s)
        elif code is None:
            wakes.wait(None)
    _kill_descendants()
    os._exit(code)


def _become(inner: int, command: list[str]) -> NoReturn:
    """Turn the child of the inner guardian into the command."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        _let_term_in()
        os.setpgid(0, 0)
        _die_with_parent(inner, signal.SIGKILL)
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _unlocked(lock: int) -> bool:
    """Say whether nobody uses the lock any more; if so it is ours from now on."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _outer(inner: int, wakes: _Wakes, lock: int | None, grace_s: float) -> int:
    """Wait for the end of the lifeline or of the inner guardian; return the exit code."""
    lifeline = [0] if lock is None else []
    while True:
        codes = _reap()
        if inner in codes:
            return codes[inner]
        ended = wakes.asked_to_end or (lock is not None and _unlocked(lock))
        if not ended and wakes.wait(None if lock is None else _LOCK_POLL_S, *lifeline):
            ended = os.read(0, 4096) == b""
        if ended:
            return _end(wakes, inner, grace_s + _EXTRA_GRACE_S)


def main(arguments: list[str]) -> int:
    """Guard one command; return its exit code."""
    parser = argparse.ArgumentParser(prog="guardian")
    parser.add_argument("--grace-s", type=float, default=10.0)
    parser.add_argument("--until-unlocked", type=Path)
    parser.add_argument("--then-delete", type=Path)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    # Ctrl-C and a closing terminal are for whoever started us; we follow its lifeline.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lock = os.open(given.until_unlocked, os.O_RDWR) if given.until_unlocked else None
    _prctl(_SET_CHILD_SUBREAPER, 1)
    wakes = _Wakes()
    me = os.getpid()
    inner = _fork()
    if inner == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            if lock is not None:
                os.close(lock)
            os.setpgid(0, 0)
            _inner(me, given.command, given.grace_s)
        finally:
            os._exit(127)
    _let_term_in()
    code = _outer(inner, wakes, lock, given.grace_s)
    _kill_descendants()
    if given.then_delete is not None:
        given.then_delete.unlink(missing_ok=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
