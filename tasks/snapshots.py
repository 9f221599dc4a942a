"""The load as it is shown while it goes on: the heartbeats of the whole fleet, summed."""

from __future__ import annotations

from run_store.histogram import merge
from run_store.messages import RECONNECT, Order, Status
from run_store.schedule import connections_planned
from tasks.instants import now_us
from tasks.observation import Snapshot, current_observer
from tasks.order_book import OrderBook
from tasks.phase_record import label_of
from tasks.roll_call import RollCall


class Snapshots:
    """Shows the load to whoever looks on; remembers how far its phase is."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None

    @property
    def share_done(self) -> float:
        """How much of the phase in force is over, from 0 to 1."""
        last = self._last
        return last.elapsed_s / last.duration_s if last else 0.0

    def show(self, order: Order, book: OrderBook, roll: RollCall, *, workers: int) -> None:
        """Show how things stand in an order of a phase; `workers` is how many there should be.

        A phase that goes on with a further order is shown as one.
        """
        if order.phase is None:
            return
        first, duration_s = order, order.duration_s
        if order.phase.name != RECONNECT:
            first = next(iter(book.of_phase(order.phase.index)), order)
            if first is not order:
                duration_s = max(duration_s, book.planned_s(order.phase.index))
        at_us = now_us()
        elapsed_s = (at_us - first.starts_at_us) / 1e6
        self._last = snapshot_of(
            roll.statuses,
            label=label_of(order.phase),
            elapsed_s=min(max(elapsed_s, 0.0), duration_s),
            duration_s=duration_s,
            alive=len(roll.alive),
            workers=workers,
            connections_target=connections_planned(order, (at_us - order.starts_at_us) / 1e6),
            before=self._last,
        )
        current_observer().saw(self._last)


def snapshot_of(
    statuses: dict[str, Status],
    *,
    label: str,
    elapsed_s: float,
    duration_s: float,
    alive: int,
    workers: int,
    connections_target: int,
    before: Snapshot | None,
) -> Snapshot:
    """Sum the workers' heartbeats; `before` is the snapshot that rates are counted from."""
    all_of = list(statuses.values())
    offered = sum(s.counts.edits_offered for s in all_of)
    acknowledgement = merge(s.acknowledgement for s in all_of)
    delivery = merge(s.delivery for s in all_of)
    errors: dict[str, int] = {}
    for status in all_of:
        for kind, count in status.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    relay = [s.vitals for s in all_of if s.vitals.relay_connections is not None]
    rate = 0.0
    if before is not None and before.label == label and elapsed_s > before.elapsed_s:
        rate = (offered - before.edits_offered) / (elapsed_s - before.elapsed_s)
    return Snapshot(
        label=label,
        elapsed_s=elapsed_s,
        duration_s=duration_s,
        workers_alive=alive,
        workers=workers,
        connections_target=connections_target,
        connections_open=sum(s.vitals.connections_open for s in all_of),
        edits_offered=offered,
        edits_completed=sum(s.counts.edits_completed for s in all_of),
        edits_failed=sum(s.counts.edits_failed for s in all_of),
        edits_missed=sum(s.counts.edits_missed for s in all_of),
        edits_per_s=max(rate, 0.0),
        acknowledgement_p50_ms=acknowledgement.quantile(0.5),
        acknowledgement_p95_ms=acknowledgement.quantile(0.95),
        delivery_p50_ms=delivery.quantile(0.5),
        delivery_p95_ms=delivery.quantile(0.95),
        errors=sum(errors.values()),
        errors_by_type=errors,
        lateness_p99_ms=max((s.vitals.lateness_p99_ms for s in all_of), default=0.0),
        cpu_percent=max((s.vitals.cpu_percent for s in all_of), default=0.0),
        relay_memory_mb=relay[0].relay_memory_mb if relay else None,
        relay_connections=relay[0].relay_connections if relay else None,
    )
