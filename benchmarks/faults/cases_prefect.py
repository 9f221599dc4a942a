"""Cases: Prefect's server is away for a while or for good, and its worker is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.faults.case import Case, Scale
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.proxy import Link
from benchmarks.faults.site import Site, until
from benchmarks.faults.stage import port_of

POOL = "faults-doomed"
GONE_WITHIN_S = 420.0
"""Prefect's client tries again for minutes to say how a run has ended; its report is there then."""


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of Prefect's own processes."""
    away_s = scale.outage_s(5, 30)
    yield Case("prefect/server away", f"its server is gone for {away_s:g} s", _away(away_s))
    yield Case("prefect/server gone", "its server is gone for good, in the load", _away(0))
    yield Case("prefect/worker", "the worker that started the run is killed", _worker_killed)


def _away(seconds: float) -> Callable[[Site], str]:
    """Take the server away in the load, for so long or (0) for good."""

    def play(site: Site) -> str:
        link = site.closing.enter_context(Link("127.0.0.1", port_of(site.stage.api)))
        site.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{link.port}/api"
        site.overrides["phases.load.duration"] = f"{seconds + 6:g}s"
        if not (seconds or site.stage.scale.full):
            site.environment["PREFECT_CLIENT_MAX_RETRIES"] = "1"
        site.must_name("reported")
        site.plainly()
        site.order(LOAD)
        link.refuse()
        if seconds:
            time.sleep(seconds)
            link.way = "open"
        return site.wait(GONE_WITHIN_S)

    return play


def _worker_killed(site: Site) -> str:
    stage = site.stage
    stage.ask("POST", "/work_pools/", {"name": POOL, "type": "process"})
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    with (site.folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*command, "--type", "process", "--name", "doomed"],
            stdout=log,
            stderr=log,
            env={**stage.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"},
            start_new_session=True,
        )
    try:
        until(
            lambda: stage.ask("POST", f"/work_pools/{POOL}/workers/filter", {}),
            within_s=60,
            what="the worker that is to be killed",
        )
        site.deployed(stage.deploy("doomed", POOL))
        site.order(LOAD)
        worker.kill()
        return site.wait()
    finally:
        worker.kill()
        worker.wait()
