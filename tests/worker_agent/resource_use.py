"""Samples what a process and its one child use, and prints it beside what the kernel counted.

A process of its own: the tests' has servers and browsers for children, which come and go.
Usage: resource_use.py SAMPLING, where SAMPLING is `between` or `before`.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import repeat

import psutil

from worker_agent.resources import ResourceSampler


@contextmanager
def busy_child() -> Iterator[psutil.Process]:
    """Give a child that computes without end; it is killed at last."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield psutil.Process(child.pid)
    finally:
        child.kill()
        child.wait()


def clock_and_cpu_s(process: psutil.Process) -> tuple[float, float]:
    """Return the time, and the CPU time that a process has used."""
    times = process.cpu_times()
    return time.monotonic(), times.user + times.system


def wait_until_used(processes: dict[str, psutil.Process], cpu_s: dict[str, float]) -> None:
    """Wait until each process has used so much CPU time."""
    while any(clock_and_cpu_s(one)[1] < cpu_s[name] for name, one in processes.items()):
        time.sleep(0.02)


def between() -> dict[str, object]:
    """Take two samples in two threads, while this process and its child compute.

    Returns the second, and between which bounds each one's part of it lies: it used at least what
    it did between the two samples, and at most what it did from before the first to after the
    second, however much of its cores the machine gives.
    """
    me = psutil.Process()
    with (
        ThreadPoolExecutor(1) as first,
        ThreadPoolExecutor(1) as second,
        busy_child() as child,
    ):
        sampler = ResourceSampler()
        stop = threading.Event()
        own = threading.Thread(target=lambda: all(not stop.is_set() for _ in repeat(0)))
        own.start()
        both = {"browser": child, "agent": me}
        wait_until_used(both, dict.fromkeys(both, 0.2))
        began = {name: clock_and_cpu_s(one) for name, one in both.items()}
        first.submit(sampler.sample).result()
        began_inside = {name: clock_and_cpu_s(one) for name, one in both.items()}
        wait_until_used(both, {name: cpu_s + 0.3 for name, (_, cpu_s) in began_inside.items()})
        ended_inside = {name: clock_and_cpu_s(one) for name, one in both.items()}
        usage = second.submit(sampler.sample).result()
        ended = {name: clock_and_cpu_s(one) for name, one in both.items()}
        stop.set()
        own.join()
    return {
        "usage": asdict(usage),
        "least_percent": {
            name: (ended_inside[name][1] - began_inside[name][1])
            / (ended[name][0] - began[name][0])
            * 100
            for name in both
        },
        "most_percent": {
            name: (ended[name][1] - began[name][1])
            / (ended_inside[name][0] - began_inside[name][0])
            * 100
            for name in both
        },
        "rss_mb": psutil.Process().memory_info().rss / 2**20,
        "cores": psutil.cpu_count(),
    }


def before() -> dict[str, object]:
    """Sample while a child stands still that has computed before."""
    with busy_child() as child:
        while child.cpu_times().user < 0.5:
            time.sleep(0.02)
        child.suspend()
        sampler = ResourceSampler()
        time.sleep(0.1)
        return {"usage": asdict(sampler.sample())}


SAMPLINGS: dict[str, Callable[[], dict[str, object]]] = {"between": between, "before": before}

if __name__ == "__main__":
    print(json.dumps(SAMPLINGS[sys.argv[1]]()))  # noqa: T201 - what it is for
