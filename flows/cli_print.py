"""How the command line prints: tables whole, JSON, and errors as one message."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table


def complain(message: str, hint: str) -> None:
    """Tell an error on stderr, as one message."""
    console = Console(stderr=True)
    console.print(
        "relay-load:", message, style="red", markup=False, highlight=False, soft_wrap=True
    )
    if hint:
        console.print(hint, markup=False, highlight=False, soft_wrap=True)


def new_table(*columns: str) -> Table:
    """Return a table without lines; a column without a name may wrap."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column != "", overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print a table whole: a run's id that is cut short is of no use."""
    console = Console()
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    Console(width=max(console.width, needed)).print(table)


def print_json(value: Any) -> None:
    """Print a value on stdout, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
