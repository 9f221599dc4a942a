from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from reports.engine import open_run
from reports.figures import run_figures
from reports.summary import Distribution
from run_store.store import Store
from tests.reports.synthetic import Columns, RunWriter, SyntheticPhase, healthy_run

US = 1_000_000
LONG = (
    SyntheticPhase("warmup", "warmup", 4, 12, 2),
    SyntheticPhase("sustained", "sustained", 20, 12, 10),
    SyntheticPhase("cooldown", "cooldown", 8, 12, 0),
)


def _pooled(run: RunWriter, kind: str, of: Callable[[Columns], Any]) -> npt.NDArray[np.float64]:
    """Return one value for each sample of a kind over all phases and workers."""
    values = [of(columns) for (k, _, _), columns in run.samples.items() if k == kind]
    return np.concatenate(values)


def _exactly(values_us: npt.NDArray[Any]) -> Distribution:
    """Return what the report must say of latencies in whole microseconds."""
    ms = values_us / 1000
    return Distribution(
        count=len(ms),
        min=round(float(ms.min()), 6),
        mean=round(float(ms.mean()), 6),
        p50=round(float(np.quantile(ms, 0.5)), 6),
        p95=round(float(np.quantile(ms, 0.95)), 6),
        p99=round(float(np.quantile(ms, 0.99)), 6),
        max=round(float(ms.max()), 6),
    )


def _within(columns: Columns, name: str) -> npt.NDArray[Any]:
    same = columns["same_worker"]
    return (columns["seen_us"] - columns[name])[same]  # type: ignore[no-any-return]  # numpy's


def _between(columns: Columns, name: str) -> npt.NDArray[Any]:
    same = columns["same_worker"]
    return (columns["seen_us"] - columns[name])[~same]  # type: ignore[no-any-return]  # numpy's


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_percentiles_of_four_workers_are_those_of_the_pooled_samples(
    store: Store, seed: int
) -> None:
    """Every latency equals an exact computation over all raw rows, to the last digit."""
    run = healthy_run(f"figures-pooled-{seed}", phases=LONG, workers=4, seed=seed)
    run.write(store)
    with open_run(store, run.run_id) as database:
        figures = run_figures(database)
    of = figures.run
    assert of.acknowledgement_ms == _exactly(
        _pooled(run, "edits", lambda c: c["acknowledged_us"] - c["intended_us"])
    )
    assert of.acknowledgement_service_ms == _exactly(
        _pooled(run, "edits", lambda c: c["acknowledged_us"] - c["started_us"])
    )
    assert of.lateness_ms == _exactly(
        _pooled(run, "edits", lambda c: c["started_us"] - c["intended_us"])
    )
    assert of.delivery_ms == _exactly(
        _pooled(run, "deliveries", lambda c: _within(c, "intended_us"))
    )
    assert of.delivery_service_ms == _exactly(
        _pooled(run, "deliveries", lambda c: _within(c, "sent_us"))
    )
    assert of.delivery_between_workers_ms == _exactly(
        _pooled(run, "deliveries", lambda c: _between(c, "intended_us"))
    )
    one = run.samples["edits", "01-sustained", "worker-3"]
    sustained = next(phase for phase in figures.phases if phase.name == "sustained")
    whole = np.concatenate(
        [
            columns["acknowledged_us"] - columns["intended_us"]
            for (kind, label, _), columns in run.samples.items()
            if (kind, label) == ("edits", "01-sustained")
        ]
    )
    assert sustained.acknowledgement_ms == _exactly(whole)
    assert len(one["edit"]) < sustained.acknowledgement_ms.count


