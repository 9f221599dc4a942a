from __future__ import annotations

import asyncio
import os
import signal

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm

from flows import termination_watch
from flows.interrupts import Interrupts


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def terminate_beside() -> None:
    terminate()


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination_watch, "GRACE_S", 0.05)


@pytest.mark.parametrize("where", ["callback", "task"])
async def test_a_sigterm_that_only_hit_something_beside_the_flow_ends_it(where: str) -> None:
    """What Prefect's handler raises in a callback or another task is lost; the flow ends."""
    loop = asyncio.get_running_loop()
    lost: list[object] = []
    loop.set_exception_handler(lambda _, said: lost.append(said.get("exception")))
    with capture_sigterm(), Interrupts():
        if where == "callback":
            loop.call_soon(terminate)
        else:
            beside = asyncio.create_task(terminate_beside())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(20)
    if where == "task":
        lost.append(beside.exception())
    assert [type(one) for one in lost] == [TerminationSignal]
    assert (task := asyncio.current_task()) is not None
    assert task.uncancel() == 0
    assert signal.set_wakeup_fd(-1) == -1


async def test_a_flow_that_ends_by_sigterm_is_not_disturbed() -> None:
    """Where the flow itself took the signal, or gives back what it had, nothing is cancelled."""
    with capture_sigterm(), Interrupts() as interrupts:
        with pytest.raises(TerminationSignal):
            terminate()
        interrupts.teardown_begins()
        await asyncio.sleep(0.3)
    assert (task := asyncio.current_task()) is not None
    assert not task.cancelling()
