"""The page's first line: whether the relay passed, and whether that can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports import wording
from reports.summary import Summary

Tone = Literal["good", "fair", "bad"]


@dataclass(frozen=True)
class Badge:
    """A word that cannot be mistaken, how it is meant, and what it is about."""

    word: str
    tone: Tone
    about: str


@dataclass(frozen=True)
class Headline:
    """Two badges and the sentence that says the same."""

    verdict: Badge
    validity: Badge
    sentence: str


def headline_of(summary: Summary) -> Headline:
    """Return verdict and validity in words. A run that still goes on is never called passed."""
    if not any(summary.samples.counts.values()):
        return Headline(
            Badge("Not measured", "bad", "the relay was not loaded"),
            Badge("Invalid", "bad", "there is nothing to believe"),
            _without_samples(summary),
        )
    judged = [row for row in summary.objectives if row.counts]
    met = sum(row.met is True for row in judged)
    kept = f"{met} of {wording.plural(len(judged), 'objective')} met" if judged else "no objectives"
    if summary.running:
        verdict = Badge("Running", "fair", f"so far {kept}")
    elif summary.verdict == "passed":
        verdict = Badge("Passed", "good" if summary.validity != "invalid" else "fair", kept)
    else:
        verdict = Badge("Failed", "bad", kept)
    tones: dict[str, Tone] = {"valid": "good", "degraded": "fair", "invalid": "bad"}
    about = {
        "valid": "the figures can be believed",
        "degraded": "believe the figures with care",
        "invalid": "the figures cannot be believed",
    }
    return Headline(
        verdict,
        Badge(summary.validity.capitalize(), tones[summary.validity], about[summary.validity]),
        _sentence(summary),
    )


def _sentence(summary: Summary) -> str:
    judged = [row for row in summary.objectives if row.counts]
    missed = [row for row in judged if row.met is False]
    if not judged and summary.capacity:
        # A search is asked for its answer; what explains it stands below.
        title = summary.capacity.get("title", "Capacity")
        first = f"{title}: {summary.capacity['sentence'].partition('; above that')[0]}"
    elif not judged:
        first = "No objectives were set, so nothing was missed"
    elif missed:
        row = missed[0]
        where = f" in {row.phase}" if row.phase else ""
        first = (
            f"The relay missed {len(missed)} of {wording.plural(len(judged), 'objective')}: "
            + (
                f"{row.metric}{where} was {wording.figure(row.metric, row.got)}, not {row.wanted}"
                if row.got is not None
                else f"{row.metric}{where} could not be measured"
            )
        )
    elif len(judged) == 1:
        first = "The relay met its objective"
    else:
        first = f"The relay met all {len(judged)} objectives"
    if summary.running:
        first = f"So far: {first[0].lower()}{first[1:]}"
    return f"{first}; {_belief(summary)}."


def _belief(summary: Summary) -> str:
    if summary.validity == "valid":
        return "the figures can be believed"
    if summary.validity == "degraded":
        return "the figures can be believed with care"
    return (
        "but the run is invalid, so this is no pass"
        if summary.verdict == "passed"
        else "but the run is invalid, so the relay may not be to blame"
    )


def _without_samples(summary: Summary) -> str:
    if summary.running:
        return "No samples have come in yet."
    reason = next((attempt.error for attempt in reversed(summary.attempts) if attempt.error), "")
    reason = reason or next(iter(summary.problems), "")
    tail = f": {reason}" if reason else "; its log says more."
    return f"The run ended without a single sample{tail}"
