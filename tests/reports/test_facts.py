from __future__ import annotations

from reports.facts import facts_of
from tasks.plan import Progress, reconnect_order
from tests.reports.synthetic import RunWriter, SyntheticPhase, scenario_of

PHASES = (
    SyntheticPhase("warmup", "warmup", 5, 4, 1),
    SyntheticPhase("load", "sustained", 30, 8, 4),
)


def test_connections_that_come_back_are_told_of_before_the_phase_that_they_come_back_for() -> None:
    """A retry's reconnect has the index of the phase that it is for, and was before it."""
    run = RunWriter("retried", scenario_of(PHASES), phases=PHASES)
    order = reconnect_order(
        1,
        connections=4,
        progress=Progress.of_attempt(2),
        slots=run.workers,
        starts_at_us=run.start_us("load") - 3_000_000,
    )
    facts = facts_of(run.run_record(), run.phase_records({}), orders=[order])
    labels = [phase.label for phase in facts.phases]
    assert labels == ["00-warmup", "01-reconnect", "01-load"]
