"""Cases: the flow's own process is interrupted, ended and killed, and its steps fail."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

from benchmarks.faults.case import Case, Scale
from benchmarks.faults.site import Site

STEPS = {
    "provision": "tasks.provision:provision",
    "deploy": "tasks.deploy:deploy",
    "load": "tasks.load:load_phase",
    "wind-down": "tasks.load:wind_down",
    "teardown": "tasks.teardown:teardown",
    "report": "tasks.report:report",
}


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of the flow's process."""
    yield Case("flow/nothing", "nothing is done to it", _nothing)
    for step in STEPS:
        yield Case(f"flow/exception in {step}", f"the task {step} raises", _raising(step))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for share in scale.shares(number.name):
            yield Case(
                f"flow/{number.name} at {share:.0%}",
                f"{number.name} after {share:.0%} of a run's length",
                _signalled(number, share),
            )


def _nothing(site: Site) -> str:
    began = time.monotonic()
    site.plainly()
    ended = site.wait()
    site.stage.length_s = time.monotonic() - began
    site.must_name("passed")
    return ended


def _raising(step: str) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        text = f"{step} was made to fail"
        site.plan["raise_in"] = {STEPS[step]: text}
        site.plainly()
        # Where the step has a plain function behind it, the run goes on and nothing is to be told.
        if step not in ("teardown", "report"):
            site.must_name(text)
        return site.wait()

    return play


def _signalled(number: signal.Signals, share: float) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        site.plainly()
        time.sleep(share * site.stage.length_s)
        site.send(number)
        return site.wait()

    return play
