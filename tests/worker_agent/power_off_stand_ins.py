"""Commands that note that a machine was to be powered off, in place of the system's."""

import os
from pathlib import Path


def stand_ins(folder: Path) -> dict[str, str]:
    """Return an environment in which powering off is only noted, in a file of `folder`."""
    for name in ("systemctl", "shutdown", "poweroff"):
        command = folder / "bin" / name
        command.parent.mkdir(exist_ok=True)
        note = f'#!/bin/sh\necho "{name} $@" >> "{folder}/off"\n'
        command.write_text(note, encoding="utf-8")
        command.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def powered_off(folder: Path) -> str:
    """Return what was asked of the system's commands that power off."""
    off = folder / "off"
    return off.read_text(encoding="utf-8") if off.exists() else ""
