"""Chromium: where one is on this machine, and getting one if there is none.

    python -m worker_agent.chromium find      print its path
    python -m worker_agent.chromium install   get one if need be, then print its path

Playwright's own build comes first, since it is the one that Playwright is tested with; then
whatever is on PATH. A browser counts only if it answers `--version`: one whose libraries are
missing is as good as none.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from run_store.errors import BrowserError

VARIABLE = "RELAY_LOAD_CHROMIUM"
ON_PATH = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
PACKAGE = "chromium-headless-shell"
FIRST_BYTES_WITHIN_S = 30.0
"""A download that has shown no progress by then has no way to its site."""
STALLED_AFTER_S = 60.0
_PROGRESS = re.compile(r"\d+%")


def find_chromium() -> Path | None:
    """Return a Chromium that runs, or None.

    Raises BrowserError if RELAY_LOAD_CHROMIUM names one that does not: what the user chose is
    never passed over in silence.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        path = shutil.which(chosen)
        if path is None or not _runs(Path(path)):
            raise BrowserError(
                f"{VARIABLE} names {chosen}, and that is no Chromium that runs here.",
                hint=f"Correct it, or unset it to have one searched for: unset {VARIABLE}",
            )
        return Path(path)
    return next((path for path in (*_playwright_builds(), *_on_path()) if _runs(path)), None)


def require_chromium() -> Path:
    """Return a Chromium that runs; raise BrowserError, which says what to install."""
    path = find_chromium()
    if path is None:
        raise BrowserError("No Chromium that runs was found on this machine.", hint=_remedy())
    return path


def install_chromium() -> Path:
    """Return a Chromium that runs, after getting one if there is none.

    In this order: the one that is chosen or that Playwright has; Playwright's download; one on
    PATH; Debian's package if we are root. Raises BrowserError when none of them gives one.
    """
    if os.environ.get(VARIABLE):
        return require_chromium()
    if (found := _first_playwright_build()) is not None:
        return found
    _download()
    if (found := _first_playwright_build()) is not None:
        return found
    if (found := find_chromium()) is not None:
        return found
    _install_package()
    return require_chromium()


def _runs(path: Path) -> bool:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"Chrom" in done.stdout


def _playwright_builds() -> Iterator[Path]:
    """Yield the browsers of exactly the revision that this Playwright wants."""
    spec = find_spec("playwright")
    if spec is None or not spec.submodule_search_locations:
        return
    package = Path(spec.submodule_search_locations[0]) / "driver" / "package"
    try:
        listed = json.loads((package / "browsers.json").read_text(encoding="utf-8"))["browsers"]
    except (OSError, ValueError, KeyError):
        return
    revisions = {entry["name"]: entry["revision"] for entry in listed}
    registry = _registry(package)
    for name, executables in (
        ("chromium-headless-shell", ("chrome-headless-shell", "headless_shell")),
        ("chromium", ("chrome",)),
    ):
        folder = registry / f"{name.replace('-', '_')}-{revisions.get(name)}"
        if (folder / "INSTALLATION_COMPLETE").exists():
            for executable in executables:
                yield from folder.glob(f"*/{executable}")


def _registry(package: Path) -> Path:
    """Return the folder where Playwright keeps its browsers, by its own rules."""
    chosen = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    if chosen == "0":
        return package / ".local-browsers"
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ms-playwright"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ms-playwright"


def _first_playwright_build() -> Path | None:
    return next((path for path in _playwright_builds() if _runs(path)), None)


def _on_path() -> Iterator[Path]:
    for name in ON_PATH:
        if path := shutil.which(name):
            yield Path(path)


def _download() -> None:
    """Let Playwright download its headless shell; give up early if nothing comes."""
    if os.environ.get("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "0") not in ("", "0", "false"):
        return
    _say("Asking Playwright for its Chromium (a download of about 110 MB)...")
    with subprocess.Popen(
        [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Playwright tries several times; each try shall end soon.
        env={"PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "8000", **os.environ},
        start_new_session=True,
    ) as process:
        last = _last_line(process)
    if process.returncode != 0:
        _say(f"Playwright's Chromium could not be downloaded ({last}).")
    elif _first_playwright_build() is None and os.geteuid() == 0:
        _say("Playwright's Chromium lacks system libraries; installing them...")
        _run([sys.executable, "-m", "playwright", "install-deps", "chromium"])


def _last_line(process: subprocess.Popen[str]) -> str:
    """Follow a download to its end; return the line that says most about how it ended."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline, reason = time.monotonic() + FIRST_BYTES_WITHIN_S, "no reason given"
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return "its site does not answer"
        if line is None:
            return reason
        if _PROGRESS.search(line):
            deadline = time.monotonic() + STALLED_AFTER_S
        elif line.startswith("Error: ") and reason == "no reason given":
            reason = line.removeprefix("Error: ").strip()


def _install_package() -> None:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    _say(f"Installing the package {PACKAGE}...")
    quiet = [apt, "-qq", "-o", "DPkg::Lock::Timeout=120"]
    _run([*quiet, "update"])
    _run([*quiet, "install", "--yes", "--no-install-recommends", PACKAGE])


def _run(command: list[str]) -> None:
    """Run a command whose failure shows in what it was to bring; its output goes to stderr."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            timeout=900,
            check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )


def _remedy() -> str:
    return (
        f"On Debian: sudo apt install {PACKAGE}. Elsewhere: python -m playwright install "
        f"--with-deps --only-shell chromium. Or name one: export {VARIABLE}=/path/to/chromium"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the module's own command line


def main(arguments: list[str]) -> int:
    """Run `find` or `install`; return an exit code."""
    commands = {"find": require_chromium, "install": install_chromium}
    if len(arguments) != 1 or arguments[0] not in commands:
        _say("usage: python -m worker_agent.chromium find|install")
        return 2
    try:
        path = commands[arguments[0]]()
    except BrowserError as error:
        _say(f"{error.message} {error.hint}")
        return error.exit_code
    print(path)  # noqa: T201 - the module's own command line
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
