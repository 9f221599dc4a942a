"""A user's own journey: where its module is, what is in it, and whether it can be run.

python -m worker_agent.journey check module:function
python -m worker_agent.journey check path/to/file.py:function
python -m worker_agent.journey files module:function
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from playwright.async_api import Page

from run_store.errors import ScenarioError
from scenarios.model import Scenario

OWN_PACKAGE = Path(__file__).resolve().parent
HINT = "docs/journeys.md says what a journey's module holds."


@dataclass(frozen=True)
class User:
    """Who a journey is made for: one connection, in a browser context of its own.

    `document_id` is an automerge document id that all users of `document` share in this run
    and that no other run knows; a page may use it or have documents of its own. `edit` is the
    number of the edit that a call is about, -1 in a call that is about none.
    """

    connection: int
    document: int
    worker: str
    relay_url: str
    run_id: str
    document_id: str
    edit: int = -1


_SHOWS = """([selector, limitMs]) => new Promise((resolve) => {
  if (document.querySelector(selector)) return resolve(true);
  const end = (found) => { observer.disconnect(); clearTimeout(timer); resolve(found); };
  const observer = new MutationObserver(() => {
    if (document.querySelector(selector)) end(true);
  });
  const timer = setTimeout(() => end(false), limitMs);
  observer.observe(
    document, { subtree: true, childList: true, attributes: true, characterData: true });
})"""


async def shows(page: Page, selector: str, *, limit_s: float = 60.0) -> None:
    """Wait until a page has an element of a CSS selector, to the millisecond.

    The page itself watches for it; `Locator.wait_for` looks each half second after the first
    one. Raises TimeoutError if it does not come within `limit_s`.
    """
    if not await page.evaluate(_SHOWS, [selector, limit_s * 1000]):
        raise TimeoutError(f"{selector} did not appear within {limit_s:g} s")


Step = Callable[..., Any]


@dataclass(frozen=True)
class Journey:
    """The functions of a journey's module; those that it lacks are None.

    Awaited: `edit(page, user) -> str | None`, `setup(page, user)`,
    `observe(page, user, token)`, `state(page, user) -> str`, `teardown(page, user)`.
    Called: `token(user) -> str`.
    """

    name: str
    edit: Step
    setup: Step | None = None
    token: Step | None = None
    observe: Step | None = None
    state: Step | None = None
    teardown: Step | None = None


_AWAITED = {"setup": 2, "observe": 3, "state": 2, "teardown": 2}
"""The optional coroutine functions, and how many arguments each is given."""


@dataclass(frozen=True)
class _Place:
    """Where a journey's module is. `root` goes on sys.path; None loads the file by itself."""

    module: str
    function: str
    file: Path
    root: Path | None


def load_journey(text: str) -> Journey:
    """Import `module:function`, or `path/to/file.py:function`, and what stands beside it.

    Raises ScenarioError that names the file, the name in it, and what is wrong.
    """
    place = _place(text)
    module = _import(place, text)
    steps: dict[str, Step] = {}
    for name, arguments in _AWAITED.items():
        if (step := getattr(module, name, None)) is not None and name != place.function:
            steps[name] = _checked(step, f"{place.file}:{name}", arguments)
    if (token := getattr(module, "token", None)) is not None:
        steps["token"] = _checked(token, f"{place.file}:token", 1, awaited=False)
    edit = getattr(module, place.function, None)
    if edit is None:
        raise ScenarioError(
            f"The journey {text}: {place.file} has no function {place.function}.", hint=HINT
        )
    return Journey(name=text, edit=_checked(edit, f"{place.file}:{place.function}", 2), **steps)


def check_journey(scenario: Scenario) -> None:
    """Raise ScenarioError unless the scenario's journey (if it has one) can be run here.

    This imports the journey's module; do it in a process of its own if that matters.
    """
    if scenario.journey:
        load_journey(scenario.journey)


def journey_files(scenario: Scenario) -> list[Path]:
    """Return what a remote worker needs of a scenario's journey: its file, or its package's folder.

    Empty if there is no journey, or if it comes with this project. Raises ScenarioError if the
    module is not found. What the module imports from elsewhere belongs in
    `journey_requirements`.
    """
    return _files_of(_place(scenario.journey)) if scenario.journey else []


def _files_of(place: _Place) -> list[Path]:
    if place.root is None:
        return [place.file]
    top, *inner = place.module.split(".")
    package = place.root / top
    if package == OWN_PACKAGE:
        return []
    return [package] if inner or place.file.name == "__init__.py" else [place.file]


