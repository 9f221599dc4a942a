"""Workers as processes on this machine: for one-machine runs, the demo and the tests."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from pathlib import Path

from run_store.agent_config import AgentConfig
from tasks import processes
from tasks.fleets.base import Worker
from tasks.fleets.spools import is_waiting, ship_here
from tasks.processes import ProcessIdentity
from tasks.run_context import RunContext
from tasks.threads import to_its_end

log = logging.getLogger(__name__)

GRACE_S = 20.0
"""How long an agent may take to close its connections and ship its samples when it is ended."""


class LocalFleet:
    """Agents under guardians of this process; their identities stand in the run's folder."""

    async def acquire(self, context: RunContext) -> list[Worker]:
        """Give as many workers as the scenario asks for; nothing is rented."""
        return [Worker(name=name, where="this machine") for name in context.workers]

    async def deploy(self, context: RunContext, worker: Worker) -> None:
        """Start the worker's agent."""
        folder = _folder(context, worker.name)
        config = _config(context, folder, attempt=context.attempt)
        await to_its_end(_start, folder, config)

    async def substitute(self, context: RunContext, name: str, lost: Worker) -> Worker | None:  # noqa: ARG002 - the protocol's
        """Give another process here."""
        return Worker(name=name, where=lost.where)

    async def is_alive(self, context: RunContext, worker: Worker) -> bool:
        """Say whether the agent's guardian still runs."""
        identity = _identity(_folder(context, worker.name) / "agent.pid")
        return identity is not None and identity.find() is not None

    async def release(self, context: RunContext) -> list[str]:
        """End every agent of this run, of this and of earlier attempts, and tidy up.

        What an agent that was killed left in its spool is shipped from here; a spool that cannot
        be shipped is kept.
        """
        folders = sorted(context.folder.glob("attempt-*/worker-*"))
        left = await asyncio.gather(*(asyncio.to_thread(_end, folder) for folder in folders))
        for folder in folders:
            spool = folder / "spool"
            if folder.name not in left and await asyncio.to_thread(is_waiting, spool):
                problem = await ship_here(context, folder)
                if problem:
                    log.warning("samples of %s stay in %s: %s", folder.name, spool, problem)
            if not await asyncio.to_thread(is_waiting, spool):
                await asyncio.to_thread(shutil.rmtree, spool, ignore_errors=True)
            (folder / "agent.json").unlink(missing_ok=True)  # it holds the store's keys
        return [name for name in left if name]


def _folder(context: RunContext, worker: str) -> Path:
    return context.folder / f"attempt-{context.attempt}" / worker


def _identity(file: Path) -> ProcessIdentity | None:
    try:
        return ProcessIdentity.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _config(context: RunContext, folder: Path, *, attempt: int) -> AgentConfig:
    return AgentConfig(
        run_id=context.run_id,
        attempt=attempt,
        worker=folder.name,
        store=context.address,
        relay_url=context.relay_url,
        scenario=context.scenario.model_dump(mode="json", by_alias=True),
        spool=folder / "spool",
        chromium=context.chromium,
    )


def _start(folder: Path, config: AgentConfig) -> None:
    config.to_file(folder / "agent.json")
    agent = processes.start(
        f"agent {config.worker}",
        [sys.executable, "-m", "worker_agent", "--config", folder / "agent.json"],
        log=folder / "agent.log",
        environment=processes.own_environment(),
        grace_s=GRACE_S,
    )
    (folder / "agent.pid").write_text(agent.identity.to_json(), encoding="utf-8")


def _end(folder: Path) -> str:
    """End the agent of a folder; return its worker's name if it still runs."""
    file = folder / "agent.pid"
    identity = _identity(file)
    if identity is not None and not identity.end(within_s=GRACE_S * 2):
        log.warning("the agent of %s does not end", folder.name)
        return folder.name
    file.unlink(missing_ok=True)
    return ""
