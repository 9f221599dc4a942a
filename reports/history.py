"""The store's history of capacities: one line for each search, in a Parquet object of its own.

A line outlives its run: `relay-load prune` deletes runs and leaves the history.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from reports.summary import Summary
from run_store.capacity import HISTORY, CapacityResult, history_key
from run_store.steps import Step
from run_store.store import Store

_NOT_COMPARED = ("description", "fleet", "max_usd", "max_usd_per_hour", "allowed_hosts", "phases")
"""Parts of a scenario that change what a run costs or how long it takes, not what it asks."""


@dataclass(frozen=True)
class Line:
    """One run, as the trend sees it. `at_us` is when it began.

    Latencies in milliseconds are those of a search's first step, whose load is the same in all
    searches of a scenario; of any other run they are the whole run's. `asks` is the same for two
    runs that asked the same of a relay. `kind` is empty for a run that searched no capacity.
    """

    run_id: str
    at_us: int
    scenario: str
    asks: str
    relay_url: str
    relay_version: str
    fleet: str
    validity: str
    verdict: str
    kind: str = ""
    over: str = ""
    capacity: float | None = None
    low: float | None = None
    high: float | None = None
    objective: str = ""
    sentence: str = ""
    delivery_p50_ms: float | None = None
    delivery_p95_ms: float | None = None
    acknowledgement_p50_ms: float | None = None
    acknowledgement_p95_ms: float | None = None
    error_rate: float | None = None

    @property
    def value(self) -> float | None:
        """The capacity as a trend takes it: what it was, or the bound that is known of it."""
        return self.capacity if self.capacity is not None else self.low

    @property
    def is_below(self) -> bool:
        """Whether only a bound from above is known: nothing that was tried was held."""
        nothing_held = self.kind in ("below", "died") and self.value is None
        return nothing_held and self.high is not None

    @classmethod
    def of_search(
        cls,
        summary: Summary,
        result: CapacityResult,
        steps: Sequence[Step],
        scenario: Mapping[str, Any],
    ) -> Self:
        """Return the line of a run that searched."""
        first = min(steps, key=lambda step: step.number, default=None)
        figures = first.figures if first else None
        return cls(
            run_id=summary.run_id,
            at_us=result.started_us,
            scenario=summary.scenario,
            asks=asks(scenario, result),
            relay_url=summary.relay_url,
            relay_version=summary.relay.version or "",
            fleet=summary.fleet,
            validity=summary.validity,
            verdict=summary.verdict,
            kind=result.kind,
            over=result.over,
            capacity=result.capacity,
            low=result.low,
            high=result.high,
            objective=result.objective,
            sentence=result.sentence,
            delivery_p50_ms=figures.delivery_ms.p50 if figures else None,
            delivery_p95_ms=figures.delivery_ms.p95 if figures else None,
            acknowledgement_p50_ms=figures.acknowledgement_ms.p50 if figures else None,
            acknowledgement_p95_ms=figures.acknowledgement_ms.p95 if figures else None,
            error_rate=figures.error_rate if figures else None,
        )


def asks(scenario: Mapping[str, Any], result: CapacityResult | None = None) -> str:
    """Return what two runs must have in common for their figures to be compared, as a short hash.

    That is the scenario without what only concerns cost and place, and where the search began
    and what it varied. How closely it looked does not matter, and neither does what is unset: a
    later release that knows one more option still compares with runs that could not ask for it.
    """
    asked: dict[str, Any] = {
        key: value for key, value in scenario.items() if key not in _NOT_COMPARED
    }
    if result is None:
        asked["phases"] = scenario.get("phases")
    else:
        asked["objectives"] = sorted(_searched_by(scenario))
        asked["search"] = [result.over, result.start, result.connections, result.edits_per_s]
        asked.pop("connections", None)
    text = json.dumps(_set_options(asked), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _set_options(value: Any) -> Any:
    """Return a value without the options in it that are none, empty or off; 0 is an answer."""
    if isinstance(value, Mapping):
        kept = {key: _set_options(one) for key, one in value.items()}
        return {
            key: one
            for key, one in kept.items()
            if one is not None and one is not False and one not in ("", [], {})
        }
    return [_set_options(one) for one in value] if isinstance(value, list) else value


def _searched_by(scenario: Mapping[str, Any]) -> list[str]:
    """Return the objectives that bound a search: those of its scenario's stress phase."""
    phases = [phase for phase in scenario.get("phases") or [] if phase.get("kind") == "stress"]
    return [*scenario.get("objectives", []), *(o for p in phases for o in p.get("objectives", []))]


def add(store: Store, line: Line) -> None:
    """Write a run's line; a second time changes nothing but what is said of the run."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(line)], schema=_schema()), sink)
    store.put(history_key(line.run_id), sink.getvalue())


def lines(store: Store, scenario: str | None = None) -> list[Line]:
    """Return the lines of all searches, or of those on one scenario, the oldest first."""
    found = []
    for key in store.keys(HISTORY):
        body = store.get(key)
        if body is not None:
            found += [_line(row) for row in pq.read_table(pa.BufferReader(body)).to_pylist()]
    chosen = [line for line in found if scenario in (None, line.scenario)]
    return sorted(chosen, key=lambda line: (line.at_us, line.run_id))


def _line(row: Mapping[str, Any]) -> Line:
    """Return a line from a row that may come from another version."""
    known = {field.name: field for field in fields(Line)}
    empty = {name: 0 if name == "at_us" else "" for name in list(known)[:9]}
    return Line(**{**empty, **{key: value for key, value in row.items() if key in known}})


def _schema() -> pa.Schema:
    kinds: dict[str, pa.DataType] = {
        "int": pa.int64(),
        "str": pa.string(),
        "float | None": pa.float64(),
    }
    return pa.schema([(field.name, kinds[str(field.type)]) for field in fields(Line)])
