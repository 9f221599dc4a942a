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
        self._at = time.monotonic()
        self._agent_cpu_s = _cpu_s(self._agent)
        self._browser_cpu_s: dict[int, float] = {}
        self._memory_at = float("-inf")
        self._pss_mb = 0.0
        psutil.cpu_percent()

    def sample(self) -> Usage:
        """Return the usage since the last call; blocks for some milliseconds."""
        now = time.monotonic()
        elapsed = max(now - self._at, 1e-3)
        self._at = now
        agent_cpu_s = _cpu_s(self._agent)
        agent_percent = (agent_cpu_s - self._agent_cpu_s) / elapsed * 100
        self._agent_cpu_s = agent_cpu_s
        children = self._agent.children(recursive=True)
        spent = 0.0
        cpu_s: dict[int, float] = {}
        for child in children:
            with contextlib.suppress(psutil.Error):
                cpu_s[child.pid] = _cpu_s(child)
                spent += max(0.0, cpu_s[child.pid] - self._browser_cpu_s.get(child.pid, 0.0))
        self._browser_cpu_s = cpu_s
        if now - self._memory_at >= MEMORY_EVERY_S:
            self._memory_at = now
            self._pss_mb = sum(map(_pss_mb, children))
        return Usage(
            cpu_percent=psutil.cpu_percent(),
            agent_cpu_percent=agent_percent,
            browser_cpu_percent=spent / elapsed * 100,
            rss_mb=self._agent.memory_info().rss / 2**20,
            browser_pss_mb=self._pss_mb,
        )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _pss_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 2**20
    except psutil.Error:
        return 0.0