def test_latency_counts_from_the_intended_time_when_an_edit_begins_late() -> None:
    """An edit that began 300 ms late was 300 ms slower for its user, not for the relay."""
    plain, late = healthy_run("figures-on-time"), healthy_run("figures-late")

    def delay(columns: Columns) -> None:
        for name in ("started_us", "acknowledged_us", "sent_us", "seen_us"):
            if name in columns:
                columns[name] = columns[name] + 300_000

    for kind in ("edits", "deliveries"):
        late.change(kind, "sustained", delay)
        late.change(kind, "warmup", delay)
    with plain.database() as a, late.database() as b:
        before, after = run_figures(a).run, run_figures(b).run
    for name in ("acknowledgement_ms", "delivery_ms"):
        assert getattr(after, name).p50 == pytest.approx(getattr(before, name).p50 + 300, abs=1e-6)
    assert after.acknowledgement_service_ms == before.acknowledgement_service_ms
    assert after.delivery_service_ms == before.delivery_service_ms


def _thinned(run: RunWriter, weights: npt.NDArray[Any]) -> None:
    """Give the within-worker deliveries of the run these weights, in turn."""
    for (kind, _, _), columns in run.samples.items():
        if kind == "deliveries":
            columns["weight"] = np.resize(weights, len(columns["edit"])).astype(float)


def test_a_weight_counts_as_so_many_equal_samples(store: Store) -> None:
    """Quantiles of weighted rows are those of the rows repeated as often as their weights say."""
    run = healthy_run("figures-weighted", phases=LONG, workers=2)
    _thinned(run, np.array([1, 3, 2, 7, 1, 1]))
    run.write(store)
    with open_run(store, run.run_id) as database:
        assert database.thinned
        figures = run_figures(database).run
        seconds = {row["second"]: row["delivery_p95_ms"] for row in database.rows("timeline_1s")}
    expanded = _pooled(
        run,
        "deliveries",
        lambda c: np.repeat(_within(c, "intended_us"), c["weight"][c["same_worker"]].astype(int)),
    )
    assert figures.delivery_ms == _exactly(expanded)
    at_us = _pooled(
        run,
        "deliveries",
        lambda c: np.repeat(
            c["intended_us"][c["same_worker"]], c["weight"][c["same_worker"]].astype(int)
        ),
    )
    second = (at_us - run.began_us) // US
    for s in np.unique(second):
        assert seconds[int(s)] == pytest.approx(
            float(np.quantile(expanded[second == s] / 1000, 0.95)), abs=1e-9
        )
    assert figures.deliveries.max_weight == 7


def test_a_thinned_worker_is_not_blamed_for_what_it_did_not_record() -> None:
    """Where only a sample was recorded, the share is estimated by weight and nothing is lost."""
    run = healthy_run("figures-thinned", phases=LONG, workers=2)
    for worker in run.workers:
        del run.samples["replicas", "02-cooldown", worker]
    columns = run.samples["deliveries", "01-sustained", "worker-1"]
    kept = np.arange(len(columns["edit"])) % 4 == 0
    for name, values in columns.items():
        columns[name] = values[kept]
    columns["weight"] = np.full(int(kept.sum()), 4.0)
    _without_delivery(run, 40, 1 if _writer(run, 40) != 1 else 3)
    with run.database() as database:
        figures = run_figures(database).run
    # Connections 1 and 3 are worker-2's, which recorded everything: that delivery is missed.
    assert figures.edits.lost == 1
    assert figures.deliveries.edits_delivered_to_all is None
    assert figures.deliveries.share == pytest.approx(1, abs=0.01)


