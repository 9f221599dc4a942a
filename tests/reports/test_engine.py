from __future__ import annotations

import io
import os
import traceback

import duckdb
import pyarrow.parquet as pq
import pytest

from reports.engine import open_run, query_answers, query_names, query_parameters
from reports.figures import run_figures
from run_store.errors import NoSuchRunError, StoreError
from run_store.layout import RunLayout
from run_store.messages import LostWorker
from run_store.samples import KINDS
from run_store.store import Store, StoreAddress
from tests.reports.synthetic import RunWriter, healthy_run, parquet_bytes

PARAMETERS = {
    "metric": "delivery_ms",
    "phase": None,
    "slice_s": 5,
    "length_s": 10.0,
    "from_s": 0.0,
    "to_s": 47.0,
    "cpu_percent": 90.0,
    "late_ms": 50.0,
    "share": 0.9,
}
OWN_QUERIES = [name for name in query_names() if not name.startswith("chart_")]


def _part(run: RunWriter, kind: str, phase: str, worker: str, first: int = 1) -> str:
    return run.layout.part(
        kind, attempt=run.attempt, phase=run.label(phase), worker=worker, first=first
    )


def test_every_sample_is_read_with_its_place(store: Store) -> None:
    """All kinds come back whole, with attempt, phase and worker from their keys."""
    run = healthy_run("engine-whole")
    run.write(store)
    with open_run(store, run.run_id) as database:
        for kind in KINDS:
            written = sum(
                len(next(iter(columns.values())))
                for (of, _, _), columns in run.samples.items()
                if of == kind
            )
            assert database.count(kind) == written
        places = database.connection.sql(
            "SELECT DISTINCT attempt, phase, worker FROM edits ORDER BY ALL"
        ).fetchall()
    assert places == [
        (1, phase, worker)
        for phase in ("00-warmup", "01-sustained")
        for worker in ("worker-1", "worker-2")
    ]


def test_many_small_parts_give_the_same_rows(store: Store) -> None:
    """Cutting the samples into many parts changes no figure."""
    whole, cut = healthy_run("engine-one-part"), healthy_run("engine-many-parts")
    cut.parts_per_kind = 12
    whole.write(store)
    cut.write(store)
    with open_run(store, whole.run_id) as a, open_run(store, cut.run_id) as b:
        assert len(b.parts) > 5 * len(a.parts)
        assert run_figures(a) == run_figures(b)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body[: len(body) // 2],
        lambda _: b"",
        lambda _: b"this is no Parquet file, and long enough to be one",
    ],
    ids=["truncated", "empty", "foreign"],
)
def test_an_unreadable_part_is_named_and_the_rest_is_read(
    store: Store, spoil: object, request: pytest.FixtureRequest
) -> None:
    """One bad part costs its own rows only, and is both unreadable and missing."""
    assert callable(spoil)
    run = healthy_run(f"engine-{request.node.callspec.id}")
    run.parts_per_kind = 6
    run.write(store)
    bad = _part(run, "deliveries", "sustained", "worker-2", first=3)
    body = store.get(bad)
    assert body is not None
    store.put(bad, spoil(body))
    with open_run(store, run.run_id) as database:
        assert [entry.part.key for entry in database.unreadable] == [bad]
        assert [(gap.of.worker, gap.of.kind, gap.number) for gap in database.missing] == [
            ("worker-2", "deliveries", 3)
        ]
        rows = len(run.samples["deliveries", "01-sustained", "worker-2"]["edit"])
        (left,) = database.connection.sql(
            "SELECT count(*) FROM deliveries WHERE phase = '01-sustained' AND worker = 'worker-2'"
        ).fetchall()[0]
        assert left == rows - pq.read_metadata(io.BytesIO(body)).num_rows


def test_a_part_whose_last_number_is_only_known_from_the_record_is_missed(store: Store) -> None:
    """The last part has no later one to betray its absence: the phase's record does."""
    run = healthy_run("engine-last-part")
    run.parts_per_kind = 3
    run.write(store)
    store.delete(_part(run, "edits", "sustained", "worker-1", first=3))
    with open_run(store, run.run_id) as database:
        assert [(gap.of.kind, gap.of.phase, gap.number) for gap in database.missing] == [
            ("edits", "01-sustained", 3)
        ]


def test_a_compacted_part_stands_for_those_it_holds(store: Store) -> None:
    """Between writing the compacted part and deleting the small ones, no row counts twice."""
    run = healthy_run("engine-compacted")
    run.parts_per_kind = 4
    run.write(store)
    with open_run(store, run.run_id) as database:
        before = database.count("edits")
        small = database.connection.sql(
            "SELECT * EXCLUDE (attempt, phase, worker) FROM all_edits"
            " WHERE phase = '01-sustained' AND worker = 'worker-1'"
        ).to_arrow_table()
    key = run.layout.part(
        "edits", attempt=1, phase="01-sustained", worker="worker-1", first=1, last=4
    )
    store.put(key, parquet_bytes(small))
    with open_run(store, run.run_id) as database:
        assert database.count("edits") == before
        assert not database.missing


class _StaleStore(Store):
    """A store whose first listing of samples still names a part that is gone."""

    stale: tuple[str, int] | None = None

    def list_sizes(self, prefix: str) -> list[tuple[str, int]]:
        found = super().list_sizes(prefix)
        if "/samples/" in prefix and self.stale:
            found, self.stale = sorted([*found, self.stale]), None
        return found


