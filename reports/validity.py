"""Whether a run can be believed: pure rules over evidence about the generator, never the relay.

What the relay refuses, drops or loses is the verdict's business. Each rule names its window and
its evidence in a sentence. The gravest level that any rule gives is the run's validity; notes
lower nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reports.evidence import Evidence
from reports.limits import (
    BUSY_AND_LATE_SECONDS,
    BUSY_AND_LATE_SHARE,
    BUSY_CPU_PERCENT,
    CLOCK_ERROR_SHARE,
    HELD_FOR_S,
    HELD_SHARE,
    LATE_MS,
    LOST_SHARE,
    MISSED_DEGRADED,
    MISSED_INVALID,
    PAGE_LATE_SHARE,
    UNREPORTED_INVALID,
)
from reports.summary import Validity, ValidityEvidence
from scenarios.durations import format_duration


def judge_validity(evidence: Evidence) -> list[ValidityEvidence]:
    """Return what every rule has to say, the gravest first."""
    said = [
        *_samples(evidence),
        *_lost(evidence),
        *_gaps(evidence),
        *_missed(evidence),
        *_unreported(evidence),
        *_held(evidence),
        *_judgeable(evidence),
        *_course(evidence),
        *_late(evidence),
        *_strained(evidence),
        *_clock(evidence),
    ]
    order = ("invalid", "degraded", "note")
    return sorted(said, key=lambda entry: order.index(entry.level))


def validity_of(said: Iterable[ValidityEvidence]) -> Validity:
    """Return the gravest level that was given; `valid` if there is none but notes."""
    levels = {entry.level for entry in said}
    if "invalid" in levels:
        return "invalid"
    return "degraded" if "degraded" in levels else "valid"


def _samples(evidence: Evidence) -> Iterator[ValidityEvidence]:
    if evidence.samples == 0 and not evidence.running:
        why = f" {evidence.problems[-1]}" if evidence.problems else ""
        yield ValidityEvidence(
            rule="no_samples",
            level="invalid",
            sentence=f"No sample of this run is in the store, so nothing is known of it.{why}",
        )


def _lost(evidence: Evidence) -> Iterator[ValidityEvidence]:
    # One that was replaced is missing in a part of the run only: what it lacked there, connections
    # and edits, is judged by the rules for these.
    for_good = [lost for lost in evidence.lost if not lost.replaced]
    together = sum(lost.share for lost in for_good)
    for lost in evidence.lost:
        yield ValidityEvidence(
            rule="lost_worker",
            level="invalid" if together > LOST_SHARE and not lost.replaced else "degraded",
            sentence=(
                f"{lost.worker} was lost in {lost.phase} at {_at(lost.at_s)}, and with it "
                f"{lost.connections} connections, {_percent(lost.share)} of the plan"
                + (
                    f" ({_percent(together)} with the other lost workers)"
                    if len(for_good) > 1 and not lost.replaced
                    else ""
                )
                + (f"; {lost.replaced}" if lost.replaced else "")
            ),
            phase=lost.phase,
            worker=lost.worker,
            from_s=lost.at_s,
            figures={"connections": lost.connections, "share": lost.share},
        )


def _gaps(evidence: Evidence) -> Iterator[ValidityEvidence]:
    for gap in evidence.gaps:
        bad = f", {gap.unreadable} of them there but unreadable" if gap.unreadable else ""
        yield ValidityEvidence(
            rule="missing_part",
            level="note" if evidence.running else "invalid",
            sentence=(
                f"{gap.parts} {'part' if gap.parts == 1 else 'parts'} of the {gap.kind} of "
                f"{gap.worker} in {gap.phase} cannot be had{bad}: figures rest on what is left"
            ),
            phase=gap.phase,
            worker=gap.worker,
            figures={"parts": gap.parts, "unreadable": gap.unreadable, "kind": gap.kind},
        )


def _missed(evidence: Evidence) -> Iterator[ValidityEvidence]:
    share = evidence.edits_missed / evidence.edits_offered if evidence.edits_offered else 0.0
    if share > MISSED_DEGRADED:
        yield ValidityEvidence(
            rule="missed_edits",
            level="invalid" if share > MISSED_INVALID else "degraded",
            sentence=(
                f"the generator did not start {evidence.edits_missed} of "
                f"{evidence.edits_offered} edits in time ({_percent(share)}, over the whole run)"
            ),
            figures={"missed": evidence.edits_missed, "share": share},
        )


def _unreported(evidence: Evidence) -> Iterator[ValidityEvidence]:
    planned = evidence.edits_offered
    share = evidence.edits_unreported / planned if planned else 0.0
    # What a worker that was lost for good had not shipped is part of its loss, and judged there.
    for_good = any(not lost.replaced for lost in evidence.lost)
    if share > 0 and not for_good and not evidence.gaps:
        yield ValidityEvidence(
            rule="unreported_edits",
            level="invalid" if share > UNREPORTED_INVALID else "degraded",
            sentence=(
                f"no sample tells what became of {evidence.edits_unreported} of {planned} edits "
                f"of the schedule ({_percent(share)}, over the whole run)"
            ),
            figures={"unreported": evidence.edits_unreported, "share": share},
        )


def _held(evidence: Evidence) -> Iterator[ValidityEvidence]:
    for short in evidence.shortfalls:
        if short.seconds >= HELD_FOR_S:
            yield ValidityEvidence(
                rule="target_not_held",
                level="invalid",
                sentence=(
                    f"the generator itself held or tried less than {_percent(HELD_SHARE)} of the "
                    f"planned connections for {short.seconds} s from {_at(short.from_s)} in "
                    f"{short.phase}: {short.attempted} of {short.target} at worst"
                ),
                phase=short.phase,
                from_s=short.from_s,
                to_s=short.to_s,
                figures={"attempted": short.attempted, "target": short.target},
            )


def _course(evidence: Evidence) -> Iterator[ValidityEvidence]:
    if evidence.running:
        yield ValidityEvidence(
            rule="running", level="note", sentence="the run still goes on: this is how it stands"
        )
        return
    if evidence.stopped_by_objective:
        return
    if evidence.phases_not_run and evidence.samples:
        why = f": {evidence.problems[-1]}" if evidence.problems else ""
        yield ValidityEvidence(
            rule="phases_not_run",
            level="invalid",
            sentence=f"the run ended before {', '.join(evidence.phases_not_run)} was done{why}",
        )
    for cut in evidence.cuts:
        yield ValidityEvidence(
            rule="cut_short",
            level="degraded",
            sentence=(
                f"{cut.phase} was cut short after {format_duration(cut.lasted_s)} of "
                f"{format_duration(cut.planned_s)}: {cut.reason}"
            ),
            phase=cut.phase,
            from_s=cut.from_s,
            to_s=cut.from_s + cut.lasted_s,
            figures={"lasted_s": cut.lasted_s, "planned_s": cut.planned_s},
        )


def _judgeable(evidence: Evidence) -> Iterator[ValidityEvidence]:
    if not evidence.scenario_known:
        yield ValidityEvidence(
            rule="scenario_unreadable",
            level="invalid",
            sentence="this version cannot read the run's scenario, so no objective was judged",
        )


def _late(evidence: Evidence) -> Iterator[ValidityEvidence]:
    for late in evidence.lateness:
        if late.p99_ms > LATE_MS:
            yield ValidityEvidence(
                rule="late_edits",
                level="degraded",
                sentence=(
                    f"in {late.phase} the generator began edits late: p99 {late.p99_ms:.0f} ms, "
                    f"above {LATE_MS:.0f} ms, over {late.edits} edits"
                ),
                phase=late.phase,
                from_s=late.from_s,
                to_s=late.to_s,
                figures={"p99_ms": late.p99_ms, "edits": late.edits},
            )


def _strained(evidence: Evidence) -> Iterator[ValidityEvidence]:
    for strain in evidence.strain:
        busy = strain.busy_and_late_seconds
        if busy >= max(BUSY_AND_LATE_SECONDS, BUSY_AND_LATE_SHARE * strain.seconds):
            yield ValidityEvidence(
                rule="busy_and_late",
                level="degraded",
                sentence=(
                    f"{strain.worker} had its CPU above {BUSY_CPU_PERCENT:.0f} % and was more "
                    f"than {LATE_MS:.0f} ms late in {busy} of {strain.seconds} s of "
                    f"{strain.phase}: its latencies are partly its own"
                ),
                phase=strain.phase,
                worker=strain.worker,
                from_s=strain.from_s,
                to_s=strain.to_s,
                figures={"seconds": busy, "cpu_max_percent": strain.cpu_max_percent},
            )
        if strain.page_late_seconds > PAGE_LATE_SHARE * strain.seconds:
            yield ValidityEvidence(
                rule="late_pages",
                level="degraded",
                sentence=(
                    f"the pages of {strain.worker} ran more than {LATE_MS:.0f} ms late "
                    f"in {strain.page_late_seconds} of {strain.seconds} s of {strain.phase}: "
                    "they saw edits later than these came"
                ),
                phase=strain.phase,
                worker=strain.worker,
                from_s=strain.from_s,
                to_s=strain.to_s,
                figures={"seconds": strain.page_late_seconds},
            )


def _clock(evidence: Evidence) -> Iterator[ValidityEvidence]:
    p50_ms, error_ms = evidence.between_workers_p50_ms, evidence.clock_error_ms
    if p50_ms is None:
        return
    # Figures within workers need no clocks brought together; without any, these are all there is.
    level = "note" if evidence.within_workers_count else "degraded"
    if not evidence.clocks_known:
        yield ValidityEvidence.model_validate(
            {
                "rule": "clock_unknown",
                "level": level,
                "sentence": "no offset between the workers' clocks is known: figures between "
                "workers take the machines' own synchronisation for granted",
            }
        )
    elif error_ms is not None and error_ms > CLOCK_ERROR_SHARE * max(p50_ms, 0.0):
        yield ValidityEvidence.model_validate(
            {
                "rule": "clock_error",
                "level": level,
                "sentence": f"clocks are known to {error_ms:.1f} ms between workers, where the "
                f"delivery p50 is {p50_ms:.1f} ms: take figures between workers with that error",
                "figures": {"error_ms": error_ms, "p50_ms": p50_ms},
            }
        )


def _at(run_s: float) -> str:
    return f"{format_duration(max(run_s, 0.0))} into the run"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
