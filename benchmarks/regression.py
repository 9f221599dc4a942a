"""The alarm: how often a regression is called that is none, and how often one is missed.

Synthetic relays of known capacity, with noise in each step, are searched by the search that runs
against real ones (`tasks.search`); no step here was recorded from a real relay. For each kind of
relay, noise and drift `--resamples` histories of eight searches are drawn, each followed by a
search of the same relay, by one of a relay that takes 20 % longer for everything (its capacity
is divided by 1.2), and by one of a relay whose capacity is 20 % less. Each is judged with the
judgement that the weekly run uses (`reports.trend`).

The last line is a JSON object: `false_alarms` (share of the unchanged relays that were called a
regression), `slower_found` and `fallen_found` (shares of the two others that were), over all
cases; `worst_false_alarms` and `worst_slower_found`, those of the worst case; `cases`, each kind,
noise and drift. It fails where false alarms are above 2 %, or less than 95 % of either was found,
over all cases together; a single noisy case may be worse, which is why the worst is told.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
from dataclasses import replace
from typing import get_args

from reports.history import Line
from reports.trend import LAST, trend_of
from tasks.search_answer import Quest
from tests.synthetic_relay import Shape, SyntheticRelay, searched

NOISES = (0.05, 0.10, 0.20, 0.30)
"""Standard deviation of the logarithm of a step's score."""
DRIFTS = (0.0, 0.03)
"""Standard deviation of the logarithm of a relay's capacity from one search to the next, as of
machines that are not alike from week to week."""
CHANGES = {"unchanged": 1.0, "slower": 1 / 1.2, "fallen": 0.8}
"""By what the capacity of the newest relay is multiplied."""
MOST_FALSE = 0.02
LEAST_FOUND = 0.95
_START = 20.0
_LIMIT = 20_000.0


def line_of(relay: SyntheticRelay, drift: float, number: int, draw: random.Random) -> Line:
    """Search a relay on a machine of that week, and return the history's line of it."""
    relay = replace(relay, capacity=relay.capacity * math.exp(draw.gauss(0, drift)))
    found, _ = searched(lambda load: relay.step(load, draw), Quest(start=_START, limit=_LIMIT))
    return Line(
        run_id=f"run-{number}",
        at_us=number,
        scenario="synthetic",
        asks="same",
        relay_url="ws://127.0.0.1/",
        relay_version="",
        fleet="local",
        validity="valid",
        verdict="passed",
        kind=found.kind,
        over="connections",
        capacity=found.capacity,
        low=found.low,
        high=found.high,
    )


def judged(shape: Shape, noise: float, drift: float, seed: int) -> dict[str, bool]:
    """Draw one history; return for each change whether it was called a regression."""
    draw = random.Random(f"{shape} {noise} {drift} {seed}")  # noqa: S311 - reproducible, and no secret
    relay = SyntheticRelay(shape, capacity=draw.uniform(100, 600), noise=noise)
    history = [line_of(relay, drift, number, draw) for number in range(LAST)]
    called = {}
    for name, times in CHANGES.items():
        newest = line_of(replace(relay, capacity=relay.capacity * times), drift, LAST, draw)
        called[name] = trend_of([*history, newest], newest=newest.run_id).has_regressed
    return called


def main() -> int:
    """Print each case, and the last line's JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regression")
    parser.add_argument("--resamples", type=int, default=100, help="for each kind, noise and drift")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    cases = {}
    seeds = range(options.seed * 100_003, options.seed * 100_003 + options.resamples)
    for shape, noise, drift in itertools.product(get_args(Shape), NOISES, DRIFTS):
        called = [judged(shape, noise, drift, seed) for seed in seeds]
        shares = {name: sum(one[name] for one in called) / len(called) for name in CHANGES}
        name = f"{shape}, noise {noise:g}, drift {drift:g}"
        cases[name] = shares
        print(f"{name:32}", ", ".join(f"{change} {share:.2f}" for change, share in shares.items()))
    means = {name: _mean([case[name] for case in cases.values()]) for name in CHANGES}
    last = {
        "false_alarms": means["unchanged"],
        "slower_found": means["slower"],
        "fallen_found": means["fallen"],
        "worst_false_alarms": max(case["unchanged"] for case in cases.values()),
        "worst_slower_found": min(case["slower"] for case in cases.values()),
        "resamples": options.resamples,
        "cases": cases,
    }
    print(json.dumps(last))
    found = min(means["slower"], means["fallen"])
    return int(means["unchanged"] > MOST_FALSE or found < LEAST_FOUND)


def _mean(shares: list[float]) -> float:
    return round(sum(shares) / len(shares), 4)


if __name__ == "__main__":
    sys.exit(main())
