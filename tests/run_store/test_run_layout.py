from itertools import permutations

import pytest

from run_store.layout import Part, RunLayout, is_run_id, phase_label, without_covered
from run_store.samples import KINDS

LAYOUT = RunLayout("2024-05-01-local-1a2b")


@pytest.mark.parametrize(
    ("text", "is_one", "why"),
    [
        ("run-1", True, "letters, digits, hyphens"),
        ("0ab", True, "may begin with a digit"),
        ("a" * 63, True, "63 characters are the most"),
        ("a" * 64, False, "64 are too many"),
        ("ab", False, "two are too few"),
        ("-ab", False, "begins with a hyphen"),
        ("Run-1", False, "capitals"),
        ("a/b", False, "a slash would be another folder"),
        ("../x", False, "no way up"),
        ("run-1\n", False, "a newline at the end is not part of a name"),
        ("", False, "empty"),
    ],
)
def test_a_run_id_is_safe_in_a_key(text: str, is_one: bool, why: str) -> None:
    """Only lower-case letters, digits and hyphens make a run's id."""
    assert is_run_id(text) is is_one, why


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [None, 9])
@pytest.mark.parametrize("phase", ["00-warmup", phase_label(7, "ramp-up-2"), phase_label(123, "x")])
def test_a_parts_key_says_what_it_is(kind: str, last: int | None, phase: str) -> None:
    """Every part's key, compacted or not, can be read back to what it was made from."""
    key = LAYOUT.part(kind, attempt=2, phase=phase, worker="worker-3", first=4, last=last)
    assert key.startswith(LAYOUT.samples(kind))
    assert key.startswith(LAYOUT.samples())
    assert Part.from_key(key) == Part(
        key=key, kind=kind, attempt=2, phase=phase, worker="worker-3", first=4, last=last or 4
    )


@pytest.mark.parametrize(
    "key",
    [
        LAYOUT.run,
        LAYOUT.order(1, 3),
        LAYOUT.status(1, "w"),
        LAYOUT.report("summary.json"),
        LAYOUT.part("edits", attempt=1, phase="00-a", worker="w", first=1) + ".tmp",
        LAYOUT.part("edits", attempt=1, phase="00-a", worker="w", first=1) + "\n",
        LAYOUT.samples("edits") + "attempt=1/phase=00-a/worker=w/1.parquet",
        LAYOUT.samples("edits") + "attempt=1/phase=a/worker=w/000001.parquet",
    ],
)
def test_other_keys_are_no_parts(key: str) -> None:
    """What is no part of samples is not taken for one."""
    assert Part.from_key(key) is None


def test_all_keys_stand_under_the_run() -> None:
    """Whatever a run writes lies below its root, and each thing in a place of its own."""
    keys = [
        LAYOUT.run,
        LAYOUT.lease(1),
        LAYOUT.order(1, 1),
        LAYOUT.status(1, "w"),
        LAYOUT.part("edits", attempt=1, phase="00-a", worker="w", first=1),
        LAYOUT.phase("00-a"),
        LAYOUT.step("00-a", 1),
        LAYOUT.step("01-b", 1),
        LAYOUT.report("x"),
    ]
    assert all(key.startswith(LAYOUT.root) for key in keys)
    assert len(set(keys)) == len(keys)
    assert LAYOUT.order(1, 1).startswith(LAYOUT.orders(1))
    assert LAYOUT.status(1, "w").startswith(LAYOUT.workers(1))
    assert LAYOUT.phase("00-a").startswith(LAYOUT.phases())
    assert LAYOUT.step("00-a", 1).startswith(LAYOUT.steps("00-a"))
    assert LAYOUT.steps("00-a").startswith(LAYOUT.steps())


def test_orders_are_listed_in_their_order() -> None:
    """The keys of orders and of steps sort as their numbers do."""
    numbers = (1, 2, 9, 10, 99, 100, 999_999)
    for keys in (
        [LAYOUT.order(1, number) for number in numbers],
        [LAYOUT.step("00-a", number) for number in numbers],
    ):
        assert keys == sorted(keys)


def part(first: int, last: int | None = None, **other: str) -> Part:
    where = {"kind": "edits", "phase": "00-a", "worker": "w", **other}
    key = LAYOUT.part(
        where["kind"],
        attempt=int(where.get("attempt", "1")),
        phase=where["phase"],
        worker=where["worker"],
        first=first,
        last=last,
    )
    found = Part.from_key(key)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("parts", "left", "why"),
    [
        ([], [], "nothing gives nothing"),
        ([part(1), part(2)], [part(1), part(2)], "small parts hold different rows"),
        ([part(1, 3)], [part(1, 3)], "a compacted part by itself"),
        ([part(1), part(2), part(3), part(1, 3)], [part(1, 3)], "all small ones are covered"),
        ([part(2), part(1, 3)], [part(1, 3)], "some are deleted already"),
        ([part(1, 3), part(4)], [part(1, 3), part(4)], "what came afterwards is not covered"),
        ([part(1, 3), part(1, 4), part(4)], [part(1, 4)], "compacted again with one more"),
        ([part(3), part(1, 2), part(4, 6), part(5)], [part(1, 2), part(3), part(4, 6)], "two runs"),
        (
            [part(1, 2), part(1, worker="v"), part(2, kind="errors"), part(1, phase="01-b")],
            [part(1, worker="v"), part(1, 2), part(1, phase="01-b"), part(2, kind="errors")],
            "another worker's, kind's or phase's parts are not covered",
        ),
        (
            [part(1, 2), part(1, attempt="2")],
            [part(1, 2), part(1, attempt="2")],
            "attempts are kept apart",
        ),
    ],
)
def test_no_row_is_read_twice(parts: list[Part], left: list[Part], why: str) -> None:
    """Parts whose rows a compacted one holds are left out, in whatever order they are listed."""
    for order in list(permutations(parts))[:50]:
        assert without_covered(list(order)) == left, why
