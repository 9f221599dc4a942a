"""Bringing a run into DuckDB: how to get into the store, its samples, and its facts as tables."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import duckdb
import pyarrow as pa

from reports.facts import PhaseFacts, RunFacts
from reports.parts import UnreadablePart, read_each
from run_store.errors import CannotRunError, StoreError
from run_store.layout import Part
from run_store.messages import LostWorker
from run_store.samples import SCHEMAS
from run_store.store import Store, StoreAddress

_READERS = 8
_SQL_TYPES = {
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.list_(pa.int64()): "BIGINT[]",
}
_PLACE = {"attempt": "INTEGER", "phase": "phase_label", "worker": "worker_name"}
_DERIVED = {
    "deliveries": {
        "counts": "BOOLEAN",
        "seen_at_us": "BIGINT",
        "apart_us": "BIGINT",
        "error_us": "BIGINT",
    }
}
"""What `read_deliveries.sql` adds to the columns of the schema."""
_PARTS_OF_S3 = """
CREATE MACRO parts_of(files) AS TABLE
SELECT * FROM read_parquet(
    files, hive_partitioning = true, hive_types_autocast = false,
    hive_types = {'attempt': INTEGER, 'phase': VARCHAR, 'worker': VARCHAR})
"""
_INSERT_PHASE = """
INSERT INTO phase_facts VALUES (
    $label, $index, $name, $kind, $attempt, $complete, $started_us, $ended_us, $planned_s,
    $connections_start, $connections_end, $edits_per_s_start, $edits_per_s_end, $edits_planned,
    $stopped_early)
"""


def connect(address: StoreAddress, folder: Path, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """Return a new database in `folder` that can read from the store.

    Raises CannotRunError if httpfs cannot be loaded, StoreError if there are no credentials.
    """
    connection = duckdb.connect(
        str(folder / "run.duckdb"),
        config={
            "memory_limit": memory_limit,
            "threads": max(2, os.cpu_count() or 2),
            "temp_directory": str(folder / "spill"),
            "preserve_insertion_order": False,
        },
    )
    # A library must not draw bars across its caller's terminal.
    connection.execute("SET enable_progress_bar = false")
    _load_httpfs(connection)
    _give_secret(connection, address)
    connection.execute(_PARTS_OF_S3)
    return connection


def _load_httpfs(connection: duckdb.DuckDBPyConnection) -> None:
    """Load the extension from its wheel, which needs no network, or else from DuckDB's own site."""
    try:
        wheel = resources.files("duckdb_extension_httpfs")
        file = next(
            path
            for path in Path(str(wheel)).glob("extensions/*/httpfs.duckdb_extension")
            if path.parent.name == f"v{duckdb.__version__}"
        )
        connection.load_extension(str(file))
    except (ModuleNotFoundError, StopIteration, duckdb.Error):
        try:
            connection.install_extension("httpfs")
            connection.load_extension("httpfs")
        except duckdb.Error as error:
            raise CannotRunError(
                f"DuckDB's httpfs extension cannot be loaded: {error}",
                hint=f"Install duckdb-extension-httpfs=={duckdb.__version__} beside duckdb.",
            ) from None


def _give_secret(connection: duckdb.DuckDBPyConnection, address: StoreAddress) -> None:
    """Tell DuckDB how to get into the store; the keys are bound, so that no error shows them."""
    key, secret, token = address.secrets() or _keys_of_the_environment()
    endpoint = urlsplit(address.endpoint_url) if address.endpoint_url else None
    region = address.region or (
        "us-east-1" if endpoint else boto3.session.Session().region_name or "us-east-1"
    )
    parameters: dict[str, Any] = {
        "key": key,
        "secret": secret,
        "token": token,
        "region": region,
        "endpoint": endpoint.netloc + endpoint.path.rstrip("/")
        if endpoint
        else f"s3.{region}.amazonaws.com",
        "style": "path" if endpoint else "vhost",
        "ssl": endpoint is None or endpoint.scheme == "https",
    }
    try:
        connection.execute(
            "CREATE SECRET store (TYPE s3, KEY_ID $key, SECRET $secret, SESSION_TOKEN $token,"
            " REGION $region, ENDPOINT $endpoint, URL_STYLE $style, USE_SSL $ssl)",
            parameters,
        )
    except duckdb.Error:
        raise StoreError(
            f"DuckDB cannot use the address of the store {address.url}.",
            hint="Check its endpoint and region.",
        ) from None


def _keys_of_the_environment() -> tuple[str, str, str]:
    credentials = boto3.session.Session().get_credentials()
    if credentials is None:
        raise StoreError(
            "There are no AWS credentials.", hint="Set AWS_PROFILE, or the keys, as for boto3."
        )
    frozen = credentials.get_frozen_credentials()
    return frozen.access_key or "", frozen.secret_key or "", frozen.token or ""


def name_places(connection: duckdb.DuckDBPyConnection, places: Collection[tuple[str, str]]) -> None:
    """Make the types of the columns `phase` and `worker`, of the names that occur (phase, worker).

    As text they would cost more to store than all other columns of a delivery.
    """
    connection.execute("CREATE TEMP TABLE places (phase VARCHAR, worker VARCHAR)")
    connection.executemany("INSERT INTO places VALUES (?, ?)", sorted(places) or [("", "")])
    connection.execute(
        "CREATE TYPE phase_label AS ENUM (SELECT DISTINCT phase FROM places ORDER BY phase);"
        "CREATE TYPE worker_name AS ENUM (SELECT DISTINCT worker FROM places ORDER BY worker)"
    )


