"""A whole run on this machine without Prefect: store, agents and conductor of the flow."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from reports.engine import RunDatabase, open_run
from run_store.layout import phase_label
from tasks.deploy import start_agents
from tasks.fleets.base import fleet_of
from tasks.lease_keeper import LeaseKeeper
from tasks.preparation import Wanted, prepared
from tasks.run_context import RunContext
from tests.relay_process import RelayProcess, start_relay

BeforePhase = Callable[[RelayProcess, str], Awaitable[None]]


async def _nothing(_relay: RelayProcess, _phase: str) -> None:
    """Change nothing before a phase."""


@contextlib.asynccontextmanager
async def finished_run(
    scenario: Mapping[str, Any],
    *,
    relay_flags: tuple[str, ...] = (),
    before_phase: BeforePhase = _nothing,
) -> AsyncIterator[tuple[RunContext, RunDatabase]]:
    """Carry a scenario out against a local relay; give its samples as a database.

    `before_phase` is called with the relay and the phase's name before each, to switch faults.
    """
    with tempfile.TemporaryDirectory() as name, start_relay(*relay_flags) as relay:
        file = Path(name) / "bench.toml"
        file.write_text(_toml(scenario), encoding="utf-8")
        wanted = Wanted(scenario=str(file), relay_url=relay.url, results=Path(name), fleet="local")
        async with prepared(wanted) as run:
            fleet = fleet_of("local")
            try:
                workers = await fleet.acquire(run.context)
                conductor = await start_agents(run.context, workers)
                async with LeaseKeeper(run.context):
                    for index, phase in enumerate(run.context.scenario.phases):
                        await before_phase(relay, phase.name)
                        await conductor.run_phase(index)
                    await conductor.finish("every phase is complete")
            finally:
                await fleet.release(run.context)
            database = await asyncio.to_thread(open_run, run.context.store(), run.context.run_id)
            with database:
                yield run.context, database


def label_of(context: RunContext, name: str) -> str:
    """Return the label of the phase called `name`."""
    names = [phase.name for phase in context.scenario.phases]
    return phase_label(names.index(name), name)


def _toml(table: Mapping[str, Any], path: str = "") -> str:
    """Return nested tables of plain values as TOML."""
    lines, tables = [], []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append(f"[{path}{key}]\n{_toml(value, f'{path}{key}.')}")
        else:
            shown = str(value).lower() if isinstance(value, bool) else repr(value)
            lines.append(f"{key} = {shown}")
    return "\n".join([*lines, *tables]) + "\n"
