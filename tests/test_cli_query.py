"""`relay-load query`: SQL on a run's samples, in one go and at a prompt."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from flows.cli_query import Format, Shell
from reports.engine import query_names, query_parameters, query_text
from reports.questions import Questions, is_whole, open_questions
from run_store.errors import InterruptedRunError, UsageError
from run_store.store import Store, StoreAddress
from tests.command_line import (
    PROGRAM,
    Ended,
    environment,
    relay_load,
    store_arguments,
    store_environment,
)
from tests.reports.synthetic import healthy_run
from tests.store_server import StoreServer
from tests.waiting import wait_for

ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range % 7 = b.range;"
AT_A_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture(scope="module")
def address(store_server: StoreServer) -> StoreAddress:
    """Give a store with a run that ended, one that goes on, and one without samples."""
    address = store_server.address.model_copy(update={"prefix": "queries/"})
    store = Store(address)
    healthy_run("local-done").write(store)
    going = healthy_run("local-going")
    going.incomplete = ("cooldown",)
    going.record_changes = {"ended_us": None, "state": "running"}
    going.write(store)
    empty = healthy_run("local-empty")
    empty.samples = {}
    empty.write(store)
    return address


def ask(address: StoreAddress, folder: Path, *arguments: str) -> Ended:
    return relay_load(
        "query",
        *arguments,
        *store_arguments(address),
        cwd=folder,
        variables=store_environment(address),
    )


class Prompt:
    """The command at a terminal of its own."""

    def __init__(self, address: StoreAddress, folder: Path) -> None:
        self.terminal, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", AT_A_TERMINAL, str(PROGRAM), "query", "done"),
                *store_arguments(address),
            ],
            cwd=folder,
            env=environment(folder, **store_environment(address)),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def until(self, text: str, within_s: float = 90) -> str:
        """Read until `text` was shown; return what was shown since the last time."""
        deadline = time.monotonic() + within_s
        while text not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], 0.2)
            if ready:
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
        shown, _, self.seen = self.seen.partition(text)
        return shown

    def type(self, text: str) -> None:
        """Type a text; a line ends with a newline."""
        os.write(self.terminal, text.encode())


@pytest.fixture(scope="module")
def questions(address: StoreAddress) -> Iterator[Questions]:
    with open_questions(Store(address), "local-done") as questions:
        yield questions


def printed(questions: Questions, text: str, output: Format = "table") -> str:
    out = io.StringIO()
    Shell(questions, output, out).run(text)
    return out.getvalue()


def test_rows_come_in_the_format_that_was_asked_for(questions: Questions) -> None:
    """JSON and CSV can be read back; nulls are null or empty, and a table draws its columns."""
    sql = "SELECT name, connections_end AS n, NULL AS x, [index] AS l FROM phases ORDER BY index"
    read = json.loads(printed(questions, sql, "json"))
    assert read[1] == {"name": "sustained", "n": 8.0, "x": None, "l": [1]}
    rows = csv.reader(io.StringIO(printed(questions, sql, "csv")))
    assert list(rows)[:2] == [["name", "n", "x", "l"], ["warmup", "4.0", "", "[0]"]]
    assert "│ sustained │" in printed(questions, sql)


def test_values_that_json_lacks_are_written_so_that_it_can_be_read(questions: Questions) -> None:
    """Times, decimals, bytes and numbers that are none become text, numbers or null."""
    sql = (
        "SELECT 'nan'::DOUBLE AS n, 1.5::DECIMAL(4, 1) AS d, 'a'::BLOB AS b, DATE '2026-01-02' AS t"
    )
    assert json.loads(printed(questions, sql, "json")) == [
        {"n": None, "d": 1.5, "b": "61", "t": "2026-01-02"}
    ]
    assert json.loads(printed(questions, "SELECT 1 AS x WHERE false", "json")) == []


def test_a_file_may_name_queries_and_hold_several_statements(
    address: StoreAddress, tmp_path: Path
) -> None:
    """SQL over several lines and dot commands are carried out in their order."""
    file = tmp_path / "ask.sql"
    file.write_text("SELECT 41 +\n 1 AS answer;\n.run distribution metric=delivery_ms\nSELECT 'z';")
    out = ask(address, tmp_path, "done", "--file", str(file)).out
    assert out.index("answer") < out.index("p95") < out.index("'z'")


@pytest.mark.parametrize("name", query_names())
def test_every_query_of_the_report_can_be_run(questions: Questions, name: str) -> None:
    """Each named query runs by `.run` with values for its parameters, and `.show` shows it."""
    values = {"metric": "delivery_ms", "phase": "null"}
    words = " ".join(f"{key}={values.get(key, '5')}" for key in query_parameters(name))
    assert printed(questions, f".run {name} {words}").startswith("┌")
    assert query_text(name) in printed(questions, f".show {name}")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nope FROM edits", 'Referenced column "nope" not found'),
        ("DROP TABLE run", "read-only mode"),
        ("COPY edits TO 'edits.csv'", "disabled by configuration"),
        ("SELECT * FROM read_text('/etc/hostname')", "disabled by configuration"),
        (".nope", ".nope is no command."),
        (".run nope", "There is no query called nope."),
        (".run distribution", "distribution takes metric=VALUE."),
    ],
)
def test_what_cannot_be_asked_is_told(
    questions: Questions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, told: str
) -> None:
    """A mistake is told in DuckDB's words; nothing is changed, read or written elsewhere."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(told)):
        printed(questions, sql)
    assert not list(tmp_path.iterdir())
    assert "42" in printed(questions, "SELECT 42")


