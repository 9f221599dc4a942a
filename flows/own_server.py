"""Prefect's temporary server, kept out of Ctrl-C's reach and from outliving us.

A flow that is called from Python where no API is set has Prefect start a server for it: in our
process group, so that Ctrl-C ends it just when the flow needs it to tear down, and with nobody
to end it if we are killed. Here it is a guarded child instead, which may take its time to start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_API_URL, PREFECT_HOME, get_current_settings

from tasks import locks
from tasks.local_services import free_port
from tasks.processes import start_guardian

READY_WITHIN_S = 180
"""The first start makes the database: 12 s on an idle machine, minutes on a busy one."""


def guard_own_server() -> None:
    """Have Prefect use a guarded server if it should start one in this process."""
    if PREFECT_API_URL.value():
        return
    # Takes a second, and only those need it that start a server anyway.
    import prefect  # noqa: PLC0415
    from prefect.server.api.server import SubprocessASGIServer  # noqa: PLC0415

    class GuardedServer(SubprocessASGIServer):
        """As Prefect's, but for how its process is started and how long that may take."""

        def start(self, timeout: int | None = None) -> None:
            home = Path(PREFECT_HOME.value())
            home.mkdir(parents=True, exist_ok=True)
            # Prefect would choose among ports where relays usually stand.
            self.port = self.port or free_port()
            # Two servers that both bring the database up to date would lock each other out.
            with locks.held(home / "starting.lock", within_s=READY_WITHIN_S):
                super().start(timeout or READY_WITHIN_S)

        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            command = [sys.executable, "-m", "uvicorn", "--app-dir"]
            command += [str(Path(prefect.__module_path__).parent), "--factory"]
            command += ["prefect.server.api.server:create_app", "--host", "127.0.0.1"]
            command += ["--port", str(self.port), "--log-level", "error", "--lifespan", "on"]
            return start_guardian(
                command,
                log=Path(PREFECT_HOME.value()) / "server.log",
                lifeline=subprocess.PIPE,
                # It fails without internet, and a load test is nobody else's business.
                environment={
                    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                    **os.environ,
                    "PREFECT_UI_ENABLED": "0",
                    "PREFECT__SERVER_EPHEMERAL": "1",
                    "PREFECT__SERVER_FINAL": "1",
                    **get_current_settings().to_environment_variables(exclude_unset=True),
                },
                grace_s=3,
            )

    # Prefect asks for the one that is known under no port before it makes one.
    known = SubprocessASGIServer._instances  # noqa: SLF001 - it offers no other way to be told
    if None not in known:
        GuardedServer(None)
