"""The kinds of samples: their columns, types and units, declared once.

Times are `*_us`: microseconds since the epoch on the worker's own clock (its monotonic clock,
anchored once to its wall clock, so that a clock step during the run moves nothing). Worker,
phase and attempt stand in the key, and come back as columns when parts are read.
"""

from __future__ import annotations

import pyarrow as pa

_us = pa.int64()
_ms = pa.float64()
_f = pa.float64()
_id = pa.int32()
_text = pa.string()


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


EDITS = _schema(
    edit=pa.int64(),  # index in the attempt, over the whole fleet
    document=_id,
    generation=_id,  # how many documents this one has followed, from edits_per_document
    connection=_id,  # the writer
    intended_us=_us,  # when the pacer's schedule says
    started_us=_us,  # when it was made; null: it never was (missed, or failed before its start)
    acknowledged_us=_us,  # when the relay's heads covered it; null: not seen to
    held=pa.bool_(),  # it waited for its connection: its lateness is not the generator's
    error=_text,  # null, `missed` (the generator was too late), or the type of the failure
)
"""One row for each edit that the schedule holds, written once its outcome is known."""

DELIVERIES = _schema(
    edit=pa.int64(),
    document=_id,
    generation=_id,
    writer=_id,  # connection
    observer=_id,  # connection
    intended_us=_us,  # on the writer's worker's clock
    sent_us=_us,  # when the edit was made, on the writer's worker's clock
    seen_us=_us,  # when the observer's replica showed it, on the observer's worker's clock
    same_worker=pa.bool_(),  # writer and observer share a clock
    repeat=pa.int32(),  # 1 the first time that this replica showed it, 2 if it was shown again
    weight=_f,  # deliveries that this row stands for; 1 unless thinned
)
"""One row for each edit shown by each other connection's replica."""

CONNECTIONS = _schema(
    at_us=_us,
    connection=_id,
    document=_id,
    generation=_id,
    event=_text,  # see CONNECTION_EVENTS
    duration_ms=_ms,  # since this connecting began; for `dropped` and `closed`: time it was open
    tries=_id,  # sockets that this connection has opened so far
    cause=_text,  # of `failed` and `dropped`
)
CONNECTION_EVENTS = (
    "opening",  # a socket is being opened
    "open",  # the WebSocket is open
    "handshake",  # the relay's `peer` message came
    "synced",  # the replica holds what the relay's heads say; once for each document
    "failed",  # this try ended before `handshake`
    "dropped",  # ended by the other side, or by the network, after `handshake`
    "closed",  # ended by us, as the plan says
    "bootstrapped",  # the manifest was fetched
)
"""The events of a connection; `tries` above 1 makes a `synced` a recovery."""

RESOURCES = _schema(
    at_us=_us,
    cpu_percent=_f,  # of all cores of the machine, 0-100
    agent_cpu_percent=_f,  # of one core
    browser_cpu_percent=_f,  # of one core, all browser processes together
    rss_mb=_f,  # of the agent, MiB
    browser_pss_mb=_f,  # of all browser processes, MiB
    js_heap_mb=_f,  # of all pages, MiB
    loop_lag_ms=_ms,  # how late the agent's event loop was, worst in the second
    page_lag_ms=_ms,  # how late a page's timer was, worst in the second over all pages
    connections_target=_id,  # by the plan, at this instant
    connections_open=_id,  # with a handshake
    connections_synced=_id,  # whose replica is in sync
    connections_healthy=_id,  # open, and their last edit (if any) acknowledged
    sockets_attempted=_id,  # connections that are open or being tried: what the generator does
    edits_pending=_id,  # made and not yet acknowledged
    clock_offset_ms=_ms,  # this worker's clock minus the relay's; null: unknown
    clock_error_ms=_ms,  # bound of that
    disk_free_mb=_f,  # for the spool
)
"""One row a second for each worker."""

RELAY = _schema(
    at_us=_us,  # when the poll was sent
    response_ms=_ms,  # null: no answer
    error=_text,  # null: answered in full; else why not
    timestamp_ms=_ms,  # the relay's own clock
    connections=_id,
    memory_rss_mb=_f,
    memory_total_mb=_f,
    uptime_s=_f,
    pid=_id,
    cpu_seconds=_f,  # null unless the relay publishes it
    version=_text,  # likewise
)
"""One row a second, from the one worker that samples the relay."""

ERRORS = _schema(
    at_us=_us,
    type=_text,  # a short, stable word such as `handshake_timeout`
    message=_text,
    connection=_id,  # null: not of a connection
    document=_id,
)
"""One row for each error; an agent thins repeats beyond 100 a second of a type (see `weight`)."""
ERRORS = ERRORS.append(pa.field("weight", _f))

REPLICAS = _schema(
    at_us=_us,
    connection=_id,
    document=_id,
    generation=_id,
    in_sync=pa.bool_(),  # our heads and the relay's are the same, nothing on its way
    heads=_text,  # sorted hashes, joined by commas
    edits=pa.int64(),  # edits that this replica shows
    missing=pa.list_(pa.int64()),  # edits of the schedule that it does not show (at most 1000)
    changed_us=_us,  # when it last changed
)
"""One row for each replica, taken while nothing writes: at a cool-down's end, or when its
document is retired."""

SCHEMAS: dict[str, pa.Schema] = {
    "edits": EDITS,
    "deliveries": DELIVERIES,
    "connections": CONNECTIONS,
    "resources": RESOURCES,
    "relay": RELAY,
    "errors": ERRORS,
    "replicas": REPLICAS,
}
"""Every kind of sample, by the name that stands in its key."""
KINDS = tuple(SCHEMAS)