def _place(text: str) -> _Place:
    module, _, function = text.rpartition(":")
    if not module or not function.isidentifier():
        raise ScenarioError(
            f"The journey {text!r} is not module:function or path/to/file.py:function.", hint=HINT
        )
    if module.endswith(".py"):
        file = Path(module).resolve()
        if not file.is_file():
            raise ScenarioError(f"The journey {text}: there is no file {file}.", hint=HINT)
        return _place_of(file, function)
    if not all(part.isidentifier() for part in module.split(".")):
        raise ScenarioError(f"The journey {text}: {module!r} is no module's name.", hint=HINT)
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    except Exception as error:  # a package's __init__ runs here, and may raise anything
        raise _cannot_import(text, error) from error
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).resolve()
        up = module.count(".") + (file.name == "__init__.py")
        return _Place(module, function, file, file.parents[up])
    # A console script does not have the working folder on sys.path.
    stem = Path.cwd().joinpath(*module.split("."))
    for file in (stem.with_suffix(".py"), stem / "__init__.py"):
        if file.is_file():
            return _place_of(file, function)
    raise ScenarioError(
        f"The journey {text}: there is no module {module} on Python's path, in the working "
        "folder or beside the scenario file.",
        hint="Give its path instead: path/to/file.py:function.",
    )


def _place_of(file: Path, function: str) -> _Place:
    """Return the place of a file: a module of its package, or one by itself."""
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    names = list(file.relative_to(root).with_suffix("").parts)
    if len(names) == 1:
        return _Place(names[0], function, file, None)
    if names[-1] == "__init__":
        names.pop()
    return _Place(".".join(names), function, file, root)


def _import(place: _Place, text: str) -> ModuleType:
    try:
        if place.root is not None:
            if str(place.root) not in sys.path:
                sys.path.append(str(place.root))
            return importlib.import_module(place.module)
        name = f"journey_{place.module}"
        loader = SourceFileLoader(name, str(place.file))
        spec = ModuleSpec(name, loader, origin=str(place.file))
        spec.has_location = True
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise _cannot_import(text, error, place.file) from error
    return module


def _cannot_import(text: str, error: BaseException, file: Path | None = None) -> ScenarioError:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if file is not None and frame.filename == str(file)
    ]
    where = f" ({file}{f', line {lines[-1]}' if lines else ''})" if file else ""
    return ScenarioError(
        f"The journey {text} cannot be imported{where}: {type(error).__name__}: {error}",
        hint="Install what it needs, and name that in journey_requirements.",
    )


def _checked(step: Any, where: str, arguments: int, *, awaited: bool = True) -> Step:
    """Return a function that can be called with so many arguments, or raise ScenarioError."""
    kind = "an async function" if awaited else "a plain function"
    if not callable(step) or inspect.iscoroutinefunction(step) != awaited:
        raise ScenarioError(f"{where} is not {kind}.", hint=HINT)
    try:
        inspect.signature(step).bind(*range(arguments))
    except TypeError as error:
        raise ScenarioError(
            f"{where} cannot be called with {arguments} arguments: {error}.", hint=HINT
        ) from None
    return step  # type: ignore[no-any-return]  # callable() tells mypy too little


def main(arguments: list[str]) -> int:
    """Run `check` or `files`; return an exit code, 2 if the journey cannot be run.

    `files` prints one JSON object: what travels to a remote worker (`files`, empty if it comes
    with this project), and there the path of the module's `file` and the `function` in it.
    """
    if len(arguments) != 2 or arguments[0] not in ("check", "files"):  # noqa: PLR2004 - a command and its argument
        print("usage: python -m worker_agent.journey check|files module:function", file=sys.stderr)  # noqa: T201
        return 2
    try:
        if arguments[0] == "files":
            print(_travelling(arguments[1]))  # noqa: T201 - the module's own command line
            return 0
        journey = load_journey(arguments[1])
    except ScenarioError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the module's own command line
        return error.exit_code
    found = [name for name in (*_AWAITED, "token") if getattr(journey, name) is not None]
    print(f"{journey.name}: {', '.join(['edit', *found])}")  # noqa: T201 - likewise
    return 0


def _travelling(text: str) -> str:
    place = _place(text)
    files = _files_of(place)
    inside = place.file.relative_to(place.root or place.file.parent)
    if [*map(str, files)] == [str(place.file)]:
        inside = Path(place.file.name)
    return json.dumps(
        {"files": [*map(str, files)], "file": str(inside), "function": place.function}
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
