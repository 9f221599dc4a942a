"""`relay-load up`: Prefect with its UI, a worker, a local store and a local relay, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from flows.cli_prefect import prefect_server
from run_store.errors import CannotRunError
from tasks import processes
from tasks.local_services import free_port, local_relay, local_store
from tasks.processes import PROJECT, GuardedProcess

UI_PORT = 4200
RELAY_PORT = 8081
RUNS_END_WITHIN_S = 60.0
"""How long runs that were going on get to tear down: Prefect itself kills them after 30 s."""


def up(results: Path, *, port: int | None, relay_port: int | None, console: Console) -> None:
    """Run everything until Ctrl-C or SIGTERM, or until a part of it dies.

    Raises CannotRunError if something does not start or does not stay.
    """
    project_file = PROJECT / "prefect.yaml"
    if not project_file.is_file():
        raise CannotRunError(
            f"There is no {project_file}.", hint="`relay-load up` needs a checkout of the project."
        )
    results = results.resolve()
    say = console.print
    with contextlib.ExitStack() as parts:
        say("starting the local store and the local relay...")
        parts.enter_context(local_store(results))
        relay = local_relay(log=results / "up-relay.log", port=_port(relay_port, RELAY_PORT))
        address = parts.enter_context(relay)
        say("starting Prefect (about 15 s the first time, 5 s later)...")
        ui_port = _port(port, UI_PORT)
        api = parts.enter_context(prefect_server(results, port=ui_port, ui=True))
        own = {
            "PREFECT_API_URL": api,
            "RELAY_LOAD_OWN_RELAY": address.url,
            "RELAY_LOAD_RESULTS": str(results),
        }
        os.environ.update(own)
        say("registering the deployments...")
        # Prefect reads its settings when it is imported, and they are known only now.
        from flows.registration import register

        asyncio.run(register(project_file))
        worker = parts.enter_context(_worker(results))
        parts.callback(_end_runs, console)
        _greet(console, api, address.url, results)
        watched = [worker, *filter(None, [relay.process])]
        _wait(watched)
        say("stopping everything...")
        for process in watched:
            if process.exit_code() is not None:
                raise CannotRunError(
                    f"{process.name} ended with exit code {process.exit_code()}.",
                    hint=f"The end of {process.log}:\n{process.tail()}",
                )


def _port(asked: int | None, usual: int) -> int:
    """Return the port asked for; else the usual one, or any free one if that is taken."""
    if asked:
        return asked

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return free_port()
    return usual


@contextlib.contextmanager
def _worker(results: Path) -> Iterator[GuardedProcess]:
    # As above: it imports Prefect.
    from flows.registration import POOL

    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    worker = processes.start(
        "Prefect's worker",
        [*command, "--type", "process", "--name", "up"],
        log=results / "prefect" / "worker.log",
        environment=processes.own_environment(),
        grace_s=10,
    )
    try:
        yield worker
    finally:
        worker.stop()


def _greet(console: Console, api: str, relay_url: str, results: Path) -> None:
    ui = api.removesuffix("/api")
    console.print(f"\n[bold]Prefect's UI:[/] {ui}\nThe local relay: {relay_url}\n")
    console.print("Start a run there, or in another terminal:", highlight=False)
    console.print(f"  export PREFECT_API_URL={api}", highlight=False, soft_wrap=True)
    console.print("  prefect deployment run relay-load/local --watch", highlight=False)
    console.print(f"\nReports come to {results}. Ctrl-C stops all of this.", soft_wrap=True)


def _wait(watched: list[GuardedProcess]) -> None:
    """Return at Ctrl-C, at SIGTERM, or when one of these processes has ended."""
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        while not ended.wait(1.0):
            if any(process.exit_code() is not None for process in watched):
                return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_runs(console: Console) -> None:
    """Cancel the runs that are going on, and wait until they have given everything back."""
    try:
        asyncio.run(_cancel_and_wait(console))
    except KeyboardInterrupt:
        console.print("not waiting for them")
    except Exception as error:  # noqa: BLE001 - everything is stopped all the same
        console.print(f"the runs could not be cancelled: {error}", markup=False)


async def _cancel_and_wait(console: Console) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import StateType
    from prefect.states import Cancelled, Cancelling

    def in_states(*types: StateType) -> FlowRunFilter:
        return FlowRunFilter.model_validate({"state": {"type": {"any_": list(types)}}})

    async with get_client() as client:
        waiting = in_states(StateType.SCHEDULED, StateType.PENDING)
        for run in await client.read_flow_runs(flow_run_filter=waiting):
            if run.deployment_id is not None and not run.auto_scheduled:
                await client.set_flow_run_state(run.id, Cancelled(), force=True)
        going_on = in_states(StateType.RUNNING, StateType.CANCELLING)
        runs = [
            run
            for run in await client.read_flow_runs(flow_run_filter=going_on)
            if run.deployment_id is not None
        ]
        if not runs:
            return
        console.print(f"cancelling {len(runs)} runs; Ctrl-C again does not wait for them")
        for run in runs:
            await client.set_flow_run_state(run.id, Cancelling())
        deadline = asyncio.get_running_loop().time() + RUNS_END_WITHIN_S
        while asyncio.get_running_loop().time() < deadline:
            now = await client.read_flow_runs(flow_run_filter=going_on)
            if not {run.id for run in now} & {run.id for run in runs}:
                return
            await asyncio.sleep(0.5)
        console.print("they have not ended in time")
