"""What stands around a run's figures: its errors, clocks, lost workers, and samples."""

from __future__ import annotations

from reports.engine import RunDatabase
from reports.figures import counted, rounded
from reports.summary import Clock, ClockWorker, Errors, LostWorkerSummary, Samples, Unrecovered


def errors_of(database: RunDatabase) -> Errors:
    """Return the errors of a run, counted."""
    types = database.rows("errors_by_type")
    groups = database.rows("errors_grouped")
    return Errors(
        by_type={row["type"] or "unknown": counted(row["count"]) for row in types},
        total=counted(sum(row["count"] for row in types)),
        edits_by_type={row["type"]: row["edits"] for row in database.rows("edit_failures")},
        connections_by_cause={
            f"{row['event']}: {row['cause']}": row["count"]
            for row in database.rows("connection_causes")[:100]
        },
        groups=groups[0]["groups"] if groups else 0,
    )


def clock_of(database: RunDatabase) -> Clock:
    """Return how the workers' clocks were brought together, and how well."""
    rows = database.rows("clock_figures")
    known = [row for row in rows if row["offset_ms"] is not None]
    errors = sorted((row["error_ms"] for row in known if row["error_ms"] is not None), reverse=True)
    return Clock(
        relative_to="relay" if known else "system",
        error_max_ms=rounded(sum(errors[:2])) if len(errors) > 1 else None,
        workers=[
            ClockWorker(
                worker=row["worker"],
                offset_ms=rounded(row["offset_ms"]),
                error_ms=rounded(row["error_ms"]),
                drift_ms=None
                if row["offset_ms"] is None
                else rounded(row["offset_max_ms"] - row["offset_min_ms"]),
            )
            for row in rows
        ],
    )


def lost_workers_of(database: RunDatabase) -> list[LostWorkerSummary]:
    """Return the lost workers, in the order in which they were noticed."""
    return [
        LostWorkerSummary(
            worker=row["worker"],
            phase=row["phase"],
            last_seen_s=row["last_seen_s"],
            noticed_s=row["noticed_s"],
            connections=row["connections"],
            share=row["connections"] / row["planned"] if row["planned"] else 0.0,
            reason=row["reason"],
            replaced_by=row["replaced_by"],
            replaced_from=row["replaced_from"],
        )
        for row in database.rows("lost_workers")
    ]


def samples_of(database: RunDatabase) -> Samples:
    """Return what the figures rest on; of long lists of parts, the first hundred."""
    missing = [
        f"{gap.of.kind} {gap.of.phase} {gap.of.worker} part {gap.number}"
        for gap in database.missing
    ]
    unreadable = [f"{bad.part.key}: {bad.reason}" for bad in database.unreadable]
    return Samples(
        counts={row["kind"]: row["samples"] for row in database.rows("sample_counts")},
        parts=len(database.parts),
        missing=missing[:100],
        unreadable=unreadable[:100],
        unrecovered=[
            Unrecovered(
                worker=lack.worker,
                attempt=lack.attempt,
                phase=lack.phase,
                kind=lack.kind,
                parts=lack.parts,
                from_s=_run_s(database, lack.from_us),
                to_s=_run_s(database, lack.to_us),
            )
            for lack in database.unrecovered
        ],
    )


def _run_s(database: RunDatabase, at_us: int | None) -> float | None:
    return None if at_us is None else rounded((at_us - database.origin_us) / 1e6)
