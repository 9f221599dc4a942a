"""What a Prefect server must know before it can run us: pool, queues, deployments, automation.

Everything here may be done any number of times, and changes nothing the second time.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from run_store.errors import CannotRunError
from tasks.processes import PROJECT

POOL = "relay-load"
QUEUES = {"default": 2, "sweep": 1}
"""The pool's queues with their priorities; 1 comes first."""
DEPLOY_WITHIN_S = 180.0


async def register(project_file: Path | None = None) -> list[str]:
    """Register pool, queues and what `prefect.yaml` declares; return what there is now.

    On the API that Prefect is connected to. A pool that is there keeps its settings. Raises
    CannotRunError with Prefect's own words.
    """
    file = project_file or PROJECT / "prefect.yaml"
    if not file.is_file():
        raise CannotRunError(
            f"There is no {file}.", hint="Registering needs a checkout of the project."
        )
    async with get_client() as client:
        with contextlib.suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        for name, priority in QUEUES.items():
            await _queue(client, name, priority)
        _deploy(file)
        return [f"work pool {POOL}, queues {' and '.join(QUEUES)}", *await _registered(client)]


async def _queue(client: PrefectClient, name: str, priority: int) -> None:
    try:
        queue = await client.read_work_queue_by_name(name, work_pool_name=POOL)
    except ObjectNotFound:
        await client.create_work_queue(name, work_pool_name=POOL, priority=priority)
    else:
        if queue.priority != priority:
            await client.update_work_queue(queue.id, priority=priority)


async def _registered(client: PrefectClient) -> list[str]:
    """Name our deployments, schedules and automations, as the server has them."""
    lines = []
    for deployment in await client.read_deployments():
        if not deployment.entrypoint or not deployment.entrypoint.startswith("flows/"):
            continue
        flow = await client.read_flow(deployment.flow_id)
        when = [_when(one) for one in deployment.schedules]
        lines.append(f"deployment {flow.name}/{deployment.name}{', '.join(['', *when])}")
    names = [automation.name for automation in await client.read_automations()]
    lines += [f"automation {name}" for name in names if name.startswith("relay-load,")]
    return sorted(lines)


def _when(one: DeploymentSchedule) -> str:
    off = "" if one.active else " (off)"
    return f"scheduled {getattr(one.schedule, 'cron', one.schedule)}{off}"


def _deploy(project_file: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        done = subprocess.run(
            [*command, "--prefect-file", str(project_file)],
            cwd=project_file.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEPLOY_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotRunError(
            f"The deployments were not registered within {DEPLOY_WITHIN_S:g} s."
        ) from None
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().splitlines()[-12:]
        raise CannotRunError(
            f"The deployments of {project_file} could not be registered.", hint="\n".join(said)
        )
