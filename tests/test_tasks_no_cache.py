from __future__ import annotations

import importlib
import pkgutil

import pytest
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE

import flows
import tasks
from flows.relay_load import relay_load

STEPS = {"provision", "deploy", "load", "wind-down", "report", "teardown"}


def everything_in(package: object) -> dict[str, object]:
    """Import every module of a package; return all that they hold, by full name."""
    found: dict[str, object] = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):  # type: ignore[attr-defined]  # both are packages
        if not module.name.endswith("guardian"):
            held = vars(importlib.import_module(module.name))
            found.update({f"{module.name}.{name}": value for name, value in held.items()})
    return found


ALL = {**everything_in(tasks), **everything_in(flows)}
TASKS = {name: value for name, value in ALL.items() if isinstance(value, Task)}
FLOWS = {name: value for name, value in ALL.items() if isinstance(value, Flow)}


def test_every_step_is_a_task() -> None:
    """The walk finds the steps of a run; if it did not, the tests below would prove nothing."""
    assert {task.name for task in TASKS.values()} >= STEPS


@pytest.mark.parametrize("name", TASKS)
def test_no_task_is_cached(name: str) -> None:
    """A task with a side effect runs on every retry, even where results are kept by default."""
    assert TASKS[name].cache_policy is NO_CACHE
    assert TASKS[name].persist_result is False


@pytest.mark.parametrize("name", FLOWS)
def test_no_flow_keeps_results(name: str) -> None:
    """Results kept by a flow would make tasks with equal inputs not run."""
    assert FLOWS[name].persist_result is False


def test_a_run_is_given_back_whatever_ends_it() -> None:
    """Cancellation and crash have a hook, since `finally` does not outlive its process."""
    assert relay_load.on_cancellation_hooks
    assert relay_load.on_crashed_hooks
