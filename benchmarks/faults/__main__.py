"""`python -m benchmarks.faults`: do to runs whatever may happen to them, and count what is left.

Prints a row for each case, `N cases, 0 leaks, 0 rows lost, 0 hung`, and one JSON object last.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.faults import (
    cases_agent,
    cases_cancel,
    cases_ec2,
    cases_flow,
    cases_heartbeat,
    cases_machine,
    cases_network,
    cases_orchestrator,
    cases_prefect,
    cases_relay,
    cases_retry,
    cases_rings,
    cases_store,
)
from benchmarks.faults.audit import audit
from benchmarks.faults.case import Case, HungError, Result, Scale, SkippedError
from benchmarks.faults.site import Site
from benchmarks.faults.stage import Stage, set_stage
from benchmarks.faults.table import with_earlier, write_into

FAMILIES = (
    cases_flow,
    cases_agent,
    cases_machine,
    cases_network,
    cases_orchestrator,
    cases_relay,
    cases_store,
    cases_prefect,
    cases_cancel,
    cases_retry,
    cases_rings,
    cases_heartbeat,
    cases_ec2,
)


def all_cases(scale: Scale) -> list[Case]:
    """Return every case, in the order in which they are played; each has a name of its own."""
    cases = [case for family in FAMILIES for case in family.cases(scale)]
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise ValueError(f"Several cases are called {', '.join(twice)}.")
    return cases


def chosen(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """Return the cases whose name matches one of the patterns, all if there is none."""
    return [
        case
        for case in cases
        if not patterns or any(fnmatch.fnmatch(case.name, f"*{pattern}*") for pattern in patterns)
    ]


def play(stage: Stage, case: Case) -> Result:
    """Play one case, look at what is left of it, and clean up."""
    result, began = Result(case), time.monotonic()
    site = Site(stage, case.name)
    try:
        try:
            result.ended_as = case.play(site)
        except SkippedError as error:
            result.skipped = str(error)
        except HungError as error:
            result.hung, result.problem = True, str(error)
        except Exception as error:  # noqa: BLE001 - a row says it, and the next case comes
            result.problem = f"{type(error).__name__}: {error}"
        finally:
            # What a case started besides its run is no leak of the run's.
            site.before_audit.close()
        audit(site, result)
    except Exception as error:  # noqa: BLE001 - likewise
        result.problem = result.problem or f"audit: {type(error).__name__}: {error}"
    finally:
        site.clean()
    result.seconds = time.monotonic() - began
    return result


def played(stage: Stage, cases: Sequence[Case], jobs: int) -> Iterator[Result]:
    """Play cases, several at once; give each result as it comes.

    The first ones have an end before others begin: one may say how long a run takes that has as
    many beside it.
    """
    with ThreadPoolExecutor(jobs) as pool:
        for some in (cases[:jobs], cases[jobs:]):
            yield from pool.map(lambda case: play(stage, case), some)


def row(result: Result) -> str:
    """Return a result as one line."""
    mark = "FAIL" if not result.is_good else "skip" if result.skipped else "ok  "
    text = (
        f"{mark} {result.case.name:<34} {result.ended_as or '-':<12} leaks {len(result.leaks)}"
        f"  lost {result.rows_lost}/{result.rows_spooled}  twice {result.rows_twice}"
        f"  {result.seconds:5.1f} s  report: {result.report}"
    )
    for line in (*result.leaks, result.problem, result.skipped):
        text += f"\n       {line}" if line else ""
    return text


def totals(results: Sequence[Result]) -> dict[str, int]:
    """Return what the cases came to, counted."""
    return {
        "cases": len(results),
        "skipped": sum(bool(result.skipped) for result in results),
        "failed": sum(not result.is_good for result in results),
        "leaks": sum(len(result.leaks) for result in results),
        "rows_spooled": sum(result.rows_spooled for result in results),
        "rows_lost": sum(result.rows_lost for result in results),
        "rows_twice": sum(result.rows_twice for result in results),
        "hung": sum(result.hung for result in results),
    }


def in_words(counted: dict[str, int]) -> str:
    """Return the totals as one line; of what there must be none, it says so."""
    text = (
        f"{counted['cases']} cases, {counted['leaks']} leaks, {counted['rows_lost']} rows lost, "
        f"{counted['hung']} hung"
    )
    for name, words in (("failed", "failed"), ("skipped", "not tried")):
        text += f", {counted[name]} {words}" if counted[name] else ""
    return text


def document(
    file: Path, results: list[Result], earlier: Path | None, cases: list[Case], again: Sequence[str]
) -> None:
    """Write the table into a document; say there which results are not of one and the same run."""
    if earlier is None:
        write_into(file, results, in_words(totals(results)))
        return
    every = with_earlier(results, earlier, cases)
    write_into(
        file, every, f"{in_words(totals(every))} (played again by themselves: {', '.join(again)})"
    )


def main(arguments: Sequence[str]) -> int:
    """Play what was asked for; return 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=__doc__)
    parser.add_argument("--full", action="store_true", help="20 instants, outages at full length")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=3, help="cases at once")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--keep", type=Path, help="keep the cases' folders here")
    parser.add_argument("--document", type=Path, help="write the results' table into this one")
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="OUTPUT",
        help="what a whole run printed: the table has its results of the cases not played now",
    )
    options = parser.parse_args(arguments)
    if options.earlier and not options.only:
        parser.error("--earlier needs --only, which says what is played again")
    scale = Scale(seed=options.seed, full=options.full)
    cases = chosen(all_cases(scale), options.only)
    if options.list:
        for case in cases:
            print(f"{case.name:<36} {case.done}")
        return 0
    began, results = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stage = stack.enter_context(set_stage(folder.resolve(), scale))
        for result in played(stage, cases, options.jobs):
            results.append(result)
            print(row(result), flush=True)
    counted = totals(results)
    seconds = round(time.monotonic() - began)
    print(in_words(counted))
    if options.document is not None:
        document(options.document, results, options.earlier, all_cases(scale), options.only)
    rows = [result.as_json() for result in results]
    print(json.dumps({**counted, "seconds": seconds, "seed": scale.seed, "rows": rows}))
    return int(counted["failed"] > 0 or not results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
