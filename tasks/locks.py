"""Locks on files: held by a process until it lets go or ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from run_store.errors import DeadlineError
from tasks.processes import wait_until


def take(file: Path, *, shared: bool = False, within_s: float = 60.0) -> int:
    """Return a descriptor that holds a lock on a file; closing it lets go.

    The file is made if need be. Raises DeadlineError if the lock does not come free in time.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def taken() -> bool:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    got = False
    try:
        got = wait_until(taken, within_s=within_s)
    finally:
        if not got:
            os.close(descriptor)
    if not got:
        raise DeadlineError(
            f"{file} stayed locked by another process for {within_s:g} s.",
            hint=f"`fuser {file}` names it.",
        )
    return descriptor


@contextlib.contextmanager
def held(file: Path, *, within_s: float = 60.0) -> Iterator[None]:
    """Hold a file's lock, alone, for as long as a `with`."""
    descriptor = take(file, within_s=within_s)
    try:
        yield
    finally:
        os.close(descriptor)
