"""A run's tables and views, opened for reading only: what people ask in SQL of their own."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

import duckdb

from reports.engine import MEMORY_LIMIT, open_run
from reports.facts import RunFacts
from run_store.errors import InterruptedRunError, UsageError
from run_store.store import Store

T = TypeVar("T")
ROWS_AT_ONCE = 10_000
_LOOK_EVERY_S = 0.1
_SETTINGS = {
    # Nothing that is asked reaches the bucket, the disk or the network, or changes this.
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "lock_configuration": "true",
    "memory_limit": MEMORY_LIMIT,
}


class QuestionError(UsageError):
    """DuckDB did not understand a statement, or could not carry it out."""


@dataclass(frozen=True)
class Questions:
    """What can be asked of one run. All of it may be interrupted by Ctrl-C.

    `samples` is how many samples there are, `last_us` the time of the newest of them in
    microseconds since the epoch (None without any).
    """

    facts: RunFacts
    samples: int
    last_us: int | None
    _connection: duckdb.DuckDBPyConnection

    def rows(
        self, statement: str, parameters: Mapping[str, object] | None = None
    ) -> tuple[list[str], Iterator[Sequence[tuple[Any, ...]]]]:
        """Carry out one statement; return its columns, and its rows some thousands at a time.

        Raises QuestionError with DuckDB's own words, InterruptedRunError after Ctrl-C.
        """
        bound = dict(parameters) if parameters else None
        cursor = self._wait_for(lambda: self._connection.execute(statement, bound))
        columns = [column[0] for column in cursor.description or ()]

        def pieces() -> Iterator[Sequence[tuple[Any, ...]]]:
            while piece := self._wait_for(lambda: cursor.fetchmany(ROWS_AT_ONCE)):
                yield piece

        return columns, pieces()

    def table(
        self,
        statement: str,
        parameters: Mapping[str, object] | None = None,
        *,
        width: int,
        most_rows: int,
    ) -> str:
        """Carry out one statement; return its result drawn as a table, `width` characters wide.

        Columns without room and rows beyond `most_rows` are left out, which the table then says.
        Control characters are escaped. Raises as `rows` does.
        """
        text = io.StringIO()

        def draw() -> None:
            found = self._connection.sql(statement, params=dict(parameters) if parameters else None)
            if found is not None:
                found = _with_short_types(found)
                with contextlib.redirect_stdout(text):
                    found.show(max_width=width, max_rows=most_rows, max_col_width=width)

        self._wait_for(draw)
        return text.getvalue()

    def relations(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """Return every table and view: name, what it is, and its columns with their types."""
        _, pieces = self.rows(
            "SELECT t.table_name, if(t.table_type = 'VIEW', 'view', 'table'),"
            " list((c.column_name, c.data_type) ORDER BY c.ordinal_position)"
            " FROM information_schema.tables t JOIN information_schema.columns c"
            " USING (table_schema, table_name) WHERE table_schema = 'main' GROUP BY ALL ORDER BY 1"
        )
        # The values of an ENUM (all phases, all workers) would drown its column's name.
        return [
            (name, kind, [(c, "ENUM" if t.startswith("ENUM") else t) for c, t in columns])
            for piece in pieces
            for name, kind, columns in piece
        ]

    def _wait_for(self, work: Callable[[], T]) -> T:
        """Run in a thread, so that Ctrl-C can interrupt DuckDB and leaves it usable."""
        done: Future[T] = Future()

        def carry_out() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                done.set_exception(error)

        thread = Thread(target=carry_out, name="query", daemon=True)
        try:
            thread.start()
            # Not in one wait: one without an end would keep Ctrl-C waiting as well. Nor in a join:
            # of one that Ctrl-C ends Python takes the thread for ended.
            while not wait([done], _LOOK_EVERY_S).done:
                pass
        except KeyboardInterrupt:
            self._interrupt(done)
            raise InterruptedRunError("The statement was cancelled.") from None
        thread.join()
        try:
            return done.result()
        except duckdb.Error as error:
            raise QuestionError(str(error).strip()) from None

    def _interrupt(self, done: Future[Any]) -> None:
        """End what a thread carries out, however far it has come.

        Python that ends while DuckDB is at work in a thread is aborted.
        """
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # pressed again: it is being done
                if done.cancel() or done.done():
                    return
                # Again and again: DuckDB forgets it as a statement begins.
                self._connection.interrupt()
                wait([done], _LOOK_EVERY_S)


def _with_short_types(found: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Return a relation whose ENUMs are text: a type that names all workers is no column's head."""
    types = dict(zip(found.columns, found.types, strict=True))
    if len(types) < len(found.columns) or not any(t.id == "enum" for t in types.values()):
        return found
    text = duckdb.sqltype("VARCHAR")
    columns = {name: duckdb.ColumnExpression(name) for name in types}
    return found.select(
        *(
            column.cast(text).alias(name) if types[name].id == "enum" else column
            for name, column in columns.items()
        )
    )


@contextlib.contextmanager
def open_questions(store: Store, run_id: str) -> Iterator[Questions]:
    """Read a run from the bucket, and give it for reading only, for as long as the `with`.

    It is a snapshot: of a run that goes on, of what has arrived so far. Raises NoSuchRunError,
    and StoreError if the store refuses or does not answer.
    """
    with open_run(store, run_id) as database:
        samples = sum(row["samples"] for row in database.rows("sample_counts"))
        (last_us,), (file,) = (
            database.connection.execute(statement).fetchall()[0]
            for statement in (
                "SELECT max(at_us) FROM all_resources",
                "SELECT path FROM duckdb_databases() WHERE NOT internal",
            )
        )
        database.connection.close()
        connection = duckdb.connect(file, read_only=True, config=dict(_SETTINGS))
        try:
            yield Questions(database.facts, samples, last_us, connection)
        finally:
            connection.close()


def statements_of(text: str) -> list[str]:
    """Return the statements of a text one by one. Raises QuestionError if it is no SQL."""
    try:
        return [statement.query for statement in duckdb.extract_statements(text)]
    except duckdb.Error as error:
        raise QuestionError(str(error).strip()) from None


def is_whole(text: str) -> bool:
    """Say whether a text ends a statement: with a semicolon that no quote or comment holds."""
    place, ends = 0, False
    while place < len(text):
        if text.startswith("--", place):
            place = _after(text, "\n", place)
        elif text.startswith("/*", place):
            place = _after(text, "*/", place + 2)
        elif text[place] in "'\"":
            # A doubled quote inside is the end of one text and the beginning of the next.
            closed = text.find(text[place], place + 1)
            if closed < 0:
                return False
            place, ends = closed + 1, False
        else:
            ends = text[place] == ";" or (ends and text[place].isspace())
            place += 1
    return ends


def _after(text: str, what: str, place: int) -> int:
    found = text.find(what, place)
    return len(text) if found < 0 else found + len(what)
