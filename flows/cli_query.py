"""`relay-load query`: SQL on the samples of a run, at a prompt or in one go."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from rich.console import Console

from flows.cli_print import complain
from flows.cli_rows import write_csv, write_json
from reports.engine import query_answers, query_names, query_parameters, query_text
from reports.questions import Questions, is_whole, statements_of
from reports.wording import clock_time
from run_store.errors import InterruptedRunError, RelayLoadError, UsageError

Format = Literal["table", "csv", "json"]
MOST_ROWS = {True: 200, False: 10_000}
"""Rows of a table that are shown: at a prompt, and otherwise. CSV and JSON have all."""
WIDEST = 100_000
HISTORY_LINES = 2000
HELP = """\
Any SQL of DuckDB, ended by a semicolon; nothing can be changed. And:
.tables            the tables and views
.schema [NAME]     their columns, or those of one
.queries           the report's own queries, by name, and what each answers
.show NAME         the SQL of one
.run NAME [K=V]    runs one, with its parameters
.help              this
.quit              ends it, as Ctrl-D does; Ctrl-C cancels a statement"""
COMMANDS = (".tables", ".schema", ".queries", ".show", ".run", ".help", ".quit")


def sql_of(sql: str | None, file: Path | None) -> str | None:
    """Return what shall be run: of `--sql`, of `--file`, or of stdin; None means a prompt.

    Raises UsageError if both are given or the file cannot be read.
    """
    if sql is not None and file is not None:
        raise UsageError("--sql and --file are two ways to say the same.", hint="Give one.")
    if sql is not None:
        return sql
    try:
        if file is not None:
            return file.read_text(encoding="utf-8")
        return None if sys.stdin.isatty() else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file or 'stdin'} cannot be read as SQL: {error}.") from None


@dataclass(frozen=True)
class Shell:
    """Carries out statements and dot commands on one run, and prints what they give."""

    questions: Questions
    format: Format
    out: TextIO

    def run(self, text: str) -> None:
        """Carry out all statements of a text, and the dot commands that have a line of their own.

        Raises QuestionError at the first that fails.
        """
        statements: list[str] = []
        for line in text.splitlines(keepends=True):
            if line.lstrip().startswith(".") and (not statements or is_whole("".join(statements))):
                self._sql("".join(statements))
                statements.clear()
                self.command(line)
            else:
                statements.append(line)
        self._sql("".join(statements))

    def command(self, line: str) -> None:
        """Carry out one dot command. Raises UsageError if it is none."""
        name, *words = line.split()
        if name == ".tables":
            self._lines(f"{table:<22} {kind}" for table, kind, _ in self.questions.relations())
        elif name == ".schema":
            self._schema(words[0] if words else None)
        elif name == ".queries":
            self._lines(self._described())
        elif name == ".show" and len(words) == 1:
            self.out.write(_text_of(words[0]))
        elif name == ".run" and words:
            text = _text_of(words[0])
            self._statement(text, _bound(words[0], words[1:]))
        elif name == ".help":
            self._lines(HELP.splitlines())
        else:
            raise UsageError(f"{line.strip()} is no command.", hint="`.help` lists them.")

    def _sql(self, text: str) -> None:
        for statement in statements_of(text):
            self._statement(statement, None)

    def _statement(self, statement: str, parameters: dict[str, object] | None) -> None:
        if self.format == "table":
            is_terminal = self.out.isatty()
            width = shutil.get_terminal_size().columns if is_terminal else WIDEST
            most_rows = MOST_ROWS[is_terminal]
            self.out.write(
                self.questions.table(statement, parameters, width=width, most_rows=most_rows)
            )
        else:
            write = write_csv if self.format == "csv" else write_json
            write(*self.questions.rows(statement, parameters), self.out)
        self.out.flush()

    def _schema(self, wanted: str | None) -> None:
        found = [entry for entry in self.questions.relations() if wanted in (None, entry[0])]
        if not found:
            raise UsageError(f"There is no table or view {wanted}.", hint="`.tables` lists them.")
        for name, kind, columns in found:
            shown = ", ".join(f"{column} {type_}" for column, type_ in columns)
            self._lines([f"{name} ({kind})", *_wrapped(shown)])

    def _described(self) -> Iterator[str]:
        for name in query_names():
            needs = " ".join(f"{parameter}=..." for parameter in query_parameters(name))
            yield f"{name} {needs}".strip()
            yield from _wrapped(query_answers(name))

    def _lines(self, lines: Iterator[str] | list[str]) -> None:
        self.out.writelines(f"{line}\n" for line in lines)


def prompt(shell: Shell, *, run_id: str, history: Path) -> None:
    """Read statements from the terminal until Ctrl-D or `.quit`; errors are told, and end nothing.

    A statement ends with a semicolon and may take several lines. Ctrl-C cancels it.
    """
    first, more = f"{run_id}> ", f"{'...':>{len(run_id)}}> "
    typed: list[str] = []
    with _line_editing(history, _completions(shell.questions)):
        while True:
            try:
                line = input(more if typed else first)
                if not typed and line.strip() in (".quit", ".exit"):
                    return
                if not typed and line.lstrip().startswith("."):
                    shell.command(line)
                elif typed or line.strip():
                    typed.append(line + "\n")
                    if is_whole("".join(typed)):
                        text = "".join(typed)
                        typed.clear()
                        shell.run(text)
            except EOFError:
                shell.out.write("\n")
                return
            except KeyboardInterrupt:
                typed.clear()
                shell.out.write("\n")
            except InterruptedRunError as error:
                complain(error.message, "")
            except RelayLoadError as error:
                typed.clear()
                complain(error.message, error.hint)


def greet(console: Console, questions: Questions, run_id: str, *, at_prompt: bool) -> None:
    """Say what the reader has to know of a run before asking: that it goes on, or is empty."""
    newest = f"{clock_time(questions.last_us)} UTC" if questions.last_us else ""
    if questions.facts.is_running:
        so_far = f"what follows is of its samples up to {newest}" if newest else "nothing came yet"
        _say(console, f"{run_id} is still going on; {so_far}.", "yellow")
    elif not questions.samples:
        _say(console, f"{run_id} has no samples: its tables are empty.", "yellow")
    if at_prompt:
        _say(console, f"{questions.samples:,} samples. `.help` lists the commands.", "dim")


def _say(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def history_file() -> Path:
    """Return where the statements that were typed are kept."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "relay-load" / "query-history"


