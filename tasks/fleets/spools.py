"""Spools that agents could not ship: fetched from a host if need be, and shipped from here."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import tarfile
from pathlib import Path

from run_store.agent_config import AgentConfig
from tasks.processes import own_environment
from tasks.run_context import RunContext

log = logging.getLogger(__name__)

SHIP_WITHIN_S = 300.0


def is_waiting(spool: Path) -> bool:
    """Say whether a spool holds what is not in the bucket; see `worker_agent.spool`."""
    kinds = ("journal", "ready")
    return any(file for kind in kinds for file in spool.glob(f"**/{kind}/**/*.arrows"))


def waiting_spools(folder: Path) -> list[Path]:
    """Return the workers' folders in a run's whose spool is here, and not in the bucket yet."""
    return [one.parent for one in sorted(folder.glob("attempt-*/*/spool")) if is_waiting(one)]


def shipping_config(context: RunContext, home: Path) -> AgentConfig:
    """Return what the spool in a worker's folder, `home`, is shipped by."""
    return AgentConfig(
        run_id=context.run_id,
        attempt=int(home.parent.name.removeprefix("attempt-")),
        worker=home.name,
        store=context.address,
        relay_url=context.relay_url,
        scenario=context.scenario.model_dump(mode="json", by_alias=True),
        spool=home / "spool",
    )


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


async def ship_here(context: RunContext, home: Path) -> str:
    """Ship the spool in `home`/spool under its worker's name; return what hinders it.

    Parts keep their numbers, so one that had reached the bucket is the same object again; a
    journal is given its number here, once. What could not be shipped stays for the next release.
    """
    own = home / "shipping.json"
    await asyncio.to_thread(shipping_config(context, home).to_file, own)
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
    log.info("%s: %s", home.name, said.decode(errors="replace").strip())
    return ""
