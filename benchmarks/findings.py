"""How well the findings find: runs with known anomalies, and runs with none.

    python -m benchmarks.findings [--runs 250] [--seed 7]

Of the runs of each strength, one in five is clean; the others have one or two anomalies, of every
kind in turn. No run is judged twice. A finding is right if its kind (and worker) is that of an
anomaly whose window it shares, and the only one that tells of it. It is neither right nor wrong
if the anomaly brings it with it (a restart drops connections). All else is wrong, notes too.
Thresholds were tuned on seed 1. The last line is JSON: `f1`, `precision`, `recall` and
`causes_right` (right findings whose likely cause is right, too) at the middle strength,
`clean_false_rate` (clean runs with a finding above `note`), `kinds`. It fails where f1 is below
0.95 at the middle strength, or more than 2 % of the clean runs have such a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from statistics import mean
from typing import Any

from benchmarks.synthetic_anomalies import (
    CONSEQUENCES,
    STRENGTHS,
    Anomaly,
    Strength,
    inject,
    place,
    right_causes,
)
from benchmarks.synthetic_store import open_in_memory
from benchmarks.synthetic_world import BEGAN_US, World, draw_world
from reports.findings import find
from reports.findings.finding import KINDS, Finding, Kind

CLEAN_EVERY = 5
LEAST_F1 = 0.95
MOST_CLEAN_FALSE = 0.02
_NEAR_S = 12.0


@dataclass
class Score:
    """Counts for one kind or for all, at one strength or at all."""

    right: int = 0
    wrong: int = 0
    missed: int = 0
    causes_right: int = 0
    overlaps: list[float] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """Share of the findings that are right; 1 if there are none."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Share of the anomalies that were found; 1 if there are none."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def make_run(seed: int, number: int, strength: Strength) -> tuple[World, list[Anomaly]]:
    """Return the run of a number: clean, or with one or two anomalies of different kinds."""
    world = draw_world(seed * 1_000_003 + STRENGTHS.index(strength) * 100_003 + number)
    if number % CLEAN_EVERY == 0:
        return world, []
    anomalies: list[Anomaly] = []
    first = (number - number // CLEAN_EVERY) % len(KINDS)
    kinds = [KINDS[first]]
    if world.draw.random() < 0.3:  # noqa: PLR2004 - some runs have two
        other = KINDS[int(world.draw.integers(len(KINDS)))]
        kinds += [other] if other != kinds[0] else []
    for kind in kinds:
        anomaly = place(world, kind, strength, anomalies)
        inject(world, anomaly)
        anomalies.append(anomaly)
    return world, anomalies


def overlap(finding: Finding, anomaly: Anomaly) -> float:
    """Return the shared time over the whole time of both windows (Jaccard's index)."""
    from_s, to_s = _window(finding)
    shared = min(to_s, anomaly.to_s) - max(from_s, anomaly.from_s)
    whole = max(to_s, anomaly.to_s) - min(from_s, anomaly.from_s)
    return max(shared, 0.0) / whole if whole > 0 else 1.0


def _window(finding: Finding) -> tuple[float, float]:
    return (finding.started_us - BEGAN_US) / 1e6, (finding.ended_us - BEGAN_US) / 1e6


def _is_near(finding: Finding, anomaly: Anomaly, within_s: float) -> bool:
    from_s, to_s = _window(finding)
    return from_s < anomaly.to_s + within_s and anomaly.from_s < to_s + within_s


def is_right(finding: Finding, anomaly: Anomaly, world: World) -> bool:
    """Say whether a finding tells of an anomaly: its kind, its worker, and time that they share."""
    if finding.kind != anomaly.kind:
        return False
    if anomaly.worker is not None and finding.worker != world.workers[anomaly.worker]:
        return False
    return _is_near(finding, anomaly, 2.0)


@dataclass
class Judged:
    """What came of one run or of many: scores by kind, clean runs, and what was wrong, in words."""

    scores: dict[Kind, Score] = field(default_factory=lambda: {kind: Score() for kind in KINDS})
    clean: int = 0
    clean_false: int = 0
    remarks: list[str] = field(default_factory=list)

    def add(self, other: Judged) -> None:
        """Count another's runs in."""
        for kind, score in other.scores.items():
            mine = self.scores[kind]
            mine.right += score.right
            mine.wrong += score.wrong
            mine.missed += score.missed
            mine.causes_right += score.causes_right
            mine.overlaps += score.overlaps
        self.clean += other.clean
        self.clean_false += other.clean_false
        self.remarks += other.remarks

    def total(self) -> Score:
        """Return the score over all kinds."""
        whole = Score()
        for score in self.scores.values():
            whole.right += score.right
            whole.wrong += score.wrong
            whole.missed += score.missed
            whole.causes_right += score.causes_right
            whole.overlaps += score.overlaps
        return whole


def judge(found: list[Finding], anomalies: list[Anomaly], world: World) -> Judged:
    """Count what was found of a run's anomalies, what was not, and what is not there."""
    judged = Judged()
    told: set[int] = set()
    for finding in found:
        score = judged.scores[finding.kind]
        match = [i for i, a in enumerate(anomalies) if is_right(finding, a, world)]
        if match and match[0] not in told:
            told.add(match[0])
            score.right += 1
            score.overlaps.append(overlap(finding, anomalies[match[0]]))
            score.causes_right += finding.cause in right_causes(world, anomalies[match[0]])
        elif not any(
            finding.kind in CONSEQUENCES.get(a.kind, frozenset()) and _is_near(finding, a, _NEAR_S)
            for a in anomalies
        ):
            score.wrong += 1
            judged.remarks.append(f"{'twice' if match else 'wrong'} {_said(finding)}")
    for index, anomaly in enumerate(anomalies):
        if index not in told:
            judged.scores[anomaly.kind].missed += 1
            judged.remarks.append(f"missed {anomaly}")
    if not anomalies:
        judged.clean = 1
        judged.clean_false = int(any(finding.severity != "note" for finding in found))
    return judged


def _said(finding: Finding) -> str:
    return f"{finding.severity} {finding.kind}: {finding.sentence}"


def judge_run(seed: int, number: int, strength: Strength) -> tuple[Judged, list[str]]:
    """Make one run and judge its findings; return also what was put in and what was found."""
    world, anomalies = make_run(seed, number, strength)
    with open_in_memory(world) as database:
        found = find(database)
    judged = judge(found, anomalies, world)
    where = f"{strength} run {number} ({world.noise})"
    judged.remarks = [f"{where} {remark}" for remark in judged.remarks]
    story = [f"{where} had {[(a.kind, a.from_s, a.to_s) for a in anomalies]}"]
    return judged, story + [f"    {finding.cause}: {_said(finding)}" for finding in found]


def main() -> int:
    """Print precision and recall of each kind at each strength, and the last line's JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.findings")
    parser.add_argument("--runs", type=int, default=250, help="for each strength")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--strengths", nargs="*", default=list(STRENGTHS), choices=STRENGTHS)
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--verbose", action="store_true", help="say what was missed or wrong")
    parser.add_argument("--sentences", action="store_true", help="print every finding")
    options = parser.parse_args()
    by_strength: dict[Strength, Judged] = {}
    with ProcessPoolExecutor(options.processes) as pool:
        for strength in options.strengths:
            judged = by_strength[strength] = Judged()
            numbers = range(options.runs)
            runs = pool.map(judge_run, repeat(options.seed), numbers, repeat(strength), chunksize=5)
            for one, story in runs:
                judged.add(one)
                if options.sentences:
                    print("\n".join(story))
            print(_table(strength, judged))
            if options.verbose:
                print("\n".join(judged.remarks))
    last = _last_line(by_strength)
    print(json.dumps(last))
    return int(last["f1"] < LEAST_F1 or (last["clean_false_rate"] or 0) > MOST_CLEAN_FALSE)


def _table(strength: Strength, judged: Judged) -> str:
    whole = judged.total()
    head = (
        f"{strength:8} precision {whole.precision:.3f} recall {whole.recall:.3f} "
        f"f1 {whole.f1:.3f} overlap {mean(whole.overlaps or [0]):.2f} "
        f"clean {judged.clean_false} of {judged.clean} false"
    )
    lines = [
        f"   {kind:22} right {score.right:3} wrong {score.wrong:3} missed {score.missed:3} "
        f"causes right {score.causes_right:3} overlap {mean(score.overlaps or [0]):.2f}"
        for kind, score in judged.scores.items()
    ]
    return "\n".join([head, *lines])


def _last_line(by_strength: dict[Strength, Judged]) -> dict[str, Any]:
    middle: Strength = "middle" if "middle" in by_strength else next(iter(by_strength))
    whole = by_strength[middle].total()
    clean = sum(judged.clean for judged in by_strength.values())
    clean_false = sum(judged.clean_false for judged in by_strength.values())
    return {
        "f1": round(whole.f1, 4),
        "precision": round(whole.precision, 4),
        "recall": round(whole.recall, 4),
        "causes_right": round(whole.causes_right / max(whole.right, 1), 4),
        "overlap": round(mean(whole.overlaps or [0]), 3),
        "clean_false_rate": round(clean_false / clean, 4) if clean else None,
        "clean_runs": clean,
        "strengths": {
            strength: round(judged.total().f1, 4) for strength, judged in by_strength.items()
        },
        "kinds": {
            kind: {
                strength: {
                    "precision": round(judged.scores[kind].precision, 4),
                    "recall": round(judged.scores[kind].recall, 4),
                    "overlap": round(mean(judged.scores[kind].overlaps or [0]), 3),
                }
                for strength, judged in by_strength.items()
            }
            for kind in KINDS
        },
    }


if __name__ == "__main__":
    sys.exit(main())