def _text_of(name: str) -> str:
    try:
        return query_text(name)
    except ValueError:
        raise UsageError(
            f"There is no query called {name}.", hint="`.queries` lists them."
        ) from None


def _bound(name: str, words: list[str]) -> dict[str, object] | None:
    """Return a query's parameters out of `key=value`; what reads as a number is one."""
    given = dict(word.partition("=")[::2] for word in words)
    wanted = query_parameters(name)
    if set(given) != set(wanted):
        needs = " ".join(f"{parameter}=VALUE" for parameter in wanted)
        raise UsageError(f"{name} takes {needs or 'no parameters'}.", hint="`.show` shows its SQL.")
    return {key: _value(text) for key, text in given.items()} or None


def _value(text: str) -> object:
    if text.lower() == "null":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _wrapped(text: str) -> list[str]:
    indent = "    "
    return textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=indent)


def _completions(questions: Questions) -> list[str]:
    names = {name for table, _, columns in questions.relations() for name in (table, *_of(columns))}
    return sorted({*COMMANDS, *names, *query_names()})


def _of(columns: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in columns]


@contextlib.contextmanager
def _line_editing(history: Path, words: list[str]) -> Iterator[None]:
    """Give `input` editing, completion by Tab and a history, where Python has readline."""
    try:
        import readline  # noqa: PLC0415 - not every Python has it, and importing it is what acts
    except ImportError:
        yield
        return
    readline.set_completer(_completer(words))
    readline.set_completer_delims(" \t\n(),;=")
    bind = "bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete"
    readline.parse_and_bind(bind)
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)


def _completer(words: list[str]) -> Callable[[str, int], str | None]:
    def complete(begun: str, place: int) -> str | None:
        found = [word for word in words if word.startswith(begun)]
        return found[place] if place < len(found) else None

    return complete
