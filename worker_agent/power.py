"""Powering this machine off: the last ring around what a forgotten machine costs."""

from __future__ import annotations

import logging
import shutil
import subprocess

log = logging.getLogger(__name__)

COMMANDS = (("systemctl", "poweroff"), ("shutdown", "-h", "now"), ("poweroff",))


def power_off() -> bool:
    """Ask the system to shut down; return whether one of its commands took the request.

    A machine that a run created terminates on shutdown. If no command works, its own time
    limit still ends it.
    """
    for command in COMMANDS:
        path = shutil.which(command[0])
        if path is None:
            continue
        try:
            done = subprocess.run([path, *command[1:]], timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("%s failed: %s", " ".join(command), error)
            continue
        if done.returncode == 0:
            return True
        log.warning("%s ended with %d", " ".join(command), done.returncode)
    log.error("this machine could not be powered off")
    return False
