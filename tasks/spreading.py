"""Whether workers have room for the connections of one that was lost: a pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.limits import LATE_MS
from run_store.messages import Status

MOST_CPU_PERCENT = 85.0
MOST_MEMORY_SHARE = 0.8
_GIB_MB = 1024.0


def why_no_room(statuses: Mapping[str, Status], more: Mapping[str, int]) -> str:
    """Say why these workers cannot take so many more connections each; empty if they can.

    What a connection takes is taken from those that a worker has already: its CPU and its
    browsers' memory grow with their number. A worker that has none tells nothing, and may.
    """
    said = (_why_not(statuses.get(worker), extra) for worker, extra in more.items() if extra)
    return next((why for why in said if why), "")


def extra_connections(
    slots: Sequence[str], heirs: Sequence[str], connections: int
) -> dict[str, int]:
    """Return how many of so many connections each worker has by `heirs` and not by `slots`."""
    more: dict[str, int] = {}
    for connection in range(connections if slots else 0):
        place = connection % len(slots)
        if heirs[place] and heirs[place] != slots[place]:
            more[heirs[place]] = more.get(heirs[place], 0) + 1
    return more


def _why_not(status: Status | None, extra: int) -> str:
    if status is None:
        return "a worker has not been heard yet"
    vitals, has = status.vitals, max(status.vitals.connections_open, 1)
    share = (has + extra) / has
    if vitals.connections_open == 0:
        return ""
    if vitals.cpu_percent * share > MOST_CPU_PERCENT:
        return f"{status.worker} would need {vitals.cpu_percent * share:.0f} % of its CPU"
    if vitals.lateness_p99_ms > LATE_MS:
        return f"{status.worker} is late already, by {vitals.lateness_p99_ms:.0f} ms (p99)"
    memory_gb = status.host.get("memory_gb")
    needs_mb = vitals.memory_mb + vitals.browser_memory_mb * share
    if isinstance(memory_gb, int | float) and needs_mb > MOST_MEMORY_SHARE * memory_gb * _GIB_MB:
        return f"{status.worker} would need {needs_mb:,.0f} MiB of its {memory_gb:g} GiB"
    return ""
