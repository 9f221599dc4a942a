"""Cases: a deployed run is cancelled through Prefect's API, in each of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.faults.case import Case, Scale
from benchmarks.faults.site import Site

STEPS = {
    "provision": "tasks.provision:provision",
    "deploy": "tasks.deploy:deploy",
    "load": "",
    "report": "tasks.report:report",
}
"""What is cancelled in, and what is made to take its time so that it can be; a phase does so."""
SLOW_S = 8.0


def cases(_scale: Scale) -> Iterator[Case]:
    """Yield the cases of cancelling."""
    for step in STEPS:
        yield Case(f"cancel/{step}", f"cancelled through the API in {step}", _cancelled(step))


def _cancelled(step: str) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        if STEPS[step]:
            site.plan["slow"] = {STEPS[step]: SLOW_S}
        site.deployed()
        site.task(step)
        site.cancel()
        return site.wait()

    return play
