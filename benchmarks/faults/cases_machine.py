"""Cases: a worker's disk is full, its clock steps, or no worker is left."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.case import Case, HungError, Scale, SkippedError
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.site import Site

DISK_MB = 4
STEP_S = 5.0
ALL_GONE_WITHIN_S = 60.0


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of the machines that workers run on."""
    # Long enough for many deliveries, of which a tenth is kept.
    full_s = scale.outage_s(8, 60)
    yield Case("agent/disk full", f"its disk is full for {full_s:g} s", _disk_full(full_s))
    yield Case("agent/disk full for good", "its disk is full from the load on", _disk_full(0))
    yield Case("agent/clock forward", f"its clock steps {STEP_S:g} s forward", _stepped(STEP_S))
    yield Case("agent/clock back", f"its clock steps {STEP_S:g} s back", _stepped(-STEP_S))
    yield Case("agent/all killed", "both of two agents are killed in the load", _all_killed)


def _disk_full(seconds: float) -> Callable[[Site], str]:
    """Fill the spool's disk in the load, for so long or (0) for good."""

    def play(site: Site) -> str:
        disk = site.folder / "disk"
        disk.mkdir()
        _mount(disk)
        site.closing.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=False)
        site.plan["spool"] = str(disk)
        site.overrides["phases.load.duration"] = f"{seconds + 8:g}s"
        site.must_name("disk_full")
        site.plainly()
        site.order(LOAD)
        filler = disk / "filler"
        _fill(filler)
        if seconds:
            time.sleep(seconds)
            filler.unlink()
        ended = site.wait()
        weights = [phase["deliveries"]["max_weight"] for phase in site.summary()["phases"]]
        site.expect(max(weights) > 1, "no delivery was thinned out")
        return ended

    return play


def _mount(disk: Path) -> None:
    if os.geteuid() != 0:
        raise SkippedError("a small disk can be mounted by root only")
    options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m", "relay-load-faults", str(disk)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SkippedError(f"no small disk can be mounted: {done.stderr.strip()}")


def _fill(file: Path) -> None:
    """Take all the room that there is on a disk."""
    with file.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return


def _stepped(seconds: float) -> Callable[[Site], str]:
    """Step the wall clock of an agent, though not of its browser, which would become too slow."""

    def play(site: Site) -> str:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not libraries:
            raise SkippedError("a clock steps for one process only with Debian's libfaketime")
        step = site.folder / "clock"
        _step_to(step, 0)
        site.plan["preload"] = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(step),
            "FAKETIME_NO_CACHE": "1",
            # A machine's clock that is set moves the wall clock alone.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        site.must_name("passed", "reported")
        site.plainly()
        site.order(LOAD)
        time.sleep(1)  # some edits before the step
        _step_to(step, seconds)
        return site.wait()

    return play


def _step_to(file: Path, seconds: float) -> None:
    new = file.with_suffix(".new")
    new.write_text(f"{seconds:+g}\n", encoding="utf-8")
    new.replace(file)  # it is read at each look at the clock


def _all_killed(site: Site) -> str:
    site.overrides["fleet.workers"] = 2
    site.overrides["phases.load.duration"] = "120s"
    site.plainly()
    site.order(LOAD)
    agents = site.agents()
    if len(agents) != 2:  # noqa: PLR2004 - as many as were asked for
        raise HungError(f"there are {len(agents)} agents")
    for agent in agents.values():
        agent.kill()
    site.must_name("worker-1", "worker-2")
    return site.wait(ALL_GONE_WITHIN_S)
