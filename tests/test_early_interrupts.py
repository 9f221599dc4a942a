from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from flows.interrupts import Interrupts
from tasks.processes import PROJECT

LOSES_IT = """
import importlib.abc, json, signal, sys, weakref

class Something: ...

def lose_it():
    # What a weak reference's callback raises, Python prints and forgets.
    gone = Something()
    watching = weakref.ref(gone, lambda _: signal.raise_signal(signal.SIGINT))
    del gone

def turn_it():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        raise ValueError("a library made this of it") from error

class LoseItOnTheWay(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "tasks.teardown":
            lose_it()

"""


def ended(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that loses a Ctrl-C; return how it ended."""
    # With an API set the flow imports none of Prefect's server; nothing here asks it.
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    return subprocess.run(
        [sys.executable, "-c", LOSES_IT + textwrap.dedent(script)],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_an_interrupt_that_python_drops_in_an_import_is_raised_behind_it() -> None:
    """Whoever presses Ctrl-C while the flow is being imported gets no run."""
    done = ended(
        """
        sys.meta_path.insert(0, LoseItOnTheWay())
        from flows.relay_load import relay_load
        print("the run goes on")
        """
    )
    assert "Exception ignored" in done.stderr
    assert "the run goes on" not in done.stdout
    assert done.returncode == -signal.SIGINT


@pytest.mark.parametrize("how", ["lose_it", "turn_it"])
def test_an_interrupt_leaves_its_with_whatever_became_of_it(how: str) -> None:
    """One that was dropped, or was made an error of, ends the commands with 130 all the same."""
    done = ended(
        f"""
        from flows.early_interrupts import EARLY, remembered_interrupts
        EARLY.let_go()
        try:
            with remembered_interrupts():
                {how}()
        except KeyboardInterrupt:
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            sys.exit(130)
        print("it goes on")
        """
    )
    assert (done.returncode, done.stdout) == (130, "")


async def test_a_cancellation_that_was_swallowed_before_the_run_ends_it() -> None:
    """Asyncio makes a cancellation of Ctrl-C; a run does not begin in a task that has had one."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)  # as some client on the way may do: caught, and the way goes on
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(asyncio.CancelledError), Interrupts():
        pass
    task.uncancel()
    assert signal.getsignal(signal.SIGINT) is before
