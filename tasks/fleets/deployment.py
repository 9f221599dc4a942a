"""An agent on a host: what it needs is installed, it is started, stopped, and taken away again."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from run_store.agent_config import AgentConfig
from run_store.credentials import StoreCredentials
from run_store.store import write_private
from tasks.fleets.remote import Remote, RemoteCommandError
from tasks.fleets.wheelhouse import Payload

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("host.sh")
LOOK_WITHIN_S = 30.0
INSTALL_WITHIN_S = 600.0
COPY_WITHIN_S = 300.0
START_WITHIN_S = 30.0
CREDENTIALS = "credentials.json"
GRACE_S = 75.0
"""How long an agent may take to end: it gives itself 60 s to ship what it has."""
REMOVE_WITHIN_S = 120.0


@dataclass(frozen=True)
class Place:
    """Where an agent stands on its host: its folder, and what it runs from."""

    folder: str
    environment: str
    application: str
    chromium: str


async def script(remote: Remote, command: str, *words: str, within_s: float, doing: str) -> str:
    """Run one command of `host.sh` on a host; return what it printed."""
    text = SCRIPT.read_text(encoding="utf-8")
    return await remote.run_script(text, (command, *words), within_s=within_s, doing=doing)


async def describe(remote: Remote) -> str:
    """Return what a host is; RemoteCommandError says why agents cannot run on it."""
    said = await script(remote, "describe", within_s=LOOK_WITHIN_S, doing="run an agent")
    return said.strip()


async def install(
    remote: Remote, payload: Payload, *, run_id: str, attempt: int, worker: str
) -> Place:
    """Have all that an agent needs on a host; what is there already is left as it is.

    Raises RemoteCommandError with the host's own words.
    """
    environment, application = payload.environment, payload.application
    folder = await script(
        remote,
        "folder",
        run_id,
        str(attempt),
        worker,
        within_s=LOOK_WITHIN_S,
        doing="make a folder for the agent",
    )
    looked = await script(
        remote, "look", environment, application, within_s=LOOK_WITHIN_S, doing="be looked at"
    )
    mode = "offline" if payload.wheels else "online"
    if not {"environment=yes", "application=yes"} <= set(looked.splitlines()):
        await _bring(remote, payload, mode, with_wheels="environment=yes" not in looked)
    if payload.journey:
        await remote.put(
            {payload.journey.file: f"{folder.strip()}/journey.tar"}, within_s=COPY_WITHIN_S
        )
        await script(
            remote, "unpack", folder.strip(), within_s=LOOK_WITHIN_S, doing="unpack the journey"
        )
    found = await script(
        remote,
        "chromium",
        environment,
        application,
        mode,
        within_s=INSTALL_WITHIN_S,
        doing="get a Chromium",
    )
    return Place(
        folder=folder.strip(),
        environment=environment,
        application=application,
        chromium=found.strip().splitlines()[-1],
    )


async def _bring(remote: Remote, payload: Payload, mode: str, *, with_wheels: bool) -> None:
    made = await script(
        remote,
        "incoming",
        secrets.token_hex(8),
        within_s=LOOK_WITHIN_S,
        doing="make a folder for our files",
    )
    incoming = made.strip()
    wheels = (payload.wheel, *(payload.wheels if with_wheels else ()))
    with tempfile.TemporaryDirectory() as folder:
        extra = Path(folder) / "extra.txt"
        extra.write_text("\n".join(payload.extra_requirements), encoding="utf-8")
        files = {wheel: f"{incoming}/{wheel.name}" for wheel in wheels}
        files |= {payload.requirements: f"{incoming}/worker.txt", extra: f"{incoming}/extra.txt"}
        await remote.put(files, within_s=COPY_WITHIN_S)
    await script(
        remote,
        "prepare",
        payload.environment,
        payload.application,
        incoming,
        mode,
        within_s=INSTALL_WITHIN_S,
        doing="install what the agent needs",
    )


async def start(
    remote: Remote, place: Place, config: AgentConfig, *, environment: dict[str, str] | None = None
) -> None:
    """Copy an agent's config, and start it unless it runs. Secrets travel in files only.

    Raises RemoteCommandError.
    """
    config = config.model_copy(
        update={"spool": Path(place.folder) / "spool", "chromium": place.chromium}
    )
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "agent.json"
        config.to_file(own)
        variables = Path(folder) / "agent.env"
        lines = [f"{name}={value}\n" for name, value in (environment or {}).items()]
        variables.write_text("".join(lines), encoding="utf-8")
        files = {own: f"{place.folder}/agent.json", variables: f"{place.folder}/agent.env"}
        await remote.put(files, within_s=COPY_WITHIN_S)
    await script(
        remote,
        "start",
        place.folder,
        place.environment,
        place.application,
        within_s=START_WITHIN_S,
        doing="start the agent",
    )


async def give_credentials(remote: Remote, folder: str, credentials: StoreCredentials) -> str:
    """Put what lets an agent into the store beside it, whole and for its user only.

    Return the file's path on the host; a running agent reads it again. Raises RemoteCommandError.
    """
    target = f"{folder}/{CREDENTIALS}"
    with tempfile.TemporaryDirectory() as own:
        file = Path(own) / CREDENTIALS
        write_private(file, credentials.plain_json())
        await remote.put({file: target}, within_s=COPY_WITHIN_S)
    return target


async def is_running(remote: Remote, folder: str) -> bool | None:
    """Say whether an agent or its supervisor runs; None if the host does not say."""
    try:
        said = await script(
            remote, "state", folder, within_s=LOOK_WITHIN_S, doing="say whether its agent runs"
        )
    except RemoteCommandError as error:
        log.info("%s", error)
        return None
    return said.strip() == "running"


async def stop_run(remote: Remote, run_id: str) -> list[str]:
    """End every agent of a run on a host; return the folders whose spool still holds samples."""
    left = await script(
        remote,
        "stop_run",
        run_id,
        str(int(GRACE_S)),
        within_s=GRACE_S + 60,
        doing="stop its agents",
    )
    return left.splitlines()


async def fetch(remote: Remote, folder: str, target: Path) -> None:
    """Bring an agent's folder, with its spool and log, into a tar file here, which is private."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o600))
    command = ("tar", "-C", folder, "-cf", "-", "spool")
    await remote.get_output(command, target, within_s=COPY_WITHIN_S)


async def remove(remote: Remote, run_id: str, *, keep_installed: bool) -> None:
    """Take away what a run put on a host."""
    await script(
        remote,
        "remove",
        run_id,
        "keep" if keep_installed else "all",
        within_s=REMOVE_WITHIN_S,
        doing="remove what the run put there",
    )
