"""What the suite changes inside a process of a run; Python imports this at its start.

It stands on the PYTHONPATH of the runs under test and nowhere else, so that the product itself
has no switch for any of it. The environment's RELAY_LOAD_FAULTS holds a plan as JSON:

    set         {"module:NAME": value}: a constant, so that an outage need not last minutes
    raise_in    {"module:task": "text"}: the task raises RuntimeError in place of its work
    fails_until {"module:function": {"file": path, "after_s": seconds, "at": word}}: a task or an
                async function raises RuntimeError until the file is there: at once, or in the
                midst of its work; where "at" is given, only when it is called with that word
    slow        {"module:task": seconds}: the task waits for so long before it works
    ledger      a folder: each batch that an agent has spooled is written there once more
    agent_s3    the endpoint by which agents reach the store, in place of the orchestrator's
    agent_relay  the address by which agents reach the relay, likewise
    agent_metadata  {"worker": url}: the metadata service that it asks for a notice
    no_hooks    true: the flow has no hooks for its cancellation and its crash
    grace_s     how long agents go on while the store does not answer
    spool       a folder in which agents keep their spools
    netns       the network namespace that agents run in
    preload     {"NAME": value}: environment with which an agent's interpreter is started anew
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import importlib.abc
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NoReturn

Change = Callable[[Any], None]
CLONE_NEWNET = 0x40000000


def _set(name: str, value: object) -> Change:
    return lambda module: setattr(module, name, value)


def _raise_in(name: str, text: str) -> Change:
    def change(module: Any) -> None:
        task = getattr(module, name)

        @functools.wraps(task.fn)  # Prefect names a task run by its parameters
        async def raising(*_words: object, **_named: object) -> NoReturn:
            raise RuntimeError(text)

        task.fn = raising

    return change


def _fails_until(name: str, when: dict[str, Any]) -> Change:
    def change(module: Any) -> None:
        thing = getattr(module, name)
        function = getattr(thing, "fn", thing)

        @functools.wraps(function)
        async def failing(*words: object, **named: object) -> object:
            at = when.get("at", name)
            if os.path.exists(when["file"]) or at not in (name, *words, *named.values()):  # noqa: ASYNC240, PTH110 - it takes no time
                return await function(*words, **named)
            with contextlib.suppress(TimeoutError):
                if "after_s" in when:
                    async with asyncio.timeout(when["after_s"]):
                        return await function(*words, **named)
            raise RuntimeError(f"{name} was made to fail")

        if thing is function:
            setattr(module, name, failing)
        else:
            thing.fn = failing

    return change


def _slow(name: str, seconds: float) -> Change:
    def change(module: Any) -> None:
        task = getattr(module, name)
        function = task.fn

        @functools.wraps(function)
        async def slow(*words: object, **named: object) -> object:
            await asyncio.sleep(seconds)
            return await function(*words, **named)

        task.fn = slow

    return change


def _keep_ledger(folder: Path) -> Change:
    """Write what a journal takes to a file of our own, which no agent ever empties."""

    def change(module: Any) -> None:
        append, ledgers = module.Journal.append, {}

        def append_and_note(journal: Any, batch: Any) -> None:
            path = journal.path
            append(journal, batch)
            attempt, worker, _, phase = path.parts[-5:-1]
            name = "~".join((attempt, worker, phase, path.stem.split("-")[0], str(os.getpid())))
            if name not in ledgers:
                ledgers[name] = module.Journal(folder / f"{name}.arrows", batch.schema)
            append(ledgers[name], batch)

        module.Journal.append = append_and_note

    return change


def _redirect(plan: dict[str, Any]) -> Change:
    """Have agents told of other places and limits than the orchestrator tells them."""

    def change(module: Any) -> None:
        read = module.AgentConfig.from_file.__func__

        def from_file(cls: Any, path: Path) -> Any:
            config = read(cls, path)
            if "spool" in plan and not config.spool.is_symlink():
                own = Path(plan["spool"], config.worker)
                own.mkdir(exist_ok=True)
                config.spool.symlink_to(own)
            endpoint = plan.get("agent_s3") or config.store.endpoint_url
            told = {
                "store": config.store.model_copy(update={"endpoint_url": endpoint}),
                "relay_url": plan.get("agent_relay") or config.relay_url,
                "store_grace_s": plan.get("grace_s") or config.store_grace_s,
            }
            if metadata := plan.get("agent_metadata", {}).get(config.worker):
                told |= {"metadata_url": metadata, "notice_poll_s": 0.5}
            return config.model_copy(update=told)

        module.AgentConfig.from_file = classmethod(from_file)

    return change


def _preload(wanted: dict[str, str]) -> None:
    """Start this very command anew with libraries before all others; its children go without."""
    if not wanted.keys() <= os.environ.keys():
        os.environ.update(wanted)
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - nothing in it is anybody's input
    del os.environ["LD_PRELOAD"]


def _enter(netns: str) -> None:
    """Move this process, which has no thread yet, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", netns).open("rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {netns}")


def _without_hooks(module: Any) -> None:
    module.relay_load.on_crashed_hooks.clear()
    module.relay_load.on_cancellation_hooks.clear()


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls back when a module has been loaded."""

    def __init__(self, changes: dict[str, list[Change]]) -> None:
        self._changes = changes

    def find_spec(self, name: str, *_where: object) -> ModuleSpec | None:
        """Find a module as the others do, and have it changed once it is loaded."""
        changes = self._changes.pop(name, None)
        spec = importlib.util.find_spec(name) if changes else None
        if changes is None or spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        load = loader.exec_module

        def load_and_change(module: Any) -> None:
            load(module)
            for change in changes:
                change(module)

        loader.exec_module = load_and_change
        return spec


def _begin(plan: dict[str, Any]) -> None:
    changes: dict[str, list[Change]] = {}

    def after(where: str, make: Callable[[str, Any], Change], value: Any) -> None:
        module, _, name = where.partition(":")
        changes.setdefault(module, []).append(make(name, value))

    makers: dict[str, Callable[[str, Any], Change]] = {
        "set": _set,
        "raise_in": _raise_in,
        "fails_until": _fails_until,
        "slow": _slow,
    }
    for key, make in makers.items():
        for where, value in plan.get(key, {}).items():
            after(where, make, value)
    if plan.get("no_hooks"):
        changes.setdefault("flows.relay_load", []).append(_without_hooks)
    if "worker_agent" in sys.orig_argv:
        if "preload" in plan:
            _preload(plan["preload"])
        if "netns" in plan:
            _enter(plan["netns"])
        if "ledger" in plan:
            changes["worker_agent.journal"] = [_keep_ledger(Path(plan["ledger"]))]
        changes["run_store.agent_config"] = [_redirect(plan)]
    if changes:
        sys.meta_path.insert(0, _AfterImport(changes))


if os.environ.get("RELAY_LOAD_FAULTS"):
    _begin(json.loads(os.environ["RELAY_LOAD_FAULTS"]))
