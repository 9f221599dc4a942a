"""How well the findings find: runs with known anomalies, and runs with none.

    python -m benchmarks.findings [--runs 200] [--seed 7]

One run in five is clean; the others have one or two anomalies, of every kind in turn. A finding
is right if its kind (and worker) is that of an anomaly whose window it shares. It is neither
right nor wrong if the anomaly brings it with it (a restart drops connections). All else is wrong,
notes too. Thresholds were tuned on seed 1. The last line is JSON: `f1`, `precision` and `recall`
at the middle strength, `clean_false_rate` (clean runs with a finding above `note`), `kinds`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from benchmarks.synthetic_anomalies import (
    CONSEQUENCES,
    STRENGTHS,
    Anomaly,
    Strength,
    inject,
    place,
)
from benchmarks.synthetic_store import open_in_memory
from benchmarks.synthetic_world import BEGAN_US, World, draw_world
from reports.findings import find
from reports.findings.finding import KINDS, Finding, Kind

CLEAN_EVERY = 5
_NEAR_S = 12.0


@dataclass
class Score:
    """Counts for one kind or for all, at one strength or at all."""

    right: int = 0
    wrong: int = 0
    missed: int = 0
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
    world = draw_world(seed * 1_000_003 + number)
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


def judge(
    found: Iterable[Finding], anomalies: list[Anomaly], world: World, scores: dict[Kind, Score]
) -> list[Finding]:
    """Count what was found and what was not; return the findings that are wrong."""
    wrong = []
    told: set[int] = set()
    for finding in found:
        match = [i for i, a in enumerate(anomalies) if is_right(finding, a, world)]
        if match:
            score = scores[finding.kind]
            if match[0] not in told:
                score.right += 1
                score.overlaps.append(overlap(finding, anomalies[match[0]]))
            told.add(match[0])
        elif not any(
            finding.kind in CONSEQUENCES.get(a.kind, frozenset()) and _is_near(finding, a, _NEAR_S)
            for a in anomalies
        ):
            scores[finding.kind].wrong += 1
            wrong.append(finding)
    for index, anomaly in enumerate(anomalies):
        if index not in told:
            scores[anomaly.kind].missed += 1
    return wrong


def total(scores: Iterable[Score]) -> Score:
    """Return the sum of scores."""
    whole = Score()
    for score in scores:
        whole.right += score.right
        whole.wrong += score.wrong
        whole.missed += score.missed
        whole.overlaps += score.overlaps
    return whole


def run_strength(
    runs: int, seed: int, strength: Strength, *, verbose: bool
) -> tuple[dict[Kind, Score], Counter[str]]:
    """Return the scores of each kind at one strength, and counts of clean runs."""
    scores: dict[Kind, Score] = defaultdict(Score)
    clean: Counter[str] = Counter()
    for number in range(runs):
        world, anomalies = make_run(seed, number, strength)
        with open_in_memory(world) as database:
            found = find(database)
        wrong = judge(found, anomalies, world, scores)
        if not anomalies:
            clean["runs"] += 1
            clean["false"] += any(finding.severity != "note" for finding in found)
        if verbose:
            hits = [a for a in anomalies if not any(is_right(f, a, world) for f in found)]
            for anomaly in hits:
                print(f"  run {number} ({world.noise}) missed {anomaly}")
            for finding in wrong:
                print(f"  run {number} ({world.noise}) wrong {finding.severity} {finding.sentence}")
                print(f"     had {[(a.kind, a.from_s, a.to_s) for a in anomalies]}")
    return scores, clean


def main() -> None:
    """Print precision and recall of each kind at each strength, and the last line's JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.findings")
    parser.add_argument("--runs", type=int, default=195, help="for each strength")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--strengths", nargs="*", default=list(STRENGTHS), choices=STRENGTHS)
    parser.add_argument("--verbose", action="store_true", help="say what was missed or wrong")
    options = parser.parse_args()
    by_strength: dict[Strength, dict[Kind, Score]] = {}
    clean: Counter[str] = Counter()
    for strength in options.strengths:
        by_strength[strength], counts = run_strength(
            options.runs, options.seed, strength, verbose=options.verbose
        )
        clean += counts
        whole = total(by_strength[strength].values())
        print(
            f"{strength:8} precision {whole.precision:.3f} recall {whole.recall:.3f} "
            f"f1 {whole.f1:.3f} overlap {mean(whole.overlaps or [0]):.2f}"
        )
        for kind in KINDS:
            score = by_strength[strength].get(kind, Score())
            print(
                f"   {kind:22} right {score.right:3} wrong {score.wrong:3} missed {score.missed:3} "
                f"overlap {mean(score.overlaps or [0]):.2f}"
            )
    print(json.dumps(_last_line(by_strength, clean)))


def _last_line(
    by_strength: dict[Strength, dict[Kind, Score]], clean: Counter[str]
) -> dict[str, Any]:
    judged: Strength = "middle" if "middle" in by_strength else next(iter(by_strength))
    whole = total(by_strength[judged].values())
    return {
        "f1": round(whole.f1, 4),
        "precision": round(whole.precision, 4),
        "recall": round(whole.recall, 4),
        "clean_false_rate": round(clean["false"] / clean["runs"], 4) if clean["runs"] else None,
        "clean_runs": clean["runs"],
        "strengths": {
            strength: round(total(scores.values()).f1, 4)
            for strength, scores in by_strength.items()
        },
        "kinds": {
            kind: {
                strength: {
                    "precision": round(scores.get(kind, Score()).precision, 4),
                    "recall": round(scores.get(kind, Score()).recall, 4),
                    "overlap": round(mean(scores.get(kind, Score()).overlaps or [0]), 3),
                }
                for strength, scores in by_strength.items()
            }
            for kind in KINDS
        },
    }


if __name__ == "__main__":
    main()