def test_parts_that_are_compacted_while_they_are_read_are_listed_again(store: Store) -> None:
    """A part that went away since it was listed is no unreadable part."""
    run = healthy_run("engine-race")
    run.write(store)
    stale = _StaleStore(store.address)
    stale.stale = (_part(run, "edits", "sustained", "worker-1", first=2), 5000)
    with open_run(stale, run.run_id) as database:
        assert stale.stale is None
        assert not database.unreadable
        assert database.count("edits") == 125


def test_only_the_attempt_that_completed_a_phase_counts(store: Store) -> None:
    """After a retry each phase is counted once; the abandoned rows stay in `all_edits`."""
    first = healthy_run("engine-retried")
    first.incomplete = ("sustained", "cooldown")
    first.write(store)
    again = healthy_run("engine-retried", seed=2)
    again.attempt = 2
    for key in [key for key in again.samples if key[1] == "00-warmup"]:
        del again.samples[key]
    again.incomplete = ("warmup",)
    again.write(store)
    with open_run(store, again.run_id) as database:
        counted = database.connection.sql(
            "SELECT phase, attempt, count(*) FROM edits GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        assert counted == [("00-warmup", 1, 5), ("01-sustained", 2, 120)]
        (everything,) = database.connection.sql("SELECT count(*) FROM all_edits").fetchall()[0]
        assert everything == 5 + 120 + 120


def test_workers_with_clocks_an_hour_off_are_brought_together(store: Store) -> None:
    """A worker whose clock is an hour ahead takes its place in the run's own time."""
    plain = healthy_run("engine-clock-right")
    off = healthy_run("engine-clock-off", clock_offset_us={"worker-2": 3_600_000_000})
    plain.write(store)
    off.write(store)
    with open_run(store, plain.run_id) as a, open_run(store, off.run_id) as b:
        assert a.rows("timeline_1s") == b.rows("timeline_1s")
        assert a.rows("expected_deliveries") == b.rows("expected_deliveries")


def test_a_worker_lost_in_one_phase_is_told_of_once(store: Store) -> None:
    """Later phases' records repeat what was lost before; it was lost once."""
    run = healthy_run("engine-lost-once")
    lost = LostWorker(
        worker="worker-2",
        phase="01-sustained",
        last_seen_us=run.start_us("sustained") + 10_000_000,
        noticed_us=run.start_us("sustained") + 20_000_000,
        connections=4,
    )
    run.lost = {"01-sustained": [lost], "02-cooldown": [lost]}
    run.write(store)
    with open_run(store, run.run_id) as database:
        (row,) = database.rows("lost_workers")
    assert (row["phase"], row["last_seen_s"], row["planned"]) == ("01-sustained", 16.0, 8.0)


def test_an_unknown_run_is_an_error_that_says_so(store: Store) -> None:
    """A run id that the store does not hold ends with its name and the store's."""
    with pytest.raises(NoSuchRunError, match="holds no run engine-nowhere"):
        open_run(store, "engine-nowhere")


def test_no_error_shows_a_secret(store: Store) -> None:
    """With a wrong key the error names the store, and nothing of the key."""
    run = healthy_run("engine-secret")
    run.write(store)
    secret = "do-not'show-me"
    address = store.address.model_copy(
        update={"secret_key": StoreAddress(bucket="abc", secret_key=secret).secret_key}
    )
    with pytest.raises(StoreError) as caught:
        open_run(Store(address, tries=1), run.run_id)
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_keys_are_taken_from_the_environment_when_the_address_has_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address without keys works with those that boto3 finds."""
    run = healthy_run("engine-environment")
    run.write(store)
    secrets = store.address.secrets()
    assert secrets is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", secrets[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets[1])
    bare = store.address.model_copy(update={"access_key": None, "secret_key": None})
    with open_run(Store(bare), run.run_id) as database:
        assert database.count("edits") == 125


def test_closing_leaves_nothing_on_disk(store: Store) -> None:
    """The folder of the snapshot goes with the database, and closing twice is no error."""
    run = healthy_run("engine-closed")
    run.write(store)
    database = open_run(store, run.run_id)
    (path,) = database.connection.sql(
        "SELECT path FROM duckdb_databases() WHERE database_name = 'run'"
    ).fetchall()[0]
    assert os.path.exists(path)  # noqa: PTH110 - DuckDB gives a plain string
    database.close()
    database.close()
    assert not os.path.exists(os.path.dirname(path))  # noqa: PTH110, PTH120 - likewise
    with pytest.raises(duckdb.ConnectionException):
        database.count("edits")


@pytest.mark.parametrize("name", OWN_QUERIES)
def test_every_query_says_what_it_answers(name: str) -> None:
    """The comment at a query's head is a sentence."""
    assert query_answers(name).endswith(".")


def test_every_query_answers_for_a_run_without_samples(store: Store) -> None:
    """No query fails where there is nothing to ask of."""
    run = healthy_run("engine-nothing")
    run.samples.clear()
    run.write(store)
    with open_run(store, run.run_id) as database:
        answers = {
            name: database.rows(name, **{key: PARAMETERS[key] for key in query_parameters(name)})
            for name in OWN_QUERIES
        }
    assert answers.keys() == set(OWN_QUERIES)
    counted = {name: [row.get("count") for row in rows] for name, rows in answers.items()}
    assert not any(count for counts in counted.values() for count in counts), counted


def test_a_json_object_that_is_no_message_is_named_and_passed_over(store: Store) -> None:
    """A status that cannot be read does not keep the run from being reported."""
    run = healthy_run("engine-bad-json")
    run.write(store)
    key = RunLayout(run.run_id).status(1, "worker-2")
    store.put(key, b"{not json")
    with open_run(store, run.run_id) as database:
        assert database.facts.unreadable == (key,)
        assert database.count("edits") == 125
