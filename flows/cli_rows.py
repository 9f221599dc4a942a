"""How rows are written for programs: CSV and JSON, some thousands at a time."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, TextIO

Rows = Iterable[Sequence[tuple[Any, ...]]]


def write_csv(columns: Sequence[str], rows: Rows, out: TextIO) -> None:
    """Write a header and the rows; what is null is an empty cell."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for piece in rows:
        writer.writerows([["" if v is None else _cell(v) for v in row] for row in piece])


def write_json(columns: Sequence[str], rows: Rows, out: TextIO) -> None:
    """Write one array with an object for each row, each on a line of its own."""
    out.write("[")
    between = "\n"
    for piece in rows:
        for row in piece:
            out.write(between + json.dumps(dict(zip(columns, map(_plain, row), strict=True))))
            between = ",\n"
    out.write("\n]\n")


def _cell(value: Any) -> Any:
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    return json.dumps(_plain(value)) if isinstance(value, list | dict) else value


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers that are none are null, times are ISO 8601."""
    match value:
        case float() if not math.isfinite(value):
            plain: Any = None
        case None | bool() | int() | float() | str():
            plain = value
        case Decimal():
            plain = float(value)
        case dt.datetime() | dt.date():
            plain = value.isoformat()
        case list() | tuple():
            plain = [_plain(entry) for entry in value]
        case dict():
            plain = {str(key): _plain(entry) for key, entry in value.items()}
        case bytes():
            plain = value.hex()
        case _:
            plain = str(value)
    return plain
