"""`python -m benchmarks [NAME ...]`: run the benchmarks and write benchmarks/results.md."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.md"
FIGURES = FOLDER / "results.json"
BENCHMARKS = {
    "density": "How many connections fit on one machine",
    "delivery_cost": "What a delivery costs the generator's CPU",
    "truth": "Known faults of the relay against what the report says",
    "report_speed": "A whole report over a large run",
    "deploy": "How long agents take to deploy to other hosts",
    "findings": "Findings on runs with known anomalies",
    "capacity": "Whether the capacity that a search finds is the true one",
    "regression": "Falls of the capacity that are none, and those that are missed",
}
"""The benchmarks in the order in which they are run, and what each answers."""


def machine() -> str:
    """Return what these figures were measured on, in one line."""
    memory_gb = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {memory_gb:.0f} GiB, {system}"


def run(name: str) -> dict[str, Any]:
    """Run one benchmark in a process of its own; return the object that it prints last."""
    began = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True, check=False
    )
    last = (process.stdout.strip().splitlines() or ["{}"])[-1]
    try:
        figures = json.loads(last)
    except json.JSONDecodeError:
        figures = {}
    return {
        "exit_code": process.returncode,
        "seconds": round(time.monotonic() - began),
        "measured": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "machine": machine(),
        "figures": figures,
    }


def as_markdown(results: dict[str, dict[str, Any]]) -> str:
    """Return all results as one page."""
    lines = ["# What was measured", "", "Written by `make bench`.", ""]
    for name, title in BENCHMARKS.items():
        if name not in results:
            continue
        result = results[name]
        lines += [
            f"## {title}",
            "",
            f"`python -m benchmarks.{name}`, {result['measured']}, {result['machine']}, "
            f"{result['seconds']} s"
            + ("" if result["exit_code"] == 0 else f", **exit code {result['exit_code']}**"),
            "",
            "| figure | value |",
            "|---|---|",
        ]
        for key, value in result["figures"].items():
            lines += _rows(key, value)
        lines.append("")
    return "\n".join(lines)


def _rows(key: str, value: Any) -> list[str]:
    if key == "rows" and isinstance(value, list):
        return [
            f"| {row['case']} (wanted {row['wanted']}, within {row['tolerance'] * 100:.2g} %) "
            f"| {row['got']}{'' if row['ok'] else ' **missed**'} |"
            for row in value
        ]
    if isinstance(value, dict):
        return [f"| {key} {inner} | {_shown(figure)} |" for inner, figure in value.items()]
    return [f"| {key} | {_shown(value)} |"]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return json.dumps(value) if isinstance(value, bool | list) else str(value)


def main() -> int:
    """Run what was asked for, all by default; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], default=[])
    wanted = parser.parse_args().names or list(BENCHMARKS)
    results = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    for name in wanted:
        print(f"{name}: {BENCHMARKS[name]} ...", flush=True)
        results[name] = run(name)
        print(f"{name}: exit code {results[name]['exit_code']}, {results[name]['seconds']} s")
        FIGURES.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        RESULTS.write_text(as_markdown(results), encoding="utf-8")
    print(f"written: {RESULTS}")
    return int(any(results[name]["exit_code"] for name in wanted))


if __name__ == "__main__":
    sys.exit(main())