def test_weights_of_one_give_the_plain_quantiles() -> None:
    """The weighted computation equals quantile_cont where every row stands for itself."""
    plain, weighed = healthy_run("figures-plain"), healthy_run("figures-weighed")
    # One far-away weighted row between workers switches the weighted views on.
    columns = weighed.samples["deliveries", "01-sustained", "worker-1"]
    row = int(np.flatnonzero(~columns["same_worker"])[0])
    columns["weight"][row] = 2.0
    with plain.database() as a, weighed.database() as b:
        assert b.thinned
        assert not a.thinned
        before, after = run_figures(a), run_figures(b)
        windows = {"phase": None, "from_s": 0.0, "to_s": 47.0, "length_s": 7.0}
        for metric in ("delivery_ms", "acknowledgement_ms"):
            for left, right in zip(
                a.rows("windows_latency", metric=metric, **windows),
                b.rows("windows_latency", metric=metric, **windows),
                strict=True,
            ):
                assert left == pytest.approx(right, abs=1e-9)
    for name in ("delivery_ms", "acknowledgement_ms", "handshake_ms", "lateness_ms"):
        assert getattr(before.run, name) == getattr(after.run, name)
        for left_phase, right_phase in zip(before.phases, after.phases, strict=True):
            assert getattr(left_phase, name) == getattr(right_phase, name)


def test_deliveries_between_workers_are_corrected_by_their_clocks(store: Store) -> None:
    """Known offsets are taken out of figures between workers, and their error is stated."""
    true = healthy_run("figures-clocks-true")
    off = healthy_run(
        "figures-clocks-off", clock_offset_us={"worker-1": 25_000, "worker-2": -40_000}
    )
    true.write(store)
    off.write(store)
    with open_run(store, true.run_id) as a, open_run(store, off.run_id) as b:
        before, after = run_figures(a).run, run_figures(b).run
        (row,) = [row for row in b.rows("deliveries") if row["scope"] == "run"]
    assert after.delivery_between_workers_ms == before.delivery_between_workers_ms
    assert after.delivery_ms == before.delivery_ms
    assert row["clock_error_max_ms"] == 1.0


