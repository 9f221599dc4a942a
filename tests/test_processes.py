from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from run_store.errors import CannotRunError, DeadlineError
from tasks import processes
from tasks.processes import GuardedProcess, ProcessIdentity, wait_until

# A command with a child in a session of its own, as Playwright starts Chromium, which has a
# child as well; all of them ignore SIGTERM when asked to.
FAMILY = textwrap.dedent(
    """
    import os, signal, subprocess, sys, time
    depth, stubborn, file = int(sys.argv[1]), sys.argv[2] == "stubborn", sys.argv[3]
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if depth:
        again = [sys.executable, "-c", sys.argv[4], str(depth - 1), *sys.argv[2:]]
        subprocess.Popen(again, start_new_session=True)
    with open(file, "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    time.sleep(120)
    """
)
STARTER = textwrap.dedent(
    """
    import signal, sys, threading, time
    from pathlib import Path
    from tasks import processes
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may have it ignored
    started = []
    def start():
        started.append(processes.start("family", sys.argv[2:], log=Path(sys.argv[1]), grace_s=1))
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    print(started[0].identity.pid, flush=True)
    time.sleep(120)
    """
)


def family(pids: Path, *, stubborn: bool = False) -> list[str]:
    manner = "stubborn" if stubborn else "meek"
    return [sys.executable, "-c", FAMILY, "2", manner, str(pids), FAMILY]


def members(pids: Path) -> list[ProcessIdentity]:
    """Wait for the three of a family; return who they are."""
    assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 3, within_s=60)
    return [ProcessIdentity.of(int(pid)) for pid in pids.read_text().split()]


def gone(those: list[ProcessIdentity], *, within_s: float = 60) -> bool:
    return wait_until(lambda: all(one.find() is None for one in those), within_s=within_s)


