from __future__ import annotations

from dataclasses import replace

from tasks.observation import Snapshot
from tasks.snapshots import snapshot_of


def test_a_snapshot_counts_rates_from_the_one_before() -> None:
    """Edits a second are what was offered since the last look in the same phase."""

    def snapshot(label: str, elapsed_s: float, before: Snapshot | None) -> Snapshot:
        return snapshot_of(
            {},
            label=label,
            elapsed_s=elapsed_s,
            duration_s=10,
            alive=0,
            workers=2,
            connections_target=3,
            before=before,
        )

    first = snapshot("00-a", 1, None)
    assert (first.edits_per_s, first.workers_alive, first.connections_open) == (0, 0, 0)
    later = replace(snapshot("00-a", 2, None), edits_offered=-6)
    assert snapshot("00-a", 4, later).edits_per_s == 3
    assert snapshot("01-b", 4, later).edits_per_s == 0
