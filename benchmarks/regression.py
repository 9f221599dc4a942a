"""The alarm: how often a regression is called that is none, and how often one is missed.

Relays are searched by the search that runs against real ones (`tasks.search`): synthetic ones of
known capacity, with noise in each step, and one whose steps were recorded in real searches of the
local relay (`benchmarks.step_recording`) and are resampled (`benchmarks.recorded_relay`). For each
kind of synthetic relay, noise and drift, and for the recorded one, `--resamples` histories of
eight searches are drawn, each followed by a search of the same relay, by one of a relay that
takes 20 % longer for everything (its capacity is divided by 1.2), and by one of a relay whose
capacity is 20 % less. Each is judged with the judgement that the weekly run uses
(`reports.trend`).

The last line is a JSON object: `false_alarms` (share of the unchanged relays that were called a
regression), `slower_found` and `fallen_found` (shares of the two others that were), over all
synthetic cases; `worst_false_alarms` and `worst_slower_found`, those of the worst case; the same
as `recorded_...` for the recorded relay, if there is a recording; `cases`, each kind, noise and
drift. It fails where false alarms are above 2 %, or less than 95 % of either was found, over all
synthetic cases together or for the recorded relay; a single noisy case may be worse, which is why
the worst is told.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from benchmarks.recorded_relay import RecordedRelay
from benchmarks.step_recording import FILE, LIMIT
from reports.history import Line
from reports.trend import LAST, trend_of
from tasks.search_answer import Quest
from tasks.search_levels import Tried
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
QUEST = Quest(start=20.0, limit=20_000.0)
RECORDED_START = 12.0
Step = Callable[[float], Tried]
"""Takes a load, and says how a step of it went."""


def line_of(step: Step, quest: Quest, number: int) -> Line:
    """Search what takes these steps, and return the history's line of it."""
    found, _ = searched(step, quest)
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


def called(history: Sequence[Line], newest: Mapping[str, Line]) -> dict[str, bool]:
    """Return for each of several newest searches whether it is called a regression."""
    return {
        name: trend_of([*history, line], newest=line.run_id).has_regressed
        for name, line in newest.items()
    }


def judged(shape: Shape, noise: float, drift: float, seed: int) -> dict[str, bool]:
    """Draw one history of a synthetic relay, on a machine of each week; return what is called."""
    draw = random.Random(f"{shape} {noise} {drift} {seed}")  # noqa: S311 - reproducible, and no secret
    relay = SyntheticRelay(shape, capacity=draw.uniform(100, 600), noise=noise)

    def line(times: float, number: int) -> Line:
        capacity = relay.capacity * times * math.exp(draw.gauss(0, drift))
        this = replace(relay, capacity=capacity)
        return line_of(lambda load: this.step(load, draw), QUEST, number)

    history = [line(1.0, number) for number in range(LAST)]
    return called(history, {name: line(times, LAST) for name, times in CHANGES.items()})


def judged_recorded(relay: RecordedRelay, seed: int) -> dict[str, bool]:
    """Draw one history of the relay whose steps were recorded; likewise."""
    draw = random.Random(f"recorded {seed}")  # noqa: S311 - likewise
    quest = Quest(start=RECORDED_START, limit=LIMIT, is_whole=False)

    def line(times: float, number: int) -> Line:
        return line_of(replace(relay, slower=1 / times).week(draw), quest, number)

    history = [line(1.0, number) for number in range(LAST)]
    return called(history, {name: line(times, LAST) for name, times in CHANGES.items()})


def shares_of(all_called: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    """Return how often each change was called a regression."""
    return {name: sum(one[name] for one in all_called) / len(all_called) for name in CHANGES}


def main() -> int:
    """Print each case, and the last line's JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regression")
    parser.add_argument("--resamples", type=int, default=100, help="for each kind, noise and drift")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    cases = {}
    seeds = range(options.seed * 100_003, options.seed * 100_003 + options.resamples)
    for shape, noise, drift in itertools.product(get_args(Shape), NOISES, DRIFTS):
        name = f"{shape}, noise {noise:g}, drift {drift:g}"
        cases[name] = shares_of([judged(shape, noise, drift, seed) for seed in seeds])
        print(told(name, cases[name]))
    recorded = recorded_shares(seeds)
    means = {name: _mean([case[name] for case in cases.values()]) for name in CHANGES}
    last = {
        "false_alarms": means["unchanged"],
        "slower_found": means["slower"],
        "fallen_found": means["fallen"],
        "worst_false_alarms": max(case["unchanged"] for case in cases.values()),
        "worst_slower_found": min(case["slower"] for case in cases.values()),
        "resamples": options.resamples,
        **{f"recorded_{name}": share for name, share in recorded.items()},
        "cases": cases,
    }
    print(json.dumps(last))
    judged_ones = [means, recorded] if recorded else [means]
    found = min(shares[name] for shares in judged_ones for name in ("slower", "fallen"))
    false = max(shares["unchanged"] for shares in judged_ones)
    return int(false > MOST_FALSE or found < LEAST_FOUND)


def recorded_shares(seeds: Sequence[int]) -> dict[str, float]:
    """Return the shares of the recorded relay; nothing where none was recorded on this machine."""
    if not FILE.is_file():
        print(f"there is no {FILE.name}: python -m benchmarks.step_recording writes it")
        return {}
    relay = RecordedRelay.of_file(FILE)
    shares = shares_of([judged_recorded(relay, seed) for seed in seeds])
    searches, steps = len(relay.by_search), len(relay.seen)
    print(told(f"recorded, {searches} searches, {steps} steps", shares))
    return shares


def told(name: str, shares: Mapping[str, float]) -> str:
    """Return a case's shares as a line."""
    return f"{name:32} " + ", ".join(f"{change} {share:.2f}" for change, share in shares.items())


def _mean(shares: list[float]) -> float:
    return round(sum(shares) / len(shares), 4)


if __name__ == "__main__":
    sys.exit(main())
