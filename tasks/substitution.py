"""Substitutes: workers that are had beside the load for those that were lost in it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence

from run_store.errors import FleetError, RelayLoadError, StoreError
from run_store.messages import Status
from scenarios.model import Scenario
from tasks.fleets.base import Fleet, Worker
from tasks.observation import current_observer
from tasks.run_context import RunContext, worker_name

log = logging.getLogger(__name__)

READY_WITHIN_S = 180.0
"""What an agent may need to hold its browsers ready."""
LOOK_EVERY_S = 0.5


def why_none(scenario: Scenario, index: int, asked: int) -> str:
    """Say why a worker that is lost in phase `index` is not replaced; empty if it is.

    A substitute joins with a later phase or a later step of load, and a cool-down makes none.
    As many are asked for in an attempt as the scenario has workers, whatever becomes of them.
    """
    if asked >= scenario.fleet.workers:
        return f"{asked} were asked for already, as many as the scenario has workers"
    ahead = [phase for phase in scenario.phases[index + 1 :] if phase.kind != "cooldown"]
    if not ahead and not scenario.phases[index].has_steps:
        return "no phase is left in which another would make load"
    return ""


def holders_after(holders: Sequence[str], substitutes: Mapping[str, str]) -> list[str]:
    """Return who holds each slot once those that have a substitute give it theirs.

    The slots stay as many as they were: connection k lives in slot k modulo their number.
    """
    return [substitutes.get(worker, worker) for worker in holders]


class Substitutes:
    """Asks a fleet for a worker in the place of each that is lost, and waits for its agent.

    All of it goes on in tasks of its own, so nothing here delays the load or ends it. `holders`
    says whose each slot is, lost or not; it changes only by `join`. Whoever lets the fleet be
    released calls `end` before: no worker is asked for behind it.
    """

    def __init__(self, context: RunContext, fleet: Fleet, workers: Sequence[Worker]) -> None:
        self.holders = [worker.name for worker in workers]
        self._context = context
        self._fleet = fleet
        self._wanted: dict[str, asyncio.Task[Worker | None] | None] = {}
        self._is_over = not context.scenario.fleet.replace_lost_workers

    def want(self, lost: Worker, index: int) -> None:
        """Have a substitute sought for a worker that was lost in phase `index`, once."""
        if self._is_over or lost.name in self._wanted:
            return
        asked = len(self.seeking)
        why_not = why_none(self._context.scenario, index, asked)
        if why_not:
            self._wanted[lost.name] = None
            current_observer().warn(f"{lost.name} is not replaced: {why_not}")
            return
        # Names go on behind those of the scenario's workers: a lost one keeps its samples.
        name = worker_name(len(self._context.workers) + asked + 1)
        self._wanted[lost.name] = asyncio.create_task(self._have(name, lost), name=name)

    def join(self) -> dict[str, Worker]:
        """Give the slots of lost workers to the substitutes that stand ready; return those.

        The keys are the names of the workers that they replace.
        """
        ready: dict[str, Worker] = {}
        for lost, task in self._wanted.items():
            if lost in self.holders and task is not None and task.done() and not task.cancelled():
                worker = task.result()
                if worker is not None:
                    ready[lost] = worker
        self.holders = holders_after(self.holders, {lost: one.name for lost, one in ready.items()})
        return ready

    @property
    def seeking(self) -> list[asyncio.Task[Worker | None]]:
        """What has been begun to have substitutes, done or not."""
        return [task for task in self._wanted.values() if task is not None]

    async def end(self) -> None:
        """Seek no more, and return when nothing is being asked for any longer.

        A call to the cloud that is on its way is waited for, also by a caller that is cancelled:
        what it rents would else appear behind the release.
        """
        self._is_over = True
        cancelled: asyncio.CancelledError | None = None
        for task in self.seeking:
            task.cancel()
        while any(not task.done() for task in self.seeking):
            try:
                await asyncio.wait(self.seeking)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _have(self, name: str, lost: Worker) -> Worker | None:
        """Have an agent ready on another worker; None if that fails, which is told."""
        current_observer().step("substitute", f"{name} is to take the place of {lost.name}")
        try:
            worker = await self._fleet.substitute(self._context, name, lost)
            if worker is None:
                return None
            await self._fleet.deploy(self._context, worker)
            await self._until_ready(name)
        except RelayLoadError as error:
            current_observer().warn(f"{lost.name} is not replaced: {error.message}")
            return None
        except Exception as error:
            log.exception("%s could not be had", name)
            current_observer().warn(f"{lost.name} is not replaced: {type(error).__name__}: {error}")
            return None
        current_observer().step("substitute", f"{name} stands ready, and joins when a phase begins")
        return worker

    async def _until_ready(self, name: str) -> None:
        """Wait until an agent holds its browsers ready; FleetError if it fails or takes too long.

        It may be in an order by then: it follows all, also those that give it nothing to do.
        """
        key = self._context.layout.status(self._context.attempt, name)
        store, deadline = self._context.store(), time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(StoreError):
                status = await asyncio.to_thread(store.get_message, key, Status)
                if status is not None and status.state in ("ready", "running"):
                    return
                if status is not None and status.state in ("failed", "stopped"):
                    raise FleetError(f"{name} {status.state}: {status.message}")
            await asyncio.sleep(LOOK_EVERY_S)
        raise FleetError(f"{name} was not ready within {READY_WITHIN_S:g} s.")
