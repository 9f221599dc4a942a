"""Spools that a host's agent could not ship: unpacked and shipped from here."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import tarfile
from pathlib import Path

from run_store.agent_config import AgentConfig
from tasks.processes import own_environment

log = logging.getLogger(__name__)

SHIP_WITHIN_S = 300.0


def waiting_spools(folder: Path) -> list[Path]:
    """Return the workers' folders in a run's whose fetched spool is not in the bucket yet."""
    return [
        spool.parent
        for spool in sorted(folder.glob("attempt-*/*/spool"))
        if any(
            file.stat().st_size
            for kind in ("journal", "ready")
            for file in spool.glob(f"**/{kind}/**/*")
            if file.is_file()
        )
    ]


def unpack(archive: Path, home: Path) -> None:
    """Unpack an archive of a spool to `home`/spool, all of it or nothing, and remove it.

    Raises OSError or tarfile.TarError.
    """
    new = home / "fetched"
    shutil.rmtree(new, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(new, filter="data")
    (new / "spool").rename(home / "spool")
    new.rmdir()
    archive.unlink()


async def ship_here(home: Path, config: AgentConfig) -> str:
    """Ship the spool in `home`/spool under its worker's name; return what hinders it.

    Parts keep their numbers, so one that had reached the bucket is the same object again; a
    journal is given its number here, once. What could not be shipped stays for the next release.
    """
    own = home / "fetched.json"
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
            return f"shipping took more than {SHIP_WITHIN_S:g} s"
        finally:
            # Also when we are cancelled: nobody but the next release may work in this folder.
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        own.unlink(missing_ok=True)  # it holds the store's keys
    if process.returncode != 0:
        return said.decode(errors="replace").strip()[-500:]
    log.info("%s: %s", config.worker, said.decode(errors="replace").strip())
    return ""
