"""What a Prefect server must know before it can run us: pool, queues, deployments, automation.

Everything here may be done any number of times, and changes nothing the second time: neither what
is there, nor what the user has made of it since.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # it has no types
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint

from flows.kept_choices import with_choices
from run_store.errors import CannotRunError
from tasks.processes import PROJECT

POOL = "relay-load"
QUEUES = {"default": 2, "sweep": 1}
"""The pool's queues with their priorities; 1 comes first."""
DEPLOY_WITHIN_S = 180.0


async def register(project_file: Path | None = None) -> list[str]:
    """Register pool, queues and what `prefect.yaml` declares; return what there is now.

    On the API that Prefect is connected to. A pool that is there keeps its settings, and a
    deployment its parameters and schedules. Raises CannotRunError with Prefect's own words.
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
        _deploy(await _as_it_stands(client, _declared(file), file.parent), file.parent)
        return [f"work pool {POOL}, queues {' and '.join(QUEUES)}", *await _registered(client)]


async def _queue(client: PrefectClient, name: str, priority: int) -> None:
    try:
        queue = await client.read_work_queue_by_name(name, work_pool_name=POOL)
    except ObjectNotFound:
        await client.create_work_queue(name, work_pool_name=POOL, priority=priority)
    else:
        if queue.priority != priority:
            await client.update_work_queue(queue.id, priority=priority)


def _declared(file: Path) -> dict[str, Any]:
    """Return what a project file says."""
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


async def _as_it_stands(client: PrefectClient, declared: dict[str, Any], folder: Path) -> str:
    """Return what a project file declares with the choices made on the server, as JSON."""
    known = await client.read_deployments()
    entrypoints = {one["entrypoint"] for one in declared["deployments"]}
    takes = {entrypoint: _parameters_of(folder, entrypoint) for entrypoint in entrypoints}
    disabled = [one.name for one in await client.read_automations() if not one.enabled]
    # JSON is YAML, and cannot be read in two ways.
    return json.dumps(with_choices(declared, known, disabled=disabled, takes=takes))


def _parameters_of(folder: Path, entrypoint: str) -> list[str]:
    path, _, name = entrypoint.rpartition(":")
    flow: Flow[..., Any] = load_flow_from_entrypoint(
        f"{folder / path}:{name}", use_placeholder_flow=False
    )
    return list(flow.parameters.properties)


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


def _deploy(declared: str, folder: Path) -> None:
    """Deploy what a project file declares, from the project's folder."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "prefect.yaml"
            file.write_text(declared, encoding="utf-8")
            done = subprocess.run(
                [*command, "--prefect-file", str(file)],
                cwd=folder,
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
            f"The deployments of {folder} could not be registered.", hint="\n".join(said)
        )
