"""Everything that is settled before anything is rented: scenario, store, relay, run, attempt."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import importlib.metadata
import platform
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_store.layout import RUNS, RunLayout, phase_label
from run_store.messages import Attempt, PhaseRecord, RunRecord
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from scenarios.model import Scenario
from tasks import preflight
from tasks.budget import agree, estimated
from tasks.calibration import advice, warn_of
from tasks.cost import Estimate
from tasks.earlier_attempt import check_same_scenario, end_earlier_attempt
from tasks.fleets.base import fleet_of
from tasks.hosts import check_hosts
from tasks.instants import now_us
from tasks.lease_keeper import PresenceKeeper
from tasks.local_services import local_relay, local_store
from tasks.observation import current_observer
from tasks.plan import remaining_phases
from tasks.prepared_run import PreparedRun
from tasks.relay_lock import free_relay
from tasks.run_context import RunContext
from tasks.store_address import store_address


@dataclass(frozen=True)
class Wanted:
    """What the caller of a run asked for.

    `derived` is carried out in place of the scenario that is named, as a capacity search's is;
    `is_calibration` says that it measures its one worker.
    """

    scenario: str
    relay_url: str | None = None
    fleet: str | None = None
    store: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    results: Path = Path("results")
    i_may_load_this_host: bool = False
    identity: str = ""
    derived: Scenario | None = None
    is_calibration: bool = False


@contextlib.asynccontextmanager
async def prepared(wanted: Wanted) -> AsyncIterator[PreparedRun]:
    """Check everything, start the local services that are needed, and open the run.

    Raises UsageError, StoreError, RelayError or BrowserError; then nothing was started, or it
    has been stopped again.
    """
    observer = current_observer()
    observer.step("prepare", "checking scenario, browser and relay")
    scenario = wanted.derived or load_scenario(wanted.scenario, wanted.overrides)
    fleet = wanted.fleet or scenario.fleet.kind
    relay_url, facts, chromium = await _checked(wanted, scenario, fleet)
    async with contextlib.AsyncExitStack() as services:
        observer.step("prepare", "opening the store")
        address = await _store(wanted, services)
        store = Store(address)
        await asyncio.to_thread(store.check)
        run_id = await asyncio.to_thread(_run_id, store, scenario, wanted.identity)
        folder = wanted.results.resolve() / run_id
        has_own_relay = relay_url is None
        if relay_url is None or facts is None:
            observer.step("prepare", "starting the local relay")
            own = await services.enter_async_context(local_relay(log=folder / "relay.log"))
            relay_url, facts = own.url, await preflight.check_relay(own.url)
        cost = await estimated(scenario, fleet)
        known = await asyncio.to_thread(store.get_message, RunLayout(run_id).run, RunRecord)
        if known is None:
            agree(scenario, cost)
            await _advised(wanted, store, scenario, fleet)
        else:
            # A retry's money was agreed to with the first try.
            await asyncio.to_thread(check_same_scenario, store, known, scenario)
        if facts.problem:
            what = "is sampled all the same" if facts.has_metrics else "no samples of the relay"
            observer.warn(f"The relay's metrics cannot be read: {facts.problem}; {what}.")
        run = await asyncio.to_thread(
            _open,
            store,
            known,
            run_id=run_id,
            scenario=scenario,
            relay_url=relay_url,
            has_metrics=facts.has_metrics,
            fleet=fleet,
            cost=cost,
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
        await services.enter_async_context(PresenceKeeper(context))
        await end_earlier_attempt(context, store)
        await asyncio.to_thread(free_relay, store, relay_url, run_id)
        done = await asyncio.to_thread(_complete_phases, context, store)
        remaining = remaining_phases(scenario, done)
        if run.ended_early:
            remaining = []  # a stop objective has judged it
        run.attempts[-1].first_phase = remaining[0] if remaining else len(scenario.phases)
        observer.step("prepare", f"run {run_id}: {scenario.summary_line()}, {relay_url}")
        yield PreparedRun(context, run, remaining, estimate=cost, has_own_relay=has_own_relay)


async def _checked(
    wanted: Wanted, scenario: Scenario, fleet: str
) -> tuple[str | None, preflight.RelayFacts | None, Path | None]:
    """Check all that can be without a store; return the relay, if there is one, and Chromium."""
    fleet_of(fleet)
    check_hosts(scenario, fleet)
    is_here = fleet == "local"
    relay_url = preflight.relay_of(scenario, wanted.relay_url)
    if relay_url:
        preflight.check_target(relay_url, scenario, allowed=wanted.i_may_load_this_host)
    chromium: Path | None = None
    if is_here:
        preflight.check_bundle()
        chromium = await asyncio.to_thread(preflight.check_chromium)
    await asyncio.to_thread(preflight.check_journey, scenario.journey, is_here=is_here)
    facts = await preflight.check_relay(relay_url) if relay_url else None
    return relay_url, facts, chromium


@contextlib.asynccontextmanager
async def found(wanted: Wanted) -> AsyncIterator[RunContext | None]:
    """Find the run that a flow run has opened, from another process; None if it opened none.

    This is all that a cancellation hook can know of it: the flow run's id and its parameters.
    """
    async with contextlib.AsyncExitStack() as services:
        if not wanted.store and not (wanted.results / "store").is_dir():
            yield None
            return
        address = await _store(wanted, services)
        store = Store(address)
        run_id = await asyncio.to_thread(_known_run_id, store, wanted.identity)
        record = await asyncio.to_thread(store.get_message, RunLayout(run_id).run, RunRecord)
        if record is None:
            yield None
            return
        yield RunContext(
            run_id=run_id,
            attempt=record.attempts[-1].number,
            scenario=Scenario.model_validate(record.scenario),
            relay_url=record.relay_url,
            has_metrics=record.has_metrics,
            address=address,
            folder=wanted.results.resolve() / run_id,
            fleet=record.fleet,
        )


async def _store(wanted: Wanted, services: contextlib.AsyncExitStack) -> StoreAddress:
    if wanted.store:
        return await store_address(wanted.store)
    return await services.enter_async_context(local_store(wanted.results))


def _run_id(store: Store, scenario: Scenario, identity: str) -> str:
    """Return the run's id: the one that this flow run has had before, or a new one.

    `<scenario>-<date>-<time>-<8 characters>`; the last part is the end of the flow run's id, by
    which a retry finds its run (its beginning is a time, and many share it).
    """
    known = _known_run_id(store, identity)
    now = dt.datetime.now(dt.UTC)
    return known or f"{scenario.name}-{now:%Y%m%d-%H%M%S}-{_tail(identity) or secrets.token_hex(4)}"


def _known_run_id(store: Store, identity: str) -> str:
    tail = _tail(identity)
    runs = store.folders(RUNS) if tail else []
    return next((run_id for run_id in runs if run_id.endswith(f"-{tail}")), "")


def _tail(identity: str) -> str:
    return identity.replace("-", "")[-8:]


def _open(
    store: Store,
    known: RunRecord | None,
    *,
    run_id: str,
    scenario: Scenario,
    relay_url: str,
    has_metrics: bool,
    fleet: str,
    cost: Estimate | None,
) -> RunRecord:
    """Write `run.json` with a new attempt in it; return it."""
    layout = RunLayout(run_id)
    record = known or RunRecord(
        run_id=run_id,
        scenario=scenario.model_dump(mode="json", by_alias=True),
        relay_url=relay_url,
        fleet=fleet,
        created_us=now_us(),
        versions=_versions(),
        estimate_usd=cost.usd if cost else None,
        actual_usd=0.0 if cost and not cost.usd else None,
    )
    record.relay_url, record.has_metrics, record.state = relay_url, has_metrics, "running"
    record.scenario, record.fleet = scenario.model_dump(mode="json", by_alias=True), fleet
    record.ended_us, record.stop_requested = None, ""
    record.verdict = record.validity = ""
    record.attempts.append(Attempt(number=len(record.attempts) + 1, started_us=now_us()))
    store.put_message(layout.run, record)
    # Whoever retries a run that was told to stop wants it to go on.
    store.delete(layout.stop)
    return record


async def _advised(wanted: Wanted, store: Store, scenario: Scenario, fleet: str) -> None:
    """Warn if the run's workers are too few by a calibration; one that calibrates has its one."""
    if not wanted.is_calibration:
        is_search = wanted.derived is not None
        warn_of(await asyncio.to_thread(advice, store, scenario, fleet, is_search=is_search))


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