def read_parts(
    connection: duckdb.DuckDBPyConnection, store: Store, kind: str, parts: Sequence[Part]
) -> list[UnreadablePart]:
    """Read parts of a kind into its table `all_<kind>`; return those that cannot be read.

    Raises PartsChangedError if an agent has compacted parts since they were listed.
    """
    root = f"s3://{store.address.bucket}/{store.address.prefix}"

    def read(some: Sequence[Part]) -> None:
        insert_samples(connection, kind, files=[root + part.key for part in some])

    with _more_threads(connection):
        return read_each(parts, read, is_there=lambda part: store.get(part.key) is not None)


@contextlib.contextmanager
def _more_threads(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let more threads wait for the store than there are cores: small parts cost round trips."""
    before = connection.execute("SELECT current_setting('threads')").fetchall()[0][0]
    connection.execute("SET threads = $threads", {"threads": max(_READERS, before)})
    connection.execute("SET prefetch_all_parquet_files = true")
    try:
        yield
    finally:
        connection.execute("SET threads = $threads", {"threads": before})


def make_table(connection: duckdb.DuckDBPyConnection, kind: str) -> None:
    """Make the table `all_<kind>`, empty."""
    columns = columns_of(kind) | _DERIVED.get(kind, {})
    declared = ", ".join(f'"{name}" {type_}' for name, type_ in columns.items())
    connection.execute(f"CREATE TABLE all_{kind} ({declared})")


def insert_samples(
    connection: duckdb.DuckDBPyConnection, kind: str, *, files: Sequence[str] = ()
) -> None:
    """Insert what `parts_of` gives for these files into `all_<kind>`."""
    if kind == "deliveries":
        statement = (resources.files("reports") / "read_deliveries.sql").read_text("utf-8")
    else:
        # A part of another version may lack a column, or have one more: it is read all the same.
        # Only names that this project declares stand in the text; what is data is bound.
        wanted = ", ".join(f"'{name}'" for name in columns_of(kind))
        statement = (
            f"INSERT INTO all_{kind} BY NAME SELECT COLUMNS(c -> c IN ({wanted}))"  # noqa: S608 - ours
            " FROM parts_of($files)"
        )
    connection.execute(statement, {"files": list(files)})


def columns_of(kind: str) -> dict[str, str]:
    """Return the columns of a kind's samples with their SQL types, and those of their place."""
    return {column.name: _SQL_TYPES[column.type] for column in SCHEMAS[kind]} | _PLACE


def put_facts(
    connection: duckdb.DuckDBPyConnection, facts: RunFacts, phases: Sequence[PhaseFacts]
) -> int:
    """Make the tables `phase_facts`, `lost_workers` and `run`; return when the run began, in us."""
    connection.execute(
        "CREATE TABLE phase_facts (label VARCHAR, index INTEGER, name VARCHAR, kind VARCHAR,"
        " attempt INTEGER, complete BOOLEAN, started_us BIGINT, ended_us BIGINT,"
        " planned_s DOUBLE, connections_start DOUBLE, connections_end DOUBLE,"
        " edits_per_s_start DOUBLE, edits_per_s_end DOUBLE, edits_planned BIGINT,"
        " stopped_early VARCHAR)"
    )
    for phase in phases:
        values = dataclasses.asdict(dataclasses.replace(phase, record=None))
        values.pop("record")
        connection.execute(_INSERT_PHASE, values)
    connection.execute(
        "CREATE TABLE lost_workers (phase VARCHAR, worker VARCHAR, last_seen_us BIGINT,"
        " noticed_us BIGINT, connections INTEGER, reason VARCHAR, replaced_by VARCHAR,"
        " replaced_from VARCHAR)"
    )
    # Every later phase's record tells of a lost worker again, and may know who replaced it.
    told: dict[tuple[str, int], tuple[str, LostWorker]] = {}
    for phase in phases:
        for lost in phase.record.lost if phase.record else ():
            first, _ = told.get((lost.worker, lost.last_seen_us), (phase.label, lost))
            told[lost.worker, lost.last_seen_us] = (first, lost)
    for label, lost in told.values():
        connection.execute(
            "INSERT INTO lost_workers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                label,
                lost.worker,
                lost.last_seen_us,
                lost.noticed_us,
                lost.connections,
                lost.reason,
                lost.replaced_by,
                lost.replaced_from,
            ],
        )
    found = connection.execute(
        "SELECT coalesce((SELECT min(started_us) FROM phase_facts),"
        " (SELECT min(at_us) FROM all_resources), (SELECT min(intended_us) FROM all_edits),"
        " $created)",
        {"created": facts.record.created_us},
    ).fetchone()
    origin_us = found[0] if found else facts.record.created_us
    connection.execute(
        "CREATE TABLE run AS SELECT $run_id AS run_id, $origin::BIGINT AS origin_us",
        {"run_id": facts.record.run_id, "origin": origin_us},
    )
    return int(origin_us)
