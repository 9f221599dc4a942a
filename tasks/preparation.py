"""Everything that is settled before anything is rented: scenario, store, relay, run, attempt."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import importlib.metadata
import logging
import os
import platform
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_store.errors import RelayLoadError, StoreError, UsageError
from run_store.layout import RUNS, RunLayout, phase_label
from run_store.messages import Attempt, Lease, Order, PhaseRecord, RunRecord
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from scenarios.model import Scenario
from tasks import preflight
from tasks.lease_keeper import EVERY_S
from tasks.local_services import local_relay, local_store
from tasks.observation import current_observer
from tasks.plan import remaining_phases
from tasks.roll_call import now_us
from tasks.run_context import RunContext

log = logging.getLogger(__name__)

ORPHAN_WITHIN_S = 60.0
"""How long a retry waits for the lease of an earlier attempt to stand still."""


@dataclass(frozen=True)
class Wanted:
    """What the caller of a run asked for."""

    scenario: str
    relay_url: str | None = None
    fleet: str | None = None
    store: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    results: Path = Path("results")
    i_may_load_this_host: bool = False
    identity: str = ""


@dataclass
class PreparedRun:
    """A run whose place, target and progress are known; nothing of it costs money yet."""

    context: RunContext
    record: RunRecord
    remaining: list[int]

    def save(self) -> None:
        """Write `run.json` anew."""
        self.context.store().put_message(self.context.layout.run, self.record)

    async def note_problem(self, error: BaseException) -> None:
        """Record what ended the load, for the report; a store that is away stops nothing."""
        text = (
            str(error) if isinstance(error, RelayLoadError) else f"{type(error).__name__}: {error}"
        )
        self.record.problems.append(text)
        self.record.attempts[-1].error = text
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self.save)

    async def ended(self, verdict: str, validity: str) -> None:
        """Record how the run ended."""
        self.record.state = "reported"
        self.record.verdict, self.record.validity = verdict, validity
        self.record.ended_us = self.record.attempts[-1].ended_us = now_us()
        await asyncio.to_thread(self.save)


@contextlib.asynccontextmanager
async def prepared(wanted: Wanted) -> AsyncIterator[PreparedRun]:
    """Check everything, start the local services that are needed, and open the run.

    Raises UsageError, StoreError, RelayError or BrowserError; then nothing was started, or it
    has been stopped again.
    """
    observer = current_observer()
    scenario = load_scenario(wanted.scenario, wanted.overrides)
    fleet = wanted.fleet or scenario.fleet.kind
    relay_url = wanted.relay_url or os.environ.get("RELAY_URL")
    if not relay_url and not scenario.own_relay:
        raise UsageError(
            f"The scenario {scenario.name} has no relay of its own.",
            hint="Say which relay to load: --relay-url ws://host:port/, relay_url=, or RELAY_URL.",
        )
    if relay_url:
        preflight.check_target(relay_url, scenario, allowed=wanted.i_may_load_this_host)
    chromium: Path | None = None
    if fleet == "local":
        preflight.check_bundle()
        chromium = await asyncio.to_thread(preflight.check_chromium)
    async with contextlib.AsyncExitStack() as services:
        observer.step("prepare", "opening the store")
        address = await _store(wanted, services)
        store = Store(address)
        await asyncio.to_thread(store.check)
        run_id = await asyncio.to_thread(_run_id, store, scenario, wanted.identity)
        folder = wanted.results / run_id
        if not relay_url:
            observer.step("prepare", "starting the local relay")
            own = await services.enter_async_context(local_relay(log=folder / "relay.log"))
            relay_url = own.url
        facts = await preflight.check_relay(relay_url)
        if not facts.has_metrics:
            observer.warn(f"the relay publishes no /metrics ({facts.problem}): no relay samples")
        run = await asyncio.to_thread(
            _open,
            store,
            run_id,
            scenario=scenario,
            relay_url=relay_url,
            has_metrics=facts.has_metrics,
            fleet=fleet,
        )
        context = RunContext(
            run_id=run_id,
            attempt=run.attempts[-1].number,
            scenario=scenario,
            relay_url=relay_url,
            has_metrics=facts.has_metrics,
            address=address,
            folder=folder,
            fleet=fleet,
            chromium=str(chromium) if chromium else None,
        )
        await _end_earlier_attempt(context, store)
        done = await asyncio.to_thread(_complete_phases, context, store)
        remaining = remaining_phases(scenario, done)
        run.attempts[-1].first_phase = remaining[0] if remaining else len(scenario.phases)
        observer.step("prepare", f"run {run_id}: {scenario.summary_line()}, {relay_url}")
        yield PreparedRun(context, run, remaining)


async def _store(wanted: Wanted, services: contextlib.AsyncExitStack) -> StoreAddress:
    if wanted.store:
        return StoreAddress.from_url(wanted.store)
    return await services.enter_async_context(local_store(wanted.results))


def _run_id(store: Store, scenario: Scenario, identity: str) -> str:
    """Return the run's id: the one that this flow run has had before, or a new one.

    `<scenario>-<date>-<time>-<8 characters>`; the last part is the flow run's, by which a retry
    finds its run.
    """
    tail = identity.replace("-", "")[-8:] or secrets.token_hex(4)
    for known in store.folders(RUNS):
        if known.endswith(f"-{tail}"):
            return known
    now = dt.datetime.now(dt.UTC)
    return f"{scenario.name}-{now:%Y%m%d-%H%M%S}-{tail}"


def _open(
    store: Store,
    run_id: str,
    *,
    scenario: Scenario,
    relay_url: str,
    has_metrics: bool,
    fleet: str,
) -> RunRecord:
    """Write `run.json` with a new attempt in it; return it."""
    key = RunLayout(run_id).run
    record = store.get_message(key, RunRecord) or RunRecord(
        run_id=run_id,
        scenario=scenario.model_dump(mode="json", by_alias=True),
        relay_url=relay_url,
        fleet=fleet,
        created_us=now_us(),
        versions=_versions(),
    )
    record.relay_url, record.has_metrics, record.state = relay_url, has_metrics, "running"
    record.attempts.append(Attempt(number=len(record.attempts) + 1, started_us=now_us()))
    store.put_message(key, record)
    return record


async def _end_earlier_attempt(context: RunContext, store: Store) -> None:
    """Order an earlier attempt's workers to stop, and wait until its orchestrator is gone."""
    earlier = context.attempt - 1
    if earlier < 1:
        return
    layout = context.layout
    orders = await asyncio.to_thread(store.keys, layout.orders(earlier))
    number = len(orders) + 1
    stop = Order(
        number=number, attempt=earlier, action="stop", starts_at_us=now_us(), reason="retried"
    )
    await asyncio.to_thread(store.put_message, layout.order(earlier, number), stop)
    deadline = asyncio.get_running_loop().time() + ORPHAN_WITHIN_S
    before = await asyncio.to_thread(store.get_message, layout.lease(earlier), Lease)
    while before is not None:
        await asyncio.sleep(EVERY_S * 2)
        lease = await asyncio.to_thread(store.get_message, layout.lease(earlier), Lease)
        if lease is None or lease.counter == before.counter:
            return
        before = lease
        if asyncio.get_running_loop().time() > deadline:
            raise StoreError(
                f"Attempt {earlier} of {context.run_id} is still conducted by another process.",
                hint=f"End it first: relay-load stop {context.run_id}",
            )


def _complete_phases(context: RunContext, store: Store) -> list[PhaseRecord]:
    records = []
    for index, phase in enumerate(context.scenario.phases):
        label = phase_label(index, phase.name)
        record = store.get_message(context.layout.phase(label), PhaseRecord)
        if record is not None:
            records.append(record)
    return records


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("relay-load", "prefect", "duckdb"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
