"""The results as a table in a document."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.case import Case, Result

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def as_markdown(results: Sequence[Result], summary: str) -> str:
    """Return a row for each case: what was done, how the run ended, what became of its samples."""
    lines = [
        f"`make faults`: {summary}.",
        "",
        "| case | what is done | the run ends as | processes left | rows of samples | its report |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        rows = f"{result.rows_spooled - result.rows_lost} of {result.rows_spooled}"
        cells = (
            f"{result.case.name}{'' if result.is_good else ' **failed**'}",
            result.case.done,
            f"not tried: {result.skipped}" if result.skipped else result.ended_as or "-",
            len(result.leaks) or "none",
            rows if result.rows_spooled else "none taken",
            result.report,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def with_earlier(results: Sequence[Result], output: Path, cases: Sequence[Case]) -> list[Result]:
    """Return, in the cases' order, these results and for all other cases those of an earlier run.

    `output` is what that run printed, and `make` behind it. Raises ValueError if it ended without
    its results.
    """
    lines = output.read_text(encoding="utf-8").splitlines()
    last = next((line for line in reversed(lines) if line.startswith("{")), "")
    if not last:
        raise ValueError(f"{output} does not end with the results of a run")
    known = {case.name: case for case in cases}
    every = {
        name: Result.from_json(known[name], row)
        for row in json.loads(last)["rows"]
        if (name := row["case"]) in known
    }
    every |= {result.case.name: result for result in results}
    return [every[name] for name in known if name in every]


def write_into(document: Path, results: Sequence[Result], summary: str) -> None:
    """Put the table between the marks of a document. Raises ValueError if it has none."""
    text = document.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{document} has no {BEGIN} and {END}")
    block = f"{BEGIN}\n{as_markdown(results, summary)}\n{END}"
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    document.write_text(re.sub(pattern, lambda _: block, text, flags=re.DOTALL), encoding="utf-8")
