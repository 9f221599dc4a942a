"""Workers as processes on this machine: for one-machine runs, the demo and the tests."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from run_store.agent_config import AgentConfig
from run_store.errors import FleetError
from tasks import processes
from tasks.fleets.base import Worker
from tasks.processes import ProcessIdentity
from tasks.run_context import RunContext

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
        config = AgentConfig(
            run_id=context.run_id,
            attempt=context.attempt,
            worker=worker.name,
            store=context.address,
            relay_url=context.relay_url,
            scenario=context.scenario.model_dump(mode="json", by_alias=True),
            spool=folder / "spool",
            chromium=context.chromium,
        )
        path = folder / "agent.json"
        await asyncio.to_thread(config.to_file, path)
        agent = await asyncio.to_thread(
            processes.start,
            f"agent {worker.name}",
            [sys.executable, "-m", "worker_agent", "--config", path],
            log=folder / "agent.log",
            environment=processes.own_environment(),
            grace_s=GRACE_S,
        )
        (folder / "agent.pid").write_text(agent.identity.to_json(), encoding="utf-8")
        code = agent.exit_code()
        if code is not None:
            raise FleetError(
                f"The agent of {worker.name} ended at once with exit code {code}.",
                hint=f"The end of {agent.log}:\n{agent.tail()}",
            )

    async def is_alive(self, context: RunContext, worker: Worker) -> bool:
        """Say whether the agent's guardian still runs."""
        identity = _identity(_folder(context, worker.name) / "agent.pid")
        return identity is not None and identity.find() is not None

    async def release(self, context: RunContext) -> list[str]:
        """End every agent of this run, of this and of earlier attempts, and tidy up.

        A spool that holds samples which never reached the bucket is kept.
        """
        files = sorted(context.folder.glob("attempt-*/*/agent.pid"))
        left = await asyncio.gather(*(asyncio.to_thread(_end, file) for file in files))
        for file in context.folder.glob("attempt-*/*/agent.json"):
            file.unlink(missing_ok=True)  # it holds the store's keys
        return [name for name in left if name]


def _folder(context: RunContext, worker: str) -> Path:
    return context.folder / f"attempt-{context.attempt}" / worker


def _identity(file: Path) -> ProcessIdentity | None:
    try:
        return ProcessIdentity.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _end(file: Path) -> str:
    """End the agent that a file names; return its worker's name if it still runs."""
    identity = _identity(file)
    if identity is not None and not identity.end(within_s=GRACE_S * 2):
        log.warning("the agent of %s does not end", file.parent.name)
        return file.parent.name
    file.unlink(missing_ok=True)
    return ""
