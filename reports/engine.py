"""A run's samples as a DuckDB database: read once from S3, then asked by named queries."""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from reports.facts import PhaseFacts, RunFacts, in_turn, phase_from_samples, read_facts
from reports.loading import connect, insert_samples, make_table, name_places, put_facts, read_parts
from reports.parts import (
    Listing,
    MissingPart,
    PartsChangedError,
    Sequel,
    UnreadablePart,
    list_parts,
    missing_parts,
)
from reports.unrecovered import Lack, lacks
from run_store.errors import StoreError
from run_store.layout import Part, RunLayout
from run_store.samples import SCHEMAS
from run_store.store import Store

MEMORY_LIMIT = "1500MB"
_RELISTINGS = 3
_DELIVERIES_ARE_READ = "50"
"""Files of views whose names come before this need no deliveries, and reading those needs them."""
_COMMENT = re.compile(r"^\s*--\s?(.*)$")
_PARAMETER = re.compile(r"\$([a-z_]+)")


@dataclass(frozen=True)
class RunDatabase:
    """A run's samples and facts, as tables and views of one DuckDB connection.

    It is a snapshot of the moment of opening: an agent may compact its parts meanwhile. The
    tables live in a folder of their own, which `close` removes; use it in a `with`.
    """

    run_id: str
    facts: RunFacts
    phases: tuple[PhaseFacts, ...]
    connection: duckdb.DuckDBPyConnection
    parts: tuple[Part, ...]
    unreadable: tuple[UnreadablePart, ...]
    missing: tuple[MissingPart, ...]
    origin_us: int
    thinned: bool
    unrecovered: tuple[Lack, ...] = ()
    """What workers had taken and the bucket does not hold, by worker and interval."""
    _folder: contextlib.ExitStack = field(repr=False, default_factory=contextlib.ExitStack)

    def rows(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """Return a named query's rows, each a dict by column.

        Parameters that the query does not name are an error, as are those that it lacks.
        """
        cursor = self._execute(name, parameters)
        columns = [column[0] for column in cursor.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    def columns(self, name: str, /, **parameters: Any) -> dict[str, list[Any]]:
        """Return a named query's result as a list for each column, for charts and tables."""
        return self.table(name, **parameters).to_pydict()

    def table(self, name: str, /, **parameters: Any) -> pa.Table:
        """Return a named query's result as an Arrow table."""
        return self._execute(name, parameters).to_arrow_table()

    def row(self, name: str, /, **parameters: Any) -> dict[str, Any]:
        """Return the single row of a query that gives one."""
        (row,) = self.rows(name, **parameters)
        return row

    def count(self, kind: str) -> int:
        """Return how many samples of a kind there are in the attempts that count."""
        if kind not in SCHEMAS:
            raise ValueError(f"no samples are called {kind}")
        (count,) = self.connection.table(kind).count("*").fetchall()[0]
        return int(count)

    def close(self) -> None:
        """Close the connection and remove what it kept on disk. May be called again."""
        self.connection.close()
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _execute(self, name: str, parameters: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        return self.connection.execute(query_text(name), parameters or None)


def open_run(store: Store, run_id: str, *, memory_limit: str = MEMORY_LIMIT) -> RunDatabase:
    """Read a run from the bucket into a database of its own.

    Parts that cannot be read are left out and named in `unreadable`; those that a worker
    numbered and that are not there, or cannot be read, in `missing`. Raises NoSuchRunError,
    and StoreError if the store refuses or does not answer.
    """
    facts = read_facts(store, run_id)
    for _ in range(_RELISTINGS):
        with contextlib.suppress(PartsChangedError):
            return _read(store, facts, memory_limit)
    raise StoreError(
        f"The samples of {run_id} change faster than they can be read.",
        hint="Try again when the phase is over.",
    )


def database_in_memory(
    facts: RunFacts, samples: Mapping[str, pa.Table], *, threads: int = 1
) -> RunDatabase:
    """Return a run's database without a store, from samples by kind.

    Each table has the kind's columns, and `attempt`, `phase` (a label) and `worker`.
    """
    with contextlib.ExitStack() as stack:
        connection = duckdb.connect(config={"threads": threads, "preserve_insertion_order": False})
        stack.callback(connection.close)
        connection.execute("SET enable_progress_bar = false")
        places: set[tuple[str, str]] = set()
        for table in samples.values():
            names = table.select(["phase", "worker"]).group_by(["phase", "worker"]).aggregate([])
            places.update((row["phase"], row["worker"]) for row in names.to_pylist())
        name_places(connection, places)

        def read(kind: str) -> None:
            if kind in samples:
                connection.register("arriving", samples[kind])
                connection.execute(
                    "CREATE OR REPLACE MACRO parts_of(files) AS TABLE SELECT * FROM arriving"
                )
                insert_samples(connection, kind)
                connection.unregister("arriving")

        origin_us, thinned = _assemble(connection, facts, facts.phases, read)
        return RunDatabase(
            run_id=facts.record.run_id,
            facts=facts,
            phases=facts.phases,
            connection=connection,
            parts=(),
            unreadable=(),
            missing=(),
            origin_us=origin_us,
            thinned=thinned,
            _folder=stack.pop_all(),
        )


def _read(store: Store, facts: RunFacts, memory_limit: str) -> RunDatabase:
    """Read the parts that are there now, and make the tables and views over them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-load-report-")))
        connection = connect(store.address, folder, memory_limit)
        stack.callback(connection.close)
        listing = list_parts(store, RunLayout(facts.record.run_id))
        name_places(connection, {(part.phase, part.worker) for part in listing.parts})
        phases = _counted_phases(facts, listing)
        unreadable = [*listing.unreadable]

        def read(kind: str) -> None:
            unreadable.extend(read_parts(connection, store, kind, listing.of(kind)))

        origin_us, thinned = _assemble(connection, facts, phases, read)
        bad = {part.part.key for part in unreadable}
        readable = tuple(part for part in listing.parts if part.key not in bad)
        missing = tuple(missing_parts(_last_numbers(facts, phases), readable, _counted(phases)))
        return RunDatabase(
            run_id=facts.record.run_id,
            facts=facts,
            phases=phases,
            connection=connection,
            parts=readable,
            unreadable=tuple(unreadable),
            missing=missing,
            # Of a run that goes on, parts are on their way.
            unrecovered=()
            if facts.is_running
            else lacks(
                store, missing=missing, parts=readable, statuses=facts.statuses, phases=phases
            ),
            origin_us=origin_us,
            thinned=thinned,
            _folder=stack.pop_all(),
        )


def _assemble(
    connection: duckdb.DuckDBPyConnection,
    facts: RunFacts,
    phases: Sequence[PhaseFacts],
    read: Callable[[str], None],
) -> tuple[int, bool]:
    """Make all tables and views; `read` puts a kind's samples into its table.

    Returns when the run began, in microseconds, and whether any delivery stands for several.
    """
    for kind in SCHEMAS:
        make_table(connection, kind)
        if kind != "deliveries":
            read(kind)
    connection.begin()  # many small inserts, written to disk once
    origin_us = put_facts(connection, facts, phases)
    connection.commit()
    names = _view_names()
    before = [name for name in names if name < _DELIVERIES_ARE_READ]
    for name in before:
        connection.execute(_sql_text("views", name))
    read("deliveries")
    ((thinned,),) = connection.execute(
        "SELECT coalesce(bool_or(weight <> 1), false) FROM all_deliveries"
    ).fetchall()
    for name in _chosen(names[len(before) :], thinned=thinned):
        connection.execute(_sql_text("views", name))
    return origin_us, bool(thinned)


def query_names() -> list[str]:
    """Return the names of all queries, in order."""
    folder = resources.files("reports") / "queries"
    return sorted(
        entry.name.removesuffix(".sql") for entry in folder.iterdir() if entry.name.endswith(".sql")
    )


@functools.cache
def query_text(name: str) -> str:
    """Return the SQL of a named query. Raises ValueError if there is none of that name."""
    if name not in query_names():
        raise ValueError(f"no query is called {name}")
    return _sql_text("queries", f"{name}.sql")


def query_answers(name: str) -> str:
    """Return what a query answers: the comment at its head, as one line."""
    lines: list[str] = []
    for line in query_text(name).splitlines():
        match = _COMMENT.match(line)
        if not match:
            break
        lines.append(match[1])
    return " ".join(lines)


def query_parameters(name: str) -> list[str]:
    """Return the names of the parameters that a query binds, in the order of the alphabet."""
    code = re.sub(r"--[^\n]*", "", query_text(name))
    return sorted(set(_PARAMETER.findall(code)))


def _sql_text(folder: str, name: str) -> str:
    return (resources.files("reports") / folder / name).read_text(encoding="utf-8")


def _view_names() -> list[str]:
    entries = (resources.files("reports") / "views").iterdir()
    return sorted(entry.name for entry in entries if entry.name.endswith(".sql"))


def _chosen(names: Sequence[str], *, thinned: bool) -> Iterator[str]:
    """Yield the files of views to execute.

    Those that end in `.weighted.sql` stand in for their plain twins when deliveries were
    thinned: exact quantiles of weighted rows need a sort of their own.
    """
    for name in names:
        if name.endswith(".weighted.sql"):
            if thinned:
                yield name
        elif not (thinned and name.removesuffix(".sql") + ".weighted.sql" in names):
            yield name


def _counted_phases(facts: RunFacts, listing: Listing) -> tuple[PhaseFacts, ...]:
    """Return every phase that a record, an order or a sample tells of, in order."""
    known = {phase.label: phase for phase in facts.phases}
    attempts: dict[str, int] = {}
    for part in listing.parts:
        attempts[part.phase] = max(attempts.get(part.phase, 0), part.attempt)
    for label, attempt in attempts.items():
        known.setdefault(label, phase_from_samples(label, attempt, facts.scenario))
    return tuple(sorted(known.values(), key=in_turn))


def _counted(phases: Sequence[PhaseFacts]) -> frozenset[tuple[str, int]]:
    return frozenset((phase.label, phase.attempt) for phase in phases)


def _last_numbers(facts: RunFacts, phases: Sequence[PhaseFacts]) -> dict[Sequel, int]:
    """Return the last part's number by a complete phase's record, or by a worker's last status."""
    last: dict[Sequel, int] = {}
    for status in facts.statuses:
        for label, kinds in status.parts.items():
            for kind, number in kinds.items():
                last[Sequel(kind, status.attempt, label, status.worker)] = number
    for phase in phases:
        for worker, kinds in (phase.record.parts if phase.record else {}).items():
            for kind, number in kinds.items():
                last[Sequel(kind, phase.attempt, phase.label, worker)] = number
    return last