def test_a_run_that_goes_on_or_is_empty_is_said_to_be(
    address: StoreAddress, tmp_path: Path
) -> None:
    """The answer is given all the same; an unknown run ends with 1."""
    going = ask(address, tmp_path, "going", "--sql", "SELECT 1")
    assert (going.code, "local-going is still going on" in going.told) == (0, True)
    empty = ask(address, tmp_path, "empty", "--format=csv", "--sql", "SELECT count(*) FROM edits")
    assert (empty.code, empty.out.split()[-1]) == (0, "0")
    assert "local-empty has no samples" in empty.told
    bad = ask(address, tmp_path, "done", "--sql", "SELEC 1")
    assert (bad.code, bad.out, 'syntax error at or near "SELEC"' in bad.told) == (2, "", True)
    none = ask(address, tmp_path, "nobody", "--sql", "SELECT 1")
    assert (none.code, "There is no run nobody" in none.told) == (1, True)


@pytest.fixture
def prompt(address: StoreAddress, tmp_path: Path) -> Iterator[Prompt]:
    with Prompt(address, tmp_path) as prompt:
        prompt.until("local-done> ")
        yield prompt


def test_the_prompt_survives_mistakes_and_ctrl_c(prompt: Prompt, tmp_path: Path) -> None:
    """Bad SQL is told, Ctrl-C cancels a statement, and Ctrl-D ends with 0 and a history."""
    prompt.type("SELECT name\n")
    prompt.until("...> ")
    prompt.type("FROM phases WHERE kind = 'warmup';\n")
    assert "│ warmup" in prompt.until("local-done> ")
    prompt.type("SELEC 1;\n")
    assert "syntax error" in prompt.until("local-done> ")
    prompt.type(".queries\n")
    assert "timeline_1s" in prompt.until("local-done> ")
    prompt.type(ENDLESS + "\n")
    # Only its use of the CPU tells that DuckDB is at it; until then Ctrl-C would cancel the line.
    command = psutil.Process(prompt.process.pid)
    idle_s = command.cpu_times().user
    wait_for(lambda: command.cpu_times().user > idle_s + 0.5, within_s=60)
    prompt.type("\x03")
    assert "The statement was cancelled." in prompt.until("local-done> ")
    prompt.type("SELECT 6 * 7 AS answer;\n")
    assert "42" in prompt.until("local-done> ")
    prompt.type("\x04")
    assert prompt.process.wait(timeout=60) == 0
    history = tmp_path / ".local" / "state" / "relay-load" / "query-history"
    assert "SELEC 1;" in history.read_text()


def test_ctrl_c_ends_what_has_no_prompt(address: StoreAddress, tmp_path: Path) -> None:
    """A statement of `--sql` that is interrupted ends the command with 130 and one message."""
    process = subprocess.Popen(
        [str(PROGRAM), "query", "going", "--sql", ENDLESS, *store_arguments(address)],
        cwd=tmp_path,
        env=environment(tmp_path, **store_environment(address)),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    # It says that the run goes on when it has opened it, just before it asks.
    assert "still going on" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=90)
    assert (process.returncode, "Traceback" in told) == (130, False), told


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_as_a_statement_begins_is_heard(
    address: StoreAddress, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """It ends what had just begun, and what had not never begins; nothing goes on behind it."""

    class Struck(threading.Thread):
        def start(self) -> None:
            if begun:
                super().start()
            raise KeyboardInterrupt

    with open_questions(Store(address), "local-done") as questions:
        with monkeypatch.context() as patched:
            patched.setattr("reports.questions.Thread", Struck)
            with pytest.raises(InterruptedRunError, match="was cancelled"):
                questions.rows(ENDLESS)
        wait_for(lambda: not [one for one in threading.enumerate() if one.name == "query"])
        _, pieces = questions.rows("SELECT 6 * 7")
        assert [row for piece in pieces for row in piece] == [(42,)]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("SELECT 1;", True),
        ("SELECT 1;  \n", True),
        ("SELECT 1; -- said", True),
        ("SELECT 1; /* said */\n", True),
        ("SELECT 1", False),
        ("SELECT ';", False),
        ("SELECT ';'", False),
        ("SELECT 'it''s;';", True),
        ('SELECT 1 AS ";', False),
        ("SELECT 1 -- not yet;", False),
        ("SELECT 1 /* ;", False),
        ("SELECT 1; SELECT", False),
        ("", False),
    ],
)
def test_a_statement_ends_where_a_semicolon_ends_it(text: str, whole: bool) -> None:
    """Semicolons in quotes and comments end nothing."""
    assert is_whole(text) is whole
