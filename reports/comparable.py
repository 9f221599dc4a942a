"""Whether two runs asked the same of a relay: what they differ in, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reports.facts import RunFacts

_ASKS_NOTHING = frozenset(
    {
        "description",
        "objectives",
        "fleet",
        "allowed_hosts",
        "own_relay",
        "max_usd",
        "max_usd_per_hour",
    }
)
"""Parts of a scenario that change no load: what is wanted of the run, what it may cost."""
_FLEET = {"ec2": ("workers", "instance_types", "region")}
_MOST_NAMED = 12


def differences(baseline: RunFacts, other: RunFacts) -> list[str]:
    """Return what the two were told differently and matters for load, a line for each field.

    Scenario, load, isolation, fleet; not the relay's address, since two relays may be compared.
    """
    one, two = _load_of(baseline), _load_of(other)
    phases = [facts.pop("phases", {}) for facts in (one, two)]
    found = list(_unlike(one, two))
    if list(phases[0]) != list(phases[1]):
        found.append(f"phases: {_shown(list(phases[0]))} and {_shown(list(phases[1]))}")
    for name in phases[0]:
        if name in phases[1]:
            found.extend(_unlike(phases[0][name], phases[1][name], f"phases.{name}."))
    left_out = len(found) - _MOST_NAMED
    return [*found[:_MOST_NAMED], f"{left_out} more"] if left_out > 0 else found


def _load_of(facts: RunFacts) -> dict[str, Any]:
    """Return what a run was told of load; a scenario that another version wrote as it stands."""
    scenario = (
        facts.scenario.model_dump(mode="json", by_alias=True)
        if facts.scenario
        else facts.record.scenario
    )
    load = {name: value for name, value in scenario.items() if name not in _ASKS_NOTHING}
    load["phases"] = {
        phase.get("name"): {k: v for k, v in phase.items() if k not in ("name", "objectives")}
        for phase in scenario.get("phases", [])
    }
    fleet, told = facts.record.fleet, scenario.get("fleet", {})
    kept = {f"fleet.{name}": told.get(name) for name in _FLEET.get(fleet, ("workers",))}
    return {"name": None, **load, "fleet": fleet, **kept}


def _unlike(one: dict[str, Any], two: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name in dict.fromkeys([*one, *two]):
        if one.get(name) != two.get(name):
            yield f"{prefix}{name}: {_shown(one.get(name))} and {_shown(two.get(name))}"


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key}={entry}" for key, entry in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
