"""The worker's own use of CPU and memory: agent, browsers, machine."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import psutil

MEMORY_EVERY_S = 5.0
"""Reading the PSS of a browser's processes costs milliseconds each, so it is done less often."""


@dataclass(frozen=True)
class Usage:
    """One sample. CPU of the machine is 0-100 over all cores; of processes, of one core."""

    cpu_percent: float
    agent_cpu_percent: float
    browser_cpu_percent: float
    rss_mb: float
    browser_pss_mb: float


class ResourceSampler:
    """Each call of sample() covers the time since the one before."""

    def __init__(self) -> None:
        self._agent = psutil.Process()
        children = self._agent.children(recursive=True)
        self._at = time.monotonic()
        self._agent_cpu_s = _cpu_s(self._agent)
        self._browser_cpu_s = _cpu_s_by_pid(children)
        self._machine_cpu_s = _machine_cpu_s()
        self._memory_at = float("-inf")
        self._pss_mb = 0.0

    def sample(self) -> Usage:
        """Return the usage since the last call; blocks for some milliseconds."""
        # Finding the children takes longest: the clock is read beside the times that it divides.
        children = self._agent.children(recursive=True)
        now = time.monotonic()
        elapsed = max(now - self._at, 1e-3)
        self._at = now
        agent_cpu_s = _cpu_s(self._agent)
        agent_percent = (agent_cpu_s - self._agent_cpu_s) / elapsed * 100
        self._agent_cpu_s = agent_cpu_s
        cpu_s = _cpu_s_by_pid(children)
        spent = sum(max(0.0, s - self._browser_cpu_s.get(pid, 0.0)) for pid, s in cpu_s.items())
        self._browser_cpu_s = cpu_s
        if now - self._memory_at >= MEMORY_EVERY_S:
            self._memory_at = now
            self._pss_mb = sum(map(_pss_mb, children))
        return Usage(
            cpu_percent=self._machine_percent(),
            agent_cpu_percent=agent_percent,
            browser_cpu_percent=spent / elapsed * 100,
            rss_mb=self._agent.memory_info().rss / 2**20,
            browser_pss_mb=self._pss_mb,
        )

    def _machine_percent(self) -> float:
        # psutil.cpu_percent() counts from the last call in the same thread, and this is called
        # from any thread of a pool.
        busy_s, whole_s = _machine_cpu_s()
        busy_s_before, whole_s_before = self._machine_cpu_s
        self._machine_cpu_s = busy_s, whole_s
        elapsed_s = whole_s - whole_s_before
        if elapsed_s <= 0:
            return 0.0
        return min(100.0, max(0.0, (busy_s - busy_s_before) / elapsed_s * 100))


def _machine_cpu_s() -> tuple[float, float]:
    """Return the seconds that all cores together were busy, and the seconds that passed on them."""
    times = psutil.cpu_times()
    # On Linux a guest's time is in the user's as well, and waiting for a disk is idle time.
    guest_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    whole_s = sum(times) - guest_s
    return whole_s - times.idle - getattr(times, "iowait", 0.0), whole_s


def _cpu_s_by_pid(processes: list[psutil.Process]) -> dict[int, float]:
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found[process.pid] = _cpu_s(process)
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _pss_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 2**20
    except psutil.Error:
        return 0.0
