"""Loads to conduct, and what is in the bucket of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from run_store.errors import StoreError
from run_store.messages import Order, PhaseRecord
from scenarios.model import Phase
from tasks.conductor import Conductor
from tasks.run_context import RunContext
from tasks.steps import Chooser
from tasks.stress import Halt, Level, next_level
from tests.fake_fleet import FakeFleet


async def ready(
    context: RunContext, fleet: FakeFleet, *, chooses: Chooser = next_level
) -> Conductor:
    workers = await fleet.acquire(context)
    await asyncio.gather(*(fleet.deploy(context, worker) for worker in workers))
    conductor = Conductor(context, fleet, workers, chooses=chooses)
    await conductor.wait_until_ready()
    return conductor


def orders_of(context: RunContext) -> list[Order]:
    store, attempt = context.store(), context.attempt
    found = [store.get_message(key, Order) for key in store.keys(context.layout.orders(attempt))]
    return [order for order in found if order is not None]


def record_of(context: RunContext, label: str) -> PhaseRecord:
    record = context.store().get_message(context.layout.phase(label), PhaseRecord)
    assert record is not None
    return record


def lasting(context: RunContext, **seconds: float) -> RunContext:
    """Return a context in which the phases of these kinds last so long.

    A test that cuts a phase needs one that is not over before, however slow the machine is.
    """
    phases = tuple(
        phase.model_copy(update={"duration_s": seconds.get(phase.kind, phase.duration_s)})
        for phase in context.scenario.phases
    )
    return replace(context, scenario=context.scenario.model_copy(update={"phases": phases}))


async def settled(conductor: Conductor) -> None:
    """Wait until nothing is being sought in the place of lost workers."""
    await asyncio.gather(*conductor.substitutes.seeking)


def replacing(context: RunContext, **fleet: object) -> RunContext:
    given = context.scenario.fleet.model_copy(update={"replace_lost_workers": True, **fleet})
    return replace(context, scenario=context.scenario.model_copy(update={"fleet": given}))


def in_steps(context: RunContext) -> RunContext:
    """Return a context whose scenario is one phase of load that goes up in steps of 4.5 s."""
    steps = Phase.model_validate(
        {
            "name": "load",
            "kind": "stress",
            "duration": "60s",
            "edits_per_minute": 60,
            "step_connections": 2,
            "max_connections": 8,
            "step_ramp": "0.5s",
            "step_settle": "0s",
            "step_hold": "4s",
        }
    )
    scenario = context.scenario.model_copy(update={"phases": (steps,), "objectives": ()})
    return replace(context, scenario=scenario)


async def ready_for(
    context: RunContext, fleet: FakeFleet, levels: Sequence[Level | Halt]
) -> Conductor:
    """Return one that takes these levels of load, one after another, whatever comes of them."""
    return await ready(
        in_steps(context), fleet, chooses=lambda _scenario, _phase, steps: levels[len(steps)]
    )


def lose_answer(monkeypatch: pytest.MonkeyPatch, conductor: Conductor, number: int) -> list[Order]:
    """Have one order written without an answer, the first time; return where it will stand."""
    issue = conductor.book.issue
    written: list[Order] = []

    async def issued(order: Order, **given: bool) -> Order:
        if order.number == number and not written:
            written.append(order)
            context = conductor.context
            context.store().put_message(context.layout.order(context.attempt, number), order)
            raise StoreError("no answer")
        return await issue(order, **given)

    monkeypatch.setattr(conductor.book, "issue", issued)
    return written
