"""What a worker says of itself each second: its row of `resources` and its vital signs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from run_store.messages import Vitals
from worker_agent.clock import RunClock
from worker_agent.page_client import PageState
from worker_agent.recording import Recording
from worker_agent.relay_sampler import RelaySampler
from worker_agent.resources import ResourceSampler, Usage
from worker_agent.spool import Spool

CLOCK_EVERY_S = 30.0
_LAG_EVERY_S = 0.05


class SelfWatch:
    """Samples this worker; `vitals` are those of the last sample."""

    def __init__(
        self, *, clock: RunClock, recording: Recording, spool: Spool, relay: RelaySampler
    ) -> None:
        self.vitals = Vitals()
        self._clock = clock
        self._recording = recording
        self._spool = spool
        self._relay = relay
        self._resources = ResourceSampler()
        self._offset_ms: float | None = None
        self._offset_error_ms: float | None = None
        self._loop_lag_ms = 0.0

    async def watch_lag(self) -> None:
        """Measure how late the event loop is, by a timer that should fire each 50 ms."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_EVERY_S)
            lag_ms = (time.monotonic() - before - _LAG_EVERY_S) * 1000
            self._loop_lag_ms = max(self._loop_lag_ms, lag_ms)

    async def keep_clock(self) -> None:
        """Compare this worker's clock with the relay's, now and then."""
        while True:
            offset = await self._relay.clock_offset()
            self._offset_ms = offset.offset_ms if offset else None
            self._offset_error_ms = offset.error_ms if offset else None
            await asyncio.sleep(CLOCK_EVERY_S)

    async def sample(self, states: Sequence[PageState], target: int) -> None:
        """Record this second; `states` are the pages', `target` the connections planned now."""
        usage, spool_mb, free_mb = await asyncio.to_thread(self._measure)
        self._record(states, target, usage, free_mb)
        self.vitals = Vitals(
            connections_target=target,
            connections_open=sum(state.open for state in states),
            connections_synced=sum(state.synced for state in states),
            connections_healthy=sum(state.healthy for state in states),
            lateness_p99_ms=self._recording.lateness_p99_ms(),
            page_lag_ms=max((state.lagMs for state in states), default=0.0),
            cpu_percent=usage.cpu_percent,
            memory_mb=usage.rss_mb,
            browser_memory_mb=usage.browser_pss_mb,
            clock_offset_ms=self._offset_ms,
            clock_error_ms=self._offset_error_ms,
            relay_memory_mb=self._relay.last.get("memory_rss_mb"),
            relay_connections=self._relay.last.get("connections"),
            relay_at_us=self._relay.last.get("at_us"),
            relay_error=self._relay.last.get("error", ""),
            relay_uptime_s=self._relay.last.get("uptime_s"),
            relay_cpu_seconds=self._relay.last.get("cpu_seconds"),
            spool_mb=spool_mb,
        )

    def _measure(self) -> tuple[Usage, float, float]:
        return self._resources.sample(), self._spool.size_mb(), self._spool.free_mb()

    def _record(
        self, states: Sequence[PageState], target: int, usage: Usage, free_mb: float
    ) -> None:
        lag_ms, self._loop_lag_ms = self._loop_lag_ms, 0.0
        if not self._recording.phase:
            return
        self._recording.row(
            "resources",
            at_us=self._clock.now_us(),
            cpu_percent=usage.cpu_percent,
            agent_cpu_percent=usage.agent_cpu_percent,
            browser_cpu_percent=usage.browser_cpu_percent,
            rss_mb=usage.rss_mb,
            browser_pss_mb=usage.browser_pss_mb,
            js_heap_mb=sum(state.heapBytes for state in states) / 2**20,
            loop_lag_ms=lag_ms,
            page_lag_ms=max((state.lagMs for state in states), default=0.0),
            connections_target=target,
            connections_open=sum(state.open for state in states),
            connections_synced=sum(state.synced for state in states),
            connections_healthy=sum(state.healthy for state in states),
            sockets_attempted=sum(state.attempted for state in states),
            edits_pending=sum(state.pending for state in states),
            clock_offset_ms=self._offset_ms,
            clock_error_ms=self._offset_error_ms,
            disk_free_mb=free_mb,
        )
