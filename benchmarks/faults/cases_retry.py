"""Cases: a deployed run that failed is tried again, as with the button in Prefect's UI.

What was done again and what was not is seen in the bucket: in which attempt a phase is complete,
and whether an attempt had workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.faults.case import Case, HungError, Scale
from benchmarks.faults.site import Site
from run_store.layout import Part, RunLayout
from run_store.messages import PhaseRecord, RunRecord

PHASES = ("00-warmup", "01-load", "02-cooldown")
IN_THE_LOAD_S = 3.0


def cases(_scale: Scale) -> Iterator[Case]:
    """Yield the cases of a retry."""
    yield Case(
        "retry/report",
        "its report failed: the retry makes it, and has no workers",
        _retried({"tasks.report:make_report": {}}, done_in=(1, 1, 1), workers_in=(1,)),
    )
    yield Case(
        "retry/phase",
        "its load failed half-way: the retry goes on from that phase, with new workers",
        _retried(
            {"tasks.load:load_phase": {"at": "load", "after_s": IN_THE_LOAD_S}},
            done_in=(1, 2, 2),
            workers_in=(1, 2),
        ),
    )
    yield Case(
        "retry/before the load",
        "it failed in provision: the retry starts over",
        _retried({"tasks.provision:provision": {}}, done_in=(2, 2, 2), workers_in=(2,)),
    )


def _retried(
    fails: Mapping[str, dict[str, Any]], *, done_in: tuple[int, ...], workers_in: tuple[int, ...]
) -> Callable[[Site], str]:
    """Have something fail, mend it, and retry; say in which attempts the phases were complete."""

    def play(site: Site) -> str:
        mended = site.folder / "mended"
        site.plan["fails_until"] = {at: {**how, "file": str(mended)} for at, how in fails.items()}
        site.deployed()
        if (first := site.wait()) != "Failed":
            raise HungError(f"the first try ended as {first}")
        before = _objects(site, attempt=1)
        mended.touch()
        site.retry()
        ended = site.wait()
        site.expect(ended == "Completed", f"the retry ended as {ended}")
        record = site.store().get_message(RunLayout(site.run_id()).run, RunRecord)
        if record is None:
            raise HungError("there is no run")
        attempts = [attempt.number for attempt in record.attempts]
        site.expect(attempts == [1, 2], f"its attempts are {attempts}")
        site.expect(record.state == "reported", f"its state is {record.state}")
        site.expect(_done_in(site) == done_in, f"phases are complete in {_done_in(site)}")
        have = tuple(number for number in attempts if _workers(site, number))
        site.expect(have == workers_in, f"attempts with workers: {have}")
        began = site.times("provision")
        tried = 1 if workers_in == (1,) else len(attempts)
        site.expect(began == tried, f"provision began {began} times")
        site.expect(_objects(site, attempt=1) >= before, "objects of the first attempt are gone")
        _told_apart(site, workers_in)
        return ended

    return play


def _told_apart(site: Site, workers_in: tuple[int, ...]) -> None:
    """Expect samples of each attempt that had workers, and both attempts in the report."""
    store, run_id = site.store(), site.run_id()
    keys = store.keys(RunLayout(run_id).samples())
    sampled = {part.attempt for key in keys if (part := Part.from_key(key)) is not None}
    site.expect(sampled == set(workers_in), f"there are samples of the attempts {sampled}")
    summary = site.summary()
    numbers = [attempt["number"] for attempt in summary.get("attempts", [])]
    site.expect(numbers == [1, 2], f"the report tells of the attempts {numbers}")
    told = {phase["label"]: phase["attempt"] for phase in summary.get("phases", [])}
    counted = tuple(told.get(label, 0) for label in PHASES)
    site.expect(counted == _done_in(site), f"the report's phases are of the attempts {counted}")
    # Connections that were open before come back first, and the report tells of that too.
    goes_on = len(workers_in) > 1
    back = [told[label] for label in told if label.endswith("-reconnect")]
    site.expect(back == ([2] if goes_on else []), f"connections came back in the attempts {back}")


def _done_in(site: Site) -> tuple[int, ...]:
    store, layout = site.store(), RunLayout(site.run_id())
    records = (store.get_message(layout.phase(label), PhaseRecord) for label in PHASES)
    return tuple(record.attempt if record else 0 for record in records)


def _workers(site: Site, attempt: int) -> list[str]:
    return site.store().keys(RunLayout(site.run_id()).workers(attempt))


def _objects(site: Site, *, attempt: int) -> set[str]:
    keys = site.store().keys(RunLayout(site.run_id()).samples())
    return {key for key in keys if f"/attempt={attempt}/" in key}
