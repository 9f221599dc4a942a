"""Calibrations: what one worker of a kind holds on a scenario, kept in the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from run_store.capacity import Calibration, CapacityResult, calibration_key
from run_store.errors import CannotRunError, RelayLoadError, StoreError
from run_store.store import Store
from scenarios.model import Scenario
from tasks.instants import now_us
from tasks.observation import current_observer
from tasks.run_context import RunContext
from tasks.search_plan import Search, SearchPlan, planned_search
from tasks.stores import opened_store
from tasks.workers_needed import WorkersNeeded, load_of, why_unlike, workers_needed


@dataclass(frozen=True)
class Advice:
    """What a store's calibrations say of a scenario: `needed`, or `why_not`, or nothing at all."""

    needed: WorkersNeeded | None = None
    why_not: str = ""

    @property
    def is_warning(self) -> bool:
        """Whether a user should know of it before the run."""
        return bool(self.why_not) or (self.needed is not None and self.needed.is_too_few)

    @property
    def sentence(self) -> str:
        """What is to be said; empty if nothing is known."""
        return self.needed.sentence if self.needed else self.why_not


def known_in(store: Store, scenario: Scenario, kind: str) -> tuple[Calibration | None, str]:
    """Return the calibration in a store that holds for a scenario, or why one there does not.

    Of the types that a rented fleet may be given, capacity decides: the one that was seen to
    hold least counts. Raises StoreError.
    """
    kinds = scenario.fleet.instance_types if kind == "ec2" else (kind,)
    keys = [calibration_key(scenario.name, one) for one in kinds]
    found = [known for key in keys if (known := store.get_message(key, Calibration))]
    alike = [one for one in found if not why_unlike(scenario, one)]
    if alike or not found:
        return min(alike, key=lambda one: one.connections, default=None), ""
    known = found[0]
    unlike = why_unlike(scenario, known)
    return None, f"the calibration on {known.worker_kind} had {unlike}: calibrate anew"


def advice(
    store: Store | None, scenario: Scenario, kind: str, *, is_search: bool = False
) -> Advice:
    """Return what a store's calibrations say of the workers that a scenario asks for.

    A run needs none, so that a store that cannot be read hinders nothing, and is told.
    """
    if store is None:
        return Advice()
    try:
        known, why_not = known_in(store, scenario, kind)
    except StoreError as error:
        return Advice(why_not=f"calibrations cannot be read: {error.message}")
    if known is None:
        return Advice(why_not=why_not)
    return Advice(workers_needed(scenario, kind, known, is_search=is_search))


@contextlib.contextmanager
def advice_from(
    store_url: str | None, results: Path, *, is_search: bool = False
) -> Iterator[Callable[[Scenario, str], Advice]]:
    """Give what says the same by the store at an address, or by the local one if there is one.

    It is called with a scenario and a kind of fleet.
    """
    with contextlib.ExitStack() as opened:
        store, why_not = None, ""
        try:
            store = opened.enter_context(opened_store(store_url, results))
        except RelayLoadError as error:
            why_not = f"calibrations cannot be read: {error.message}"

        def advise(scenario: Scenario, kind: str) -> Advice:
            found = advice(store, scenario, kind, is_search=is_search)
            return Advice(why_not=why_not) if why_not else found

        yield advise


def warn_of(found: Advice) -> None:
    """Warn, before anything is rented, of workers that are too few by a calibration."""
    if found.is_warning:
        current_observer().warn(found.sentence)


def plan_in(store_url: str | None, results: Path, scenario: Scenario, search: Search) -> SearchPlan:
    """Return the plan of a search, its rented fleet as large as a calibration there asks for."""
    if scenario.fleet.kind != "ec2":
        return planned_search(scenario, search)
    with opened_store(store_url, results) as store:
        known, _ = known_in(store, scenario, "ec2") if store else (None, "")
    return planned_search(scenario, search, calibration=known)


def keep_calibration(context: RunContext, plan: SearchPlan) -> Calibration:
    """Write what a search with the generator as its subject found of one worker; return it.

    Raises CannotRunError if not even the first step was held.
    """
    store, scenario = context.store(), context.scenario
    result = store.get_message(context.layout.capacity, CapacityResult)
    held = result.low if result else None
    if result is None or held is None:
        why = result.why if result else "no step was judged"
        raise CannotRunError(
            f"One worker was not seen to hold {plan.connections:,} connections: {why}.",
            hint="Begin lower (--start), or hold each step for longer (--hold).",
        )
    kind = _kind_of_worker(context)
    bound = "" if result.kind == "between" else "at least "
    edits_per_s = plan.level(held).edits_per_second
    known = Calibration(
        scenario=scenario.name,
        worker_kind=kind,
        connections=int(held),
        edits_per_s=edits_per_s,
        is_at_least=result.kind != "between",
        why=result.why,
        measured_us=now_us(),
        run_id=context.run_id,
        load=load_of(scenario),
        connections_per_document=scenario.connections_per_document,
        sentence=(
            f"one {kind} worker holds {bound}{held:,.0f} connections at {edits_per_s:.3g} edits/s"
            f" on {scenario.name}: {result.why}"
        ),
    )
    store.put_message(calibration_key(scenario.name, kind), known)
    return known


def _kind_of_worker(context: RunContext) -> str:
    """Return what the worker of this run was: of a rented one the type that capacity gave."""
    if context.fleet != "ec2":
        return context.fleet
    # boto3 is slow to import, and only rented machines have a bill.
    from tasks.fleets.ec2_bill import read_bill  # noqa: PLC0415

    rented = [one.kind for one in read_bill(context.store(), context.run_id).machines]
    return rented[-1] if rented else context.scenario.fleet.instance_types[0]