Start = Callable[..., GuardedProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[GuardedProcess] = []

    def start_one(command: list[str], grace_s: float = 1.0) -> GuardedProcess:
        process = processes.start("it", command, log=tmp_path / "log", grace_s=grace_s)
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.stop()


@pytest.mark.parametrize("stubborn", [False, True])
def test_stop_ends_all_descendants(tmp_path: Path, start: Start, stubborn: bool) -> None:
    """Stopping ends the command and its descendants in other sessions, willing or not."""
    process = start(family(tmp_path / "pids", stubborn=stubborn))
    those = members(tmp_path / "pids")
    process.stop()
    assert gone([*those, process.identity], within_s=30)


def test_a_stop_right_after_the_start_is_heard(start: Start) -> None:
    """A guardian that is told to end while it forks passes it on; nobody waits for the grace."""
    begun = [start(["sleep", "120"], grace_s=30) for _ in range(12)]
    assert [process.stop() for process in begun] == [128 + signal.SIGTERM] * 12


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_children_die_with_their_starter(tmp_path: Path, how: signal.Signals) -> None:
    """A starter that is killed takes the whole family along, though a thread started it."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, tmp_path / "log", *family(tmp_path / "pids")],
        stdout=subprocess.PIPE,
        env=processes.own_environment(),
    )
    assert starter.stdout is not None
    guardian = ProcessIdentity.of(int(starter.stdout.readline()))
    those = members(tmp_path / "pids")
    assert guardian.find() is not None
    starter.send_signal(how)
    starter.wait(60)
    starter.stdout.close()
    assert gone([*those, guardian])


def test_what_a_killed_command_leaves_behind_is_ended(tmp_path: Path, start: Start) -> None:
    """SIGKILL of the command alone ends its orphans, and its exit code says so."""
    process = start(family(tmp_path / "pids"))
    those = members(tmp_path / "pids")
    os.kill(top(those), signal.SIGKILL)
    assert gone(those)
    assert wait_until(lambda: process.exit_code() is not None, within_s=60)
    assert process.exit_code() == 128 + signal.SIGKILL


def is_top(one: ProcessIdentity) -> bool:
    process = one.find()
    parent = process.parent() if process else None
    return parent is not None and "guardian.py" in " ".join(parent.cmdline())


def top(those: list[ProcessIdentity]) -> int:
    return next(one.pid for one in those if is_top(one))


@pytest.mark.parametrize("which", ["outer", "inner"])
def test_a_killed_guardian_leaves_nothing(tmp_path: Path, start: Start, which: str) -> None:
    """SIGKILL of either half of the guardian ends the family and the other half."""
    process = start(family(tmp_path / "pids", stubborn=True))
    those = members(tmp_path / "pids")
    [inner] = psutil.Process(process.identity.pid).children()
    both = [process.identity, ProcessIdentity.of(inner.pid)]
    os.kill(both[0].pid if which == "outer" else both[1].pid, signal.SIGKILL)
    assert wait_until(lambda: process.exit_code() is not None, within_s=60)
    assert gone([*those, *both])


def test_ctrl_c_in_our_group_does_not_reach_children(tmp_path: Path, start: Start) -> None:
    """A child is in another session than we are, so the terminal's Ctrl-C is not for it."""
    process = start(family(tmp_path / "pids"))
    those = members(tmp_path / "pids")
    sessions = {os.getsid(one.pid) for one in [*those, process.identity]}
    assert os.getsid(0) not in sessions


def test_a_stopped_process_is_ended_all_the_same(tmp_path: Path, start: Start) -> None:
    """A command under SIGSTOP cannot answer SIGTERM and is killed after its grace."""
    process = start(family(tmp_path / "pids"), grace_s=0.5)
    those = members(tmp_path / "pids")
    for one in those:
        os.kill(one.pid, signal.SIGSTOP)
    process.stop()
    assert gone(those, within_s=30)


def test_any_process_can_end_one_by_its_identity(tmp_path: Path, start: Start) -> None:
    """An identity that was written down ends the family, once and again; no other is touched."""
    process = start(family(tmp_path / "pids"))
    those = members(tmp_path / "pids")
    identity = ProcessIdentity.from_json(process.identity.to_json())
    # In another thread someone must collect the guardian, which is our child here.
    threading.Thread(target=process._guardian.wait, daemon=True).start()  # noqa: SLF001
    assert identity.end(within_s=60)
    assert gone(those, within_s=30)
    assert identity.end(within_s=30)
    other = ProcessIdentity(pid=os.getpid(), started=identity.started)
    assert other.end(within_s=1), "a pid that was used again is somebody else"


def test_exit_code_and_log_are_the_commands(start: Start) -> None:
    """The guardian passes on the exit code, and the log holds what the command printed."""
    process = start([sys.executable, "-c", "import sys; print('on stdout'); sys.exit('bad luck')"])
    assert wait_until(lambda: process.exit_code() is not None, within_s=60)
    assert process.exit_code() == 1
    assert "on stdout" in process.tail()
    assert "bad luck" in process.tail()


def test_a_missing_program_is_told(tmp_path: Path) -> None:
    """A command that does not exist is an error that names it."""
    output = tmp_path / "out"
    process = processes.start("ghost", ["/nowhere/ghost"], log=tmp_path / "log", output=output)
    with pytest.raises(CannotRunError, match=r"(?s)exit code 127.*No such file"):
        processes.wait_for_line(process, output, within_s=60)
    process.stop()


def test_waiting_for_a_line_has_an_end(tmp_path: Path) -> None:
    """A process that never says that it is ready is an error, and the first line is enough."""
    output = tmp_path / "out"
    code = "import sys,time; sys.argv[1:] and print(sys.argv[1], flush=True); time.sleep(60)"
    silent = [sys.executable, "-c", code]
    process = processes.start("silent", silent, log=tmp_path / "log", output=output)
    with pytest.raises(DeadlineError, match="not ready within"):
        processes.wait_for_line(process, output, within_s=0.5)
    process.stop()
    process = processes.start("one", [*silent, "hello"], log=tmp_path / "log", output=output)
    assert processes.wait_for_line(process, output, within_s=60) == "hello"
    process.stop()
