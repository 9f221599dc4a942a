"""Cases: a worker's agent, its browser or one of its pages dies, or stands still for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psutil

from benchmarks.faults.case import Case, Scale
from benchmarks.faults.site import Site, until

LOAD = 2
"""The number of the order that the load begins with."""


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of the agents."""
    still_s = scale.outage_s(4, 20)
    yield Case("agent/SIGKILL", "one of two agents is killed in the load", _killed)
    yield Case(
        "agent/replaced",
        "one of two agents is killed in the warm-up, and fleet.replace_lost_workers is on",
        _replaced,
    )
    yield Case(
        "agent/SIGSTOP",
        f"the only agent stands still for {still_s:g} s in the load",
        _still(still_s),
    )
    yield Case("agent/browser", "the agent's browser is killed in the load", _dies(_browser))
    yield Case("agent/page", "the agent's page is killed in the load", _dies(_page))


def _killed(site: Site) -> str:
    site.overrides["fleet.workers"] = 2
    site.plainly()
    site.order(LOAD)
    site.agents()["worker-1"].kill()
    site.must_name("worker-1")
    return site.wait()


def _replaced(site: Site) -> str:
    site.overrides |= {"fleet.workers": 2, "fleet.replace_lost_workers": True}
    site.overrides["phases.warmup.duration"] = "15s"
    site.plainly()
    site.order(1)
    site.agents()["worker-1"].kill()
    site.must_name("worker-1", "replaced by worker-3 from 01-load on")
    ended = site.wait()
    edits = {one["worker"]: one["edits_completed"] for one in site.summary()["workers"]}
    site.expect(edits.get("worker-3", 0) > 0, f"worker-3 made no edits: {edits}")
    return ended


def _still(seconds: float) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        site.overrides["phases.load.duration"] = f"{seconds + 6:g}s"
        site.plainly()
        site.order(LOAD)
        agent = site.agents()["worker-1"]
        agent.suspend()
        time.sleep(seconds)
        agent.resume()
        return site.wait()

    return play


def _dies(which: Callable[[psutil.Process], psutil.Process | None]) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        site.overrides["phases.load.duration"] = "10s"
        site.plainly()
        site.order(LOAD)
        agent = site.agents()["worker-1"]
        doomed = until(lambda: which(agent), within_s=5, what="what is to be killed")
        if doomed is not None:
            doomed.kill()
        site.must_name("page_lost")
        return site.wait()

    return play


def _page(agent: psutil.Process) -> psutil.Process | None:
    """Return the process of a page that connections live in."""
    found = [(one, " ".join(one.cmdline())) for one in agent.children(recursive=True)]
    return next((one for one, words in found if "--type=renderer" in words), None)


def _browser(agent: psutil.Process) -> psutil.Process | None:
    """Return the browser of such a page: the first process above it that has no type."""
    page = _page(agent)
    above = page.parents() if page is not None else []
    return next((one for one in above if "--type=" not in " ".join(one.cmdline())), None)
