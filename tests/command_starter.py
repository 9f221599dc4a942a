"""Starts `relay-load` in processes of their own, which need not import what all of them do.

Reads one command as JSON from each line of stdin: its arguments, folder, environment, and the
files for its output. Forks for each, and writes the process's id, then its exit code. What reads
its environment when it is imported, as Prefect does, is left to the command itself.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from flows.cli import main

SHARED = ("reports.build", "run_store.store", "scenarios.loading")
"""What commands import when they are called."""


def run(command: dict[str, Any]) -> None:
    """Be the command, in a process that is its own; never returns."""
    code = 1
    try:
        os.chdir(command["cwd"])
        os.environ.clear()
        os.environ.update(command["environment"])
        files = [os.open(os.devnull, os.O_RDONLY)]
        files += [os.open(command[name], os.O_WRONLY) for name in ("out", "err")]
        for number, file in enumerate(files):
            os.dup2(file, number)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
            for number, mode in enumerate("rww")
        )
        sys.argv = ["relay-load", *command["arguments"]]
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Start what is asked for, one after another, until nobody asks any more."""
    for name in SHARED:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
        tell(pid)
        tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def tell(number: int) -> None:
    """Write a number for whoever asked."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
