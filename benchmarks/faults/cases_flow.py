"""Cases: the flow's own process is interrupted, ended and killed, and its steps fail."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

from benchmarks.faults.case import Case, Scale
from benchmarks.faults.site import Site
from run_store.layout import RunLayout
from run_store.messages import Order

SIGTERM_ENDS = ["exit 1", "exit -15"]
"""In the flow it is an error of Prefect's, which leaves the process; before it, Python's end."""
SIGINT_ENDS = ["exit 130", "exit 0", "exit -2"]
"""The second once the load is over, the third once it is reported as well: then it is Python's."""
STEPS = {
    "report": "tasks.report:report",
    "teardown": "tasks.teardown:teardown",
    "wind-down": "tasks.load:wind_down",
    "load": "tasks.load:load_phase",
    "deploy": "tasks.deploy:deploy",
    "provision": "tasks.provision:provision",
}
"""The last ones first: they take as long as a run that nothing is done to, which is beside them."""


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of the flow's process."""
    yield Case("flow/nothing", "nothing is done to it", _nothing)
    for step in STEPS:
        yield Case(f"flow/exception in {step}", f"the task {step} raises", _raising(step))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for share in scale.shares(number.name):
            # Of twenty instants two may lie within one per cent.
            at = f"{share:.1%}" if scale.full else f"{share:.0%}"
            yield Case(
                f"flow/{number.name} at {at}",
                f"{number.name} after {at} of a run's length",
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
        with site.standing_still():
            # Looked at while nothing moves: what stands in the bucket was there before the signal.
            is_over, is_reported = _load_is_over(site), bool(site.summary())
            site.send(number)
        ended = site.wait()
        promised = {
            signal.SIGINT: SIGINT_ENDS[: 1 + is_over + is_reported],
            signal.SIGTERM: ["exit 1", "exit -15", "exit 0"] if is_reported else SIGTERM_ENDS,
            signal.SIGKILL: ["exit -9", "exit 0"] if is_reported else ["exit -9"],
        }[number]
        site.expect(ended in promised or _not_up(site, ended), f"{ended}, not {promised}")
        return ended

    return play


def _load_is_over(site: Site) -> bool:
    """Say whether the workers have their order to stop: from then on Ctrl-C cuts nothing short."""
    run_id = site.run_id()
    store, layout = site.store(), RunLayout(run_id)
    orders = [store.get_message(key, Order) for key in store.keys(layout.orders(1))]
    return bool(run_id) and any(order is not None and order.action == "stop" for order in orders)


def _not_up(site: Site, ended: str) -> bool:
    """Say whether Ctrl-C ended Python before the flow's first line: then the code is Python's."""
    is_pythons = ended in ("exit 1", "exit -2") and site.said().endswith("KeyboardInterrupt\n")
    return is_pythons and not site.run_id()
