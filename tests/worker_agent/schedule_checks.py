"""What holds for the samples of every phase, whatever happens in it."""

from collections import Counter
from itertools import pairwise

from run_store.messages import Order
from tests.worker_agent.orchestration import Row, Run


def assert_one_row_for_each_planned_edit(run: Run, order: Order) -> None:
    """Every edit of the schedule has one row, whose plan is the schedule's."""
    planned = run.planned(order)
    rows = run.rows("edits", order)
    assert Counter(row["edit"] for row in rows) == dict.fromkeys(planned, 1)
    for row in rows:
        plan = planned[row["edit"]]
        assert (row["document"], row["generation"], row["connection"]) == (
            plan.document,
            plan.generation,
            plan.connection,
        )
        assert row["intended_us"] == order.starts_at_us + round(plan.at_s * 1e6)
        assert row["started_us"] is None or row["started_us"] >= row["intended_us"] - 1000


def assert_no_second_is_missing(
    run: Run, rows: list[Row], from_us: float, until_us: float, *, longest_s: float = 2.5
) -> None:
    """Rows that come each second cover a span without a longer gap.

    Where the machine kept an agent from its work, as it says itself, a gap may be longer by that.
    """
    longest_s += max(row["loop_lag_ms"] for row in run.rows("resources")) / 1000
    times = sorted(row["at_us"] for row in rows)
    inside = [at for at in times if from_us <= at <= until_us]
    edges = [round(from_us), *inside, round(until_us)]
    assert max(later - earlier for earlier, later in pairwise(edges)) < longest_s * 1e6


def end_us(order: Order) -> int:
    """Return when an order ends by its plan."""
    return order.starts_at_us + round(order.duration_s * 1e6)
