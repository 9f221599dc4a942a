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


def between() -> dict[str, object]:
    """Take two samples in two threads, while this process and its child compute.

    Returns the second, and between which bounds the child's part of it lies: it used at least what
    it did between the two samples, and at most what it did from before the first to after the
    second, however much of its cores the machine gives.
    """
    with (
        ThreadPoolExecutor(1) as first,
        ThreadPoolExecutor(1) as second,
        busy_child() as child,
    ):
        sampler = ResourceSampler()
        stop = threading.Event()
        own = threading.Thread(target=lambda: all(not stop.is_set() for _ in repeat(0)))
        own.start()
        time.sleep(0.6)
        began = clock_and_cpu_s(child)
        first.submit(sampler.sample).result()
        began_inside = clock_and_cpu_s(child)
        time.sleep(0.6)
        ended_inside = clock_and_cpu_s(child)
        usage = second.submit(sampler.sample).result()
        ended = clock_and_cpu_s(child)
        stop.set()
        own.join()
    return {
        "usage": asdict(usage),
        "least_percent": (ended_inside[1] - began_inside[1]) / (ended[0] - began[0]) * 100,
        "most_percent": (ended[1] - began[1]) / (ended_inside[0] - began_inside[0]) * 100,
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
