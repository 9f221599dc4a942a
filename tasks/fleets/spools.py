"""Spools that a host's agent could not ship: unpacked and shipped from here."""

from __future__ import annotations

import asyncio
import logging
import sys
import tarfile
from pathlib import Path

from run_store.agent_config import AgentConfig
from tasks.processes import own_environment

log = logging.getLogger(__name__)

SHIP_WITHIN_S = 300.0


async def ship_fetched(home: Path, config: AgentConfig) -> str:
    """Ship the spool in `home`/spool.tar under its worker's name; return what hinders it.

    Parts keep their numbers, so one that had reached the bucket is the same object again. What
    was shipped is removed here; what was not stays, and the next release tries it again.
    """
    archive, own = home / "spool.tar", home / "fetched.json"
    try:
        await asyncio.to_thread(_unpack, archive, home)
    except (OSError, tarfile.TarError) as error:
        return f"{archive} cannot be unpacked: {error}"
    await asyncio.to_thread(config.to_file, own)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "worker_agent.shipping",
            "--config",
            str(own),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=own_environment(),
        )
        try:
            async with asyncio.timeout(SHIP_WITHIN_S):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"shipping took more than {SHIP_WITHIN_S:g} s"
    finally:
        own.unlink(missing_ok=True)  # it holds the store's keys
    if process.returncode != 0:
        return said.decode(errors="replace").strip()[-500:]
    log.info("%s: %s", config.worker, said.decode(errors="replace").strip())
    archive.unlink(missing_ok=True)
    return ""


def _unpack(archive: Path, home: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(home, filter="data")