def test_a_clock_that_drifts_is_corrected_minute_by_minute() -> None:
    """An offset that grows during the run is taken out by its value of that minute."""
    phases = (SyntheticPhase("sustained", "sustained", 180, 4, 1),)
    true, off = (
        healthy_run("figures-steady", phases=phases),
        healthy_run("figures-drift", phases=phases),
    )

    def drift_us(at_us: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return (at_us - off.began_us) // 60_000_000 * 30_000  # 30 ms more in each minute

    for (kind, _, worker), columns in off.samples.items():
        if worker == "worker-2" and kind == "resources":
            columns["clock_offset_ms"] = drift_us(columns["at_us"]) / 1000
        if kind == "deliveries":
            between = ~columns["same_worker"]
            if worker == "worker-2":
                columns["seen_us"] = columns["seen_us"] + drift_us(columns["seen_us"]) * between
    for kind, label, worker in list(off.samples):
        # The other way round, the writer's clock is the one that drifts.
        if kind == "deliveries" and worker == "worker-1":
            columns = off.samples[kind, label, worker]
            between = ~columns["same_worker"]
            for name in ("intended_us", "sent_us"):
                columns[name] = columns[name] + drift_us(columns[name]) * between
    with true.database() as a, off.database() as b:
        before, after = (
            run_figures(a).run.delivery_between_workers_ms,
            run_figures(b).run.delivery_between_workers_ms,
        )
    assert before.p50 is not None
    assert after.p50 == pytest.approx(before.p50, abs=0.5)
    assert after.max == pytest.approx(before.max, abs=0.5)


def test_edits_are_counted_by_what_became_of_them() -> None:
    """Failed, unacknowledged and missed edits each have their place; missed ones are not tried."""
    run = healthy_run("figures-outcomes")
    columns = run.samples["edits", "01-sustained", "worker-1"]
    count = len(columns["edit"])
    error = np.full(count, None, object)
    error[0:3] = "missed"
    error[3:5] = "connection_dropped"
    columns["error"] = list(error)
    acknowledged = columns["acknowledged_us"].astype(object)
    acknowledged[0:9] = None
    columns["acknowledged_us"] = list(acknowledged)
    started = columns["started_us"].astype(object)
    started[0:4] = None
    columns["started_us"] = list(started)
    with run.database() as database:
        edits = run_figures(database).run.edits
    assert (edits.offered, edits.completed, edits.failed) == (125, 116, 6)
    assert (edits.missed, edits.unacknowledged, edits.unreported) == (3, 4, 0)
    assert edits.error_rate == round(6 / 122, 6)
    assert edits.per_second == round(116 / 35, 6)


def test_edits_that_no_sample_tells_of_are_counted_from_the_plan() -> None:
    """What a worker never reported is offered and unreported, not forgotten."""
    run = healthy_run("figures-unreported")
    gone = len(run.samples.pop(("edits", "01-sustained", "worker-2"))["edit"])
    with run.database() as database:
        edits = run_figures(database).run.edits
    assert (edits.offered, edits.unreported) == (125, gone)


def test_each_edit_is_expected_at_every_connection_in_sync_and_no_other() -> None:
    """A connection that came later, or left soon after, is not expected to have shown an edit."""
    run = healthy_run("figures-expected")
    start_us = run.start_us("sustained")
    # Connection 6 leaves ten seconds into the phase; it shows nothing from then on.
    leaves_us = start_us + 10 * US
    opened = run.samples["connections", "01-sustained", "worker-1"]
    for name, value in {
        "at_us": leaves_us,
        "connection": 6,
        "document": 0,
        "generation": 0,
        "duration_ms": 10_000.0,
        "tries": 1,
    }.items():
        opened[name] = np.append(opened[name], value)
    opened["event"] = [*opened["event"], "dropped"]
    seen = run.samples["deliveries", "01-sustained", "worker-1"]
    keep = ~((seen["observer"] == 6) & (seen["seen_us"] >= leaves_us))
    run.samples["deliveries", "01-sustained", "worker-1"] = {
        name: values[keep] for name, values in seen.items()
    }
    edits = [
        (int(started), int(acknowledged), int(writer))
        for (kind, label, _), columns in run.samples.items()
        if (kind, label) == ("edits", "01-sustained")
        for started, acknowledged, writer in zip(
            columns["started_us"], columns["acknowledged_us"], columns["connection"], strict=True
        )
    ]
    expected = sum(
        1
        for _, acknowledged, writer in edits
        for observer in range(8)
        if observer != writer and not (observer == 6 and acknowledged + 5 * US > leaves_us)
    )
    with run.database() as database:
        sustained = next(p for p in run_figures(database).phases if p.name == "sustained")
    assert sustained.deliveries.expected == sustained.deliveries.delivered == expected
    assert sustained.deliveries.share == 1
    assert (sustained.connections.dropped, sustained.connections.recovered) == (1, 0)


def _without_delivery(run: RunWriter, edit: int, observer: int) -> None:
    for (kind, _, _), columns in run.samples.items():
        if kind == "deliveries":
            keep = ~((columns["edit"] == edit) & (columns["observer"] == observer))
            for name, values in columns.items():
                columns[name] = values[keep]


def _writer(run: RunWriter, edit: int) -> int:
    for (kind, _, _), columns in run.samples.items():
        if kind == "edits" and edit in columns["edit"]:
            return int(columns["connection"][list(columns["edit"]).index(edit)])
    raise KeyError(edit)


def test_a_delivery_that_was_not_seen_is_no_loss_if_the_replica_has_the_edit() -> None:
    """The last look at a replica overrules a delivery that was not seen."""
    run = healthy_run("figures-unseen")
    _without_delivery(run, 40, (_writer(run, 40) + 1) % 8)
    with run.database() as database:
        figures = run_figures(database).run
    assert figures.deliveries.expected - figures.deliveries.delivered == 1
    assert figures.deliveries.edits_delivered_to_all == 124
    assert figures.edits.lost == 0


def test_an_acknowledged_edit_that_was_not_delivered_is_lost_where_nobody_looked_later() -> None:
    """Without a later look at the replica, a delivery that failed to come is a loss."""
    run = healthy_run("figures-lost-unseen")
    for worker in run.workers:
        del run.samples["replicas", "02-cooldown", worker]
    _without_delivery(run, 40, (_writer(run, 40) + 1) % 8)
    with run.database() as database:
        figures = run_figures(database)
        assert [row["edit"] for row in database.rows("lost_edits")] == [40]
    assert figures.run.edits.lost == 1
    assert figures.run.sync.diverged is None


def test_an_acknowledged_edit_that_a_replica_lacks_is_lost() -> None:
    """A replica that misses an acknowledged edit while nothing writes has lost it, and diverged."""
    run = healthy_run("figures-lost")
    replicas = run.samples["replicas", "02-cooldown", "worker-2"]
    replicas["missing"][1] = [17, 99, 5000]
    replicas["heads"][1] = "other-heads"
    with run.database() as database:
        figures = run_figures(database).run
        (document,) = database.rows("convergence")
    assert figures.edits.lost == 2  # 5000 was never an edit of this run
    assert (figures.sync.replicas, figures.sync.diverged, figures.sync.documents_converged) == (
        8,
        1,
        0,
    )
    assert (document["states"], document["missing_max"]) == (2, 3)


def test_convergence_counts_from_the_last_edit_to_the_last_change() -> None:
    """The time to converge is that of the slowest replica after the document's last edit."""
    run = healthy_run("figures-converged")
    last_us = max(
        int(columns["started_us"].max())
        for (kind, label, _), columns in run.samples.items()
        if (kind, label) == ("edits", "01-sustained")
    )
    run.samples["replicas", "02-cooldown", "worker-1"]["changed_us"][2] = last_us + 1_234_567
    with run.database() as database:
        assert run_figures(database).run.sync.converged_max_ms == 1234.567


def test_a_delivery_shown_twice_is_a_repeat_and_no_latency() -> None:
    """Repeats are counted by themselves, and leave the distribution alone."""
    plain, twice = healthy_run("figures-once"), healthy_run("figures-twice")
    columns = twice.samples["deliveries", "01-sustained", "worker-1"]
    for name, values in columns.items():
        again = values[:10]
        if name == "repeat":
            again = again + 1
        if name == "seen_us":
            again = again + 90 * US
        columns[name] = np.concatenate([values, again])
    with plain.database() as a, twice.database() as b:
        before, after = run_figures(a).run, run_figures(b).run
    assert (before.deliveries.repeats, after.deliveries.repeats) == (0, 10)
    assert after.deliveries.count == before.deliveries.count
    assert after.deliveries.delivered == before.deliveries.delivered
    assert after.delivery_ms == before.delivery_ms


def _events(run: RunWriter, phase: str, worker: str, rows: list[tuple[str, int, int]]) -> None:
    """Add events (event, connection, microseconds into the phase) to a worker's connections."""
    start_us = run.start_us(phase)
    key = ("connections", run.label(phase), worker)
    columns = run.samples.setdefault(key, {})
    added: Columns = {
        "at_us": [start_us + at for _, _, at in rows],
        "connection": [connection for _, connection, _ in rows],
        "document": [0 for _ in rows],
        "generation": [0 for _ in rows],
        "event": [event for event, _, _ in rows],
        "tries": [2 for _ in rows],
        "duration_ms": [5.0 for _ in rows],
    }
    for name, values in added.items():
        columns[name] = [*columns.get(name, []), *values]


def test_drops_and_recoveries_are_counted_and_timed() -> None:
    """Each drop is one drop; it recovers when that connection is next in sync."""
    run = healthy_run("figures-drops")
    _events(
        run,
        "sustained",
        "worker-1",
        [
            ("dropped", 0, 5 * US),
            ("failed", 0, 6 * US),
            ("synced", 0, 7 * US),
            ("dropped", 0, 9 * US),
            ("synced", 0, 9 * US + 250_000),
            ("dropped", 2, 10 * US),
        ],
    )
    with run.database() as database:
        connections = run_figures(database).run.connections
        assert database.row("not_recovered")["connections"] == 1
    assert (connections.dropped, connections.recovered, connections.failed) == (3, 2, 1)
    assert connections.recovery_max_ms == 2000
    assert connections.recovery_p95_ms == round(float(np.quantile([250, 2000], 0.95)), 6)


def test_a_storm_is_over_when_the_last_connection_is_in_sync_again() -> None:
    """The recovery of a storm runs from its first drop to its last recovery; else there is none."""
    phases = (
        SyntheticPhase("sustained", "sustained", 5, 4, 2),
        SyntheticPhase("storm", "storm", 20, 4, 2),
    )
    run = healthy_run("figures-storm", phases=phases)
    for n, worker in enumerate(run.workers):
        _events(
            run,
            "storm",
            worker,
            [
                event
                for connection in (n, n + 2)
                for event in (
                    ("dropped", connection, 1 * US),
                    ("synced", connection, (2 + connection) * US),
                )
            ],
        )
    with run.database() as database:
        storm = run_figures(database).run.storm
    assert (storm.dropped, storm.recovered, storm.recovery_s) == (4, 4, 4.0)
    broken = run.samples["connections", "01-storm", "worker-1"]
    broken["event"][-1] = "failed"
    run.run_id = "figures-storm-unrecovered"
    with run.database() as database:
        storm = run_figures(database).run.storm
    assert (storm.dropped, storm.recovered, storm.recovery_s) == (4, 3, None)


def test_health_is_the_mean_share_of_the_target_in_sustained_seconds() -> None:
    """Ten of thirty sustained seconds at three quarters of health cost a twelfth of it."""
    run = healthy_run("figures-health")
    healthy = run.samples["resources", "01-sustained", "worker-1"]
    healthy["connections_healthy"] = np.where(np.arange(30) < 10, 2, 4)
    run.samples["resources", "00-warmup", "worker-1"]["connections_healthy"] = np.zeros(5, int)
    with run.database() as database:
        connections = run_figures(database).run.connections
    # The second between two phases is the earlier one's in no phase: it does not count.
    assert connections.health_score == pytest.approx(100 * (10 * 6 / 8 + 20) / 30, abs=1e-6)
    assert connections.healthy == pytest.approx((10 * 6 + 20 * 8) / 30, abs=1e-6)
    assert (connections.peak, connections.target) == (8, 8)


def test_the_relay_is_sampled_and_its_failed_polls_are_counted() -> None:
    """Memory runs from the first to the last answer; polls without one are counted, not dropped."""
    run = healthy_run("figures-relay")
    relay = run.samples["relay", "01-sustained", "worker-1"]
    relay["error"] = [None] * 25 + ["timeout"] * 5
    for name in ("memory_rss_mb", "connections", "uptime_s", "response_ms"):
        relay[name] = [*relay[name][:25], *[None] * 5]
    later = run.samples["relay", "02-cooldown", "worker-1"]
    later["uptime_s"] = np.arange(10) * 1.0
    with run.database() as database:
        figures = run_figures(database)
    assert figures.run.relay.polls == 45
    assert figures.run.relay.polls_failed == 5
    assert figures.run.relay.restarts == 1
    assert figures.run.relay.memory_start_mb == 100
    assert figures.run.relay.memory_growth_mb == pytest.approx(4.6)
    sustained = figures.of("sustained")
    assert sustained is not None
    assert sustained.relay.memory_growth_mb == pytest.approx(2.4)
    assert sustained.relay.restarts == 0


def test_the_timeline_has_every_second_and_each_row_is_counted_from_the_samples() -> None:
    """Offered, done, deliveries and latencies of each second equal those of the raw rows."""
    run = healthy_run("figures-timeline", phases=LONG, workers=3)
    with run.database() as database:
        rows = database.rows("timeline_1s")
    assert [row["second"] for row in rows] == list(range(34))
    assert [row["phase"] for row in rows][3:6] == ["00-warmup", None, "01-sustained"]
    intended = _pooled(run, "edits", lambda c: c["intended_us"]) - run.began_us
    done = _pooled(run, "edits", lambda c: c["acknowledged_us"]) - run.began_us
    seen = _pooled(run, "deliveries", lambda c: c["seen_us"]) - run.began_us
    within_at = (
        _pooled(run, "deliveries", lambda c: c["intended_us"][c["same_worker"]]) - run.began_us
    )
    within = _pooled(run, "deliveries", lambda c: _within(c, "intended_us")) / 1000
    for row in rows:
        s = row["second"]
        assert row["edits_offered"] == int((intended // US == s).sum())
        assert row["edits_completed"] == int((done // US == s).sum())
        assert row["deliveries"] == int((seen // US == s).sum())
        mine = within[within_at // US == s]
        if len(mine):
            assert row["delivery_p99_ms"] == pytest.approx(float(np.quantile(mine, 0.99)), abs=1e-9)
        else:
            assert row["delivery_p99_ms"] is None


def test_errors_that_differ_in_numbers_only_are_one_group() -> None:
    """Fingerprints join messages that differ in numbers and hashes; weights count."""
    run = healthy_run("figures-errors")
    start_us = run.start_us("sustained")
    messages = [
        *(f"connection {n} timed out after {n * 100} ms (0x{n:08x})" for n in range(40)),
        "the relay closed the socket: 1006",
    ]
    run.samples["errors", "01-sustained", "worker-2"] = {
        "at_us": [start_us + n * 100_000 for n in range(41)],
        "type": ["timeout"] * 40 + ["closed"],
        "message": messages,
        "connection": list(range(41)),
        "weight": [1.0] * 39 + [61.0] + [5.0],
    }
    with run.database() as database:
        first, second = database.rows("errors_grouped")
        by_type = {row["type"]: row["count"] for row in database.rows("errors_by_type")}
    assert (first["type"], first["count"], first["groups"]) == ("timeout", 100, 2)
    assert first["example"] == messages[0]
    assert (first["first_s"], first["last_s"]) == (6.0, 9.9)
    assert second["count"] == 5
    assert by_type == {"timeout": 100, "closed": 5}


def test_a_hundred_thousand_different_messages_give_at_most_fifty_groups() -> None:
    """Messages that no rule can join are cut at the fifty most frequent."""
    run = healthy_run("figures-many-errors")
    count = 100_000
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(w) for w in letters[np.random.default_rng(5).integers(0, 26, (count, 12))]]
    run.samples["errors", "01-sustained", "worker-1"] = {
        "at_us": np.full(count, run.start_us("sustained")),
        "type": ["strange"] * count,
        "message": words,
        "weight": np.ones(count),
    }
    with run.database() as database:
        groups = database.rows("errors_grouped")
    assert len(groups) == 50
    assert groups[0]["groups"] > 90_000


def test_windows_slide_by_a_second_and_pool_their_samples() -> None:
    """Each window's percentile is that of the raw samples intended within it."""
    run = healthy_run("figures-windows", phases=LONG, workers=2)
    phase = run.start_us("sustained") - run.began_us
    with run.database() as database:
        rows = database.rows(
            "windows_latency",
            metric="acknowledgement_ms",
            phase="01-sustained",
            from_s=phase / US,
            to_s=phase / US + 20,
            length_s=6.0,
        )
    intended = _pooled(run, "edits", lambda c: c["intended_us"]) - run.began_us
    took = _pooled(run, "edits", lambda c: c["acknowledged_us"] - c["intended_us"]) / 1000
    assert [row["from_s"] for row in rows] == [5.0 + n for n in range(15)]
    for row in rows:
        inside = (intended >= row["from_s"] * US) & (intended < row["to_s"] * US)
        assert row["p95"] == pytest.approx(float(np.quantile(took[inside], 0.95)), abs=1e-9)
