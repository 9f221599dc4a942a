"""A run that is open in the bucket, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from run_store.errors import InterruptedRunError, RelayLoadError, StoreError
from run_store.messages import RunRecord
from tasks.cost import Estimate
from tasks.instants import now_us
from tasks.run_context import RunContext
from tasks.run_cost import spent_usd


@dataclass
class PreparedRun:
    """A run whose place, target and progress are known; nothing of it costs money yet.

    `remaining` are the phases to carry out, by their place in the scenario. `stopped` says why
    its user or its budget ended it early, `ended_early` which stop objective did;
    `has_measured` that there are samples of it, `has_own_relay` that it started its relay itself.
    """

    context: RunContext
    record: RunRecord
    remaining: list[int]
    stopped: str = ""
    ended_early: str = ""
    has_measured: bool = False
    has_own_relay: bool = False
    estimate: Estimate | None = None

    def save(self) -> None:
        """Write `run.json` anew."""
        self.context.store().put_message(self.context.layout.run, self.record)

    async def spent_usd(self) -> float:
        """Return what earlier attempts at this run have cost, in US dollars.

        One that was killed has written nothing of it but which machines it had.
        """
        usd = await asyncio.to_thread(spent_usd, self.context.store(), self.record)
        return usd or 0.0

    async def load_ended(
        self, problem: BaseException | None, left: Exception | None = None
    ) -> None:
        """Record that no more load will come, and why, if it ended before its time.

        `left` says that not everything was given back. A store that is away stops nothing here:
        the report will say so.
        """
        record, attempt = self.record, self.record.attempts[-1]
        record.actual_usd = await asyncio.to_thread(spent_usd, self.context.store(), record)
        record.ended_us = attempt.ended_us = now_us()
        record.stop_requested = self.stopped
        record.ended_early = record.ended_early or self.ended_early
        record.problems += [_told(one) for one in (problem, left) if one is not None]
        problem = problem or left
        if problem is not None:
            attempt.error = _told(problem)
            # What is no Exception is a cancellation or a signal: somebody wanted the end.
            wanted = isinstance(problem, InterruptedRunError) or not isinstance(problem, Exception)
            record.state = "stopped" if wanted else "failed"
        elif self.stopped:
            record.state = "stopped"
        self.has_measured = problem is None
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self.save)
            layout = self.context.layout
            keys = await asyncio.to_thread(self.context.store().keys, layout.samples())
            self.has_measured = bool(keys)

    def is_to_be_reported(self, problem: BaseException) -> bool:
        """Say whether a run that ended with this has a report made at once.

        One that somebody cancelled from outside leaves no time for it, and one that its user
        interrupted before anything was measured has nothing to say.
        """
        failed = isinstance(problem, Exception) and not isinstance(problem, InterruptedRunError)
        return failed or (isinstance(problem, Exception) and self.has_measured)

    async def reported(self, verdict: str, validity: str) -> None:
        """Record what the report says."""
        if self.record.state == "running":
            self.record.state = "reported"
        self.record.verdict, self.record.validity = verdict, validity
        await asyncio.to_thread(self.save)


def _told(problem: BaseException) -> str:
    """Return a problem as `run.json` keeps it."""
    known = isinstance(problem, RelayLoadError)
    return str(problem) if known else f"{type(problem).__name__}: {problem}"
