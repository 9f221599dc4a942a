"""Reading scenarios: by name or path, with overrides, and with errors that name file and key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from run_store.errors import ScenarioError
from scenarios.model import Scenario

FOLDER = Path(__file__).parent
_REASONS = {
    "extra_forbidden": "no such key",
    "missing": "must be given",
    "too_short": "there must be one at least",
    "tuple_type": "should be a list, or tables with names",
    "model_type": "should be a table",
    "string_pattern_mismatch": "should be at most 40 lower-case letters, digits and hyphens",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_parsing": "should be a number",
    "finite_number": "should be a finite number",
}
"""What pydantic's types of errors mean to whoever writes a scenario."""


def scenario_names() -> list[str]:
    """Return the names of the scenarios that come with the project, smallest first."""
    files = sorted(FOLDER.glob("*.toml"), key=lambda path: (load(path).connections, path.stem))
    return [path.stem for path in files]


def load_scenario(named: str, overrides: Mapping[str, Any] | Iterable[str] = ()) -> Scenario:
    """Return the scenario of that name, or in that file, with the overrides applied.

    Overrides are `key=value` lines as `--set` takes them, or a mapping of dotted keys (or
    nested tables) to values. Raises ScenarioError that names file, key and reason.
    """
    path = _find(named)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path} is not valid TOML: {error}.") from None
    table.setdefault("name", path.stem)
    if isinstance(table.get("journey"), str):
        table["journey"] = _beside(path.parent, table["journey"])
    given = overrides if isinstance(overrides, Mapping) else overrides_from(overrides)
    for key, value in given.items():
        _put(table, key, value)
    return _validated(table, where=str(path) if named != path.stem else f"scenario {named}")


def load(path: Path) -> Scenario:
    """Return the scenario in one file, without overrides."""
    return load_scenario(str(path))


def overrides_from(lines: Iterable[str]) -> dict[str, Any]:
    """Return the mapping that `--set key=value` lines stand for; ScenarioError for other lines."""
    return dict(map(_split, lines))


def _find(named: str) -> Path:
    own = FOLDER / f"{named}.toml"
    if "/" not in named and own.is_file():
        return own
    path = Path(named)
    if path.suffix == ".toml" or "/" in named:
        if path.is_file():
            return path
        raise ScenarioError(f"There is no scenario file {named}.")
    known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.toml")))
    raise ScenarioError(
        f"There is no scenario called {named!r}.",
        hint=f"Choose one of {known}, or give the path of a .toml file.",
    )


def _beside(folder: Path, journey: str) -> str:
    """Return a journey by its file's whole path, if its module stands beside the scenario file."""
    module, _, function = journey.rpartition(":")
    stem = module.replace(".", "/")
    names = [module] if module.endswith(".py") else [f"{stem}.py", f"{stem}/__init__.py"]
    for file in (folder / name for name in names):
        if module and file.is_file():
            return f"{file.resolve()}:{function}"
    return journey


def _split(line: str) -> tuple[str, Any]:
    key, equals, text = line.partition("=")
    if not equals or not key.strip():
        raise ScenarioError(
            f"The override {line!r} is not key=value.",
            hint="Write for example --set phases.sustained.duration=20s",
        )
    try:
        return key.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), text.strip()


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key; a table given as value is merged, not put in its place."""
    if isinstance(value, Mapping):
        for inner, inner_value in value.items():
            _put(table, f"{key}.{inner}", inner_value)
        return
    *path, last = key.split(".")
    at: dict[str, Any] = table
    for depth, part in enumerate(path):
        if path[0] == "phases" and depth == 1 and part not in at:
            raise ScenarioError(
                f"Override {key}: there is no phase called {part!r}.",
                hint=f"This scenario has {', '.join(at)}.",
            )
        inner = at.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ScenarioError(f"Override {key}: {part} is a value, not a table.")
        at = inner
    at[last] = value


def _validated(table: dict[str, Any], *, where: str) -> Scenario:
    try:
        return Scenario.model_validate(table)
    except ValidationError as error:
        lines = [_explain(table, entry) for entry in _telling(error.errors())]
        raise ScenarioError(f"{where} is not valid:\n" + "\n".join(lines)) from None


def _telling(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Return the errors without those that only follow from others.

    A phase that is not valid is left out by pydantic, which then says that there is none.
    """
    within = any(len(entry["loc"]) > 1 and entry["loc"][0] == "phases" for entry in errors)
    return [entry for entry in errors if not (within and entry["loc"] == ("phases",))]


def _explain(table: dict[str, Any], error: ErrorDetails) -> str:
    """Return `key: reason`, with a phase's number turned back into its name."""
    keys = list(error["loc"])
    phases = table.get("phases")
    if (
        len(keys) > 1
        and keys[0] == "phases"
        and isinstance(keys[1], int)
        and isinstance(phases, dict)
    ):
        keys[1] = list(phases)[keys[1]]
    reason = _REASONS.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    reason = reason.replace("Input should be", "should be").replace(" a valid ", " a ")
    given = error["input"]
    told = given is None or isinstance(given, dict | list | tuple) or repr(given) in reason
    shown = "" if told else f" (given: {given!r})"
    return f"  {'.'.join(map(str, keys)) or 'scenario'}: {reason}{shown}"
