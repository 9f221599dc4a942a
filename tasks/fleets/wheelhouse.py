"""What is copied to a host before an agent can run there: our own wheel, and what it needs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from run_store.errors import FleetError
from scenarios.model import Scenario
from tasks.fleets.journey_archive import JourneyArchive, pack_journey

PROJECT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = PROJECT / "requirements" / "worker.txt"
PAGE = PROJECT / "worker_agent" / "page" / "dist" / "page.js"
BUILD_WITHIN_S = 120.0
_HASH_LENGTH = 16


@dataclass(frozen=True)
class Payload:
    """The files of a deployment. The names of what a host keeps follow from their contents."""

    wheel: Path
    requirements: Path
    extra_requirements: tuple[str, ...]
    wheels: tuple[Path, ...]
    journey: JourneyArchive | None = None

    @property
    def environment(self) -> str:
        """Name of the virtual environment: a hash of everything that is installed into it."""
        digest = hashlib.sha256(self.requirements.read_bytes())
        digest.update("\n".join(self.extra_requirements).encode())
        return digest.hexdigest()[:_HASH_LENGTH]

    @property
    def application(self) -> str:
        """Name of our own code's folder: a hash of the wheel."""
        return hashlib.sha256(self.wheel.read_bytes()).hexdigest()[:_HASH_LENGTH]


def make_payload(folder: Path, scenario: Scenario) -> Payload:
    """Build our wheel into `folder`, and gather what goes with it, the scenario's journey too.

    The fleet's `wheelhouse` names a folder of wheels for hosts without internet. Raises
    FleetError, and ScenarioError if the journey is not found.
    """
    wheelhouse = scenario.fleet.wheelhouse
    journey = pack_journey(scenario, folder)
    wheels: tuple[Path, ...] = ()
    if wheelhouse:
        wheels = tuple(sorted(Path(wheelhouse).expanduser().glob("*.whl")))
        if not wheels:
            raise FleetError(
                f"There are no wheels in {wheelhouse}.",
                hint=(
                    "Fill it for the hosts' platform: pip download --only-binary :all: "
                    f"-r {REQUIREMENTS.relative_to(PROJECT)} -d {wheelhouse}"
                ),
            )
    return Payload(
        wheel=build_wheel(folder),
        requirements=REQUIREMENTS,
        extra_requirements=scenario.journey_requirements,
        wheels=wheels,
        journey=journey,
    )


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel, with the page that runs in Chromium, into an empty folder.

    Offline first, which works wherever set-up has run. Raises FleetError with the builder's words.
    """
    if not (PROJECT / "pyproject.toml").is_file() or not REQUIREMENTS.is_file():
        raise FleetError(
            "Agents on other hosts are deployed from a checkout of the project, and this is none.",
            hint="Clone it, run `make setup`, and start the run from there.",
        )
    if not PAGE.is_file():
        raise FleetError("The page that runs in Chromium is not built.", hint="Run `make setup`.")
    folder.mkdir(parents=True, exist_ok=True)
    said = "no builder was found"
    for command in _builders(folder):
        for old in folder.glob("*.whl"):
            old.unlink()
        try:
            done = subprocess.run(
                command,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_WITHIN_S,
                check=False,
                env={**os.environ, "SOURCE_DATE_EPOCH": "1577836800"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
            continue
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
        said = done.stderr.strip()
    raise FleetError(f"The project's wheel could not be built: {said}.", hint="Run `make setup`.")


def _builders(folder: Path) -> list[list[str]]:
    # Set-up keeps uv outside of the environment that it fills.
    near = (PROJECT / ".setup" / "uv" / "bin" / "uv", Path(sys.executable).with_name("uv"))
    uv = next((str(path) for path in near if path.is_file()), None) or shutil.which("uv")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    if not uv:
        return [[*pip, "."]]
    build = [uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), "."]
    return [[*build, "--offline"], build, [*pip, "."]]
