"""How long a worker has been silent, or whoever else keeps raising a number in the store."""

from __future__ import annotations

import time
from collections.abc import Callable

CATCH_UP_S = 30.0
"""The longest time after an outage of the store in which a worker may still be silent."""
PROMPT_S = 1.0
"""An answer of the store that took longer found it away, or nearly so, for the time beyond."""


class Beats:
    """How long each worker has been silent, by one monotonic clock; it is asked for the time.

    Time during which the store did not answer is not counted: nothing is known of it. Nor is as
    much time again after it, up to `CATCH_UP_S` for one beat: a worker that backed off while the
    store was away is heard only at its next try.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked_at: dict[str, float] = {}
        self._away_s: dict[str, float] = {}

    def heard(self, worker: str, beat: int, *, took_s: float = 0.0) -> float:
        """Take the number of a worker's last beat; return its silence in seconds.

        `took_s` is how long the store took to tell it. Of an answer that came late the time
        beyond `PROMPT_S` counts as an outage: the worker's own calls waited as well.
        """
        now = self._monotonic()
        known = self._seen.get(worker)
        if known is None or known[0] != beat:
            self._seen[worker] = (beat, now)
            self._away_s[worker] = 0.0
        elif took_s > PROMPT_S:
            self._was_away(worker, took_s - PROMPT_S)
        self._looked_at[worker] = now
        catch_up_s = min(self._away_s[worker], CATCH_UP_S)
        return max(now - self._seen[worker][1] - catch_up_s, 0.0)

    def store_silent(self, worker: str) -> None:
        """Take that nothing could be read of a worker since the last look."""
        if worker in self._seen:
            now = self._monotonic()
            self._was_away(worker, now - self._looked_at[worker])
            self._looked_at[worker] = now

    def _was_away(self, worker: str, away_s: float) -> None:
        beat, risen = self._seen[worker]
        self._seen[worker] = (beat, risen + away_s)
        self._away_s[worker] += away_s
