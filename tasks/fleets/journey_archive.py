"""A user's own journey, packed for hosts that have none of this machine's files."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from run_store.errors import FleetError, ScenarioError
from scenarios.model import Scenario
from tasks.processes import own_environment

FOLDER = "journey"
"""Where it is unpacked, below the agent's own folder."""
MOST_MB = 20
_LEFT_OUT = {"__pycache__", ".git", ".venv", "node_modules", ".mypy_cache", ".pytest_cache"}
_FIND_WITHIN_S = 60.0


@dataclass(frozen=True)
class JourneyArchive:
    """A tar file of a journey's module or package, and what an agent beside it calls it."""

    file: Path
    journey: str


def pack_journey(scenario: Scenario, folder: Path) -> JourneyArchive | None:
    """Pack the scenario's journey into `folder`; None if it has none that must travel.

    Raises ScenarioError if it is not found, FleetError if it is too large to be meant.
    """
    if not scenario.journey:
        return None
    found = _find(scenario.journey)
    if not found["files"]:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "journey.tar"
    held = 0
    with tarfile.open(archive, "w") as tar:
        for top in map(Path, found["files"]):
            for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
                inside = path.relative_to(top.parent)
                if _LEFT_OUT & set(inside.parts) or not path.is_file():
                    continue
                held += path.stat().st_size
                tar.add(path, arcname=str(inside))
    if held > MOST_MB * 2**20:
        raise FleetError(
            f"The package of the journey {scenario.journey} holds {held / 2**20:.0f} MiB, and is "
            f"copied to every host.",
            hint=f"Move it into a package of its own, of at most {MOST_MB} MiB.",
        )
    return JourneyArchive(archive, f"{FOLDER}/{found['file']}:{found['function']}")


def _find(journey: str) -> dict[str, list[str]]:
    """Ask the agent's own code where a journey is: that may import what the user wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "worker_agent.journey", "files", journey],
        capture_output=True,
        text=True,
        timeout=_FIND_WITHIN_S,
        check=False,
        env=own_environment(),
    )
    if done.returncode != 0:
        raise ScenarioError(done.stderr.strip())
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found
