"""`relay-load run`: the flow, called from a terminal."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from flows.cli_prefect import prefect_api
from flows.cli_show import observer_for
from flows.cli_verdict import print_verdict
from flows.early_interrupts import remembered_interrupts
from run_store.errors import CannotRunError, InterruptedRunError, RelayLoadError, UsageError
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from scenarios.model import Scenario
from tasks import preflight
from tasks.budget import estimated, in_words
from tasks.calibration import Advice, advice_from, plan_in
from tasks.cost import Estimate, check_budget
from tasks.hosts import check_hosts
from tasks.observation import showing
from tasks.search_plan import search_from


@dataclass(frozen=True)
class Asked:
    """What the user asked for. `search` are the parameters that only a search has."""

    scenario: str
    relay_url: str | None
    fleet: str | None
    store: str | None
    overrides: Mapping[str, Any]
    results: Path
    i_may_load_this_host: bool
    debug: bool
    confirm: bool = False
    search: Mapping[str, Any] | None = None
    calibrates: bool = False

    @property
    def store_here(self) -> str | None:
        """The store's address, as far as it can be had before Prefect is there for its blocks."""
        return None if (self.store or "").startswith("block:") else self.store

    def advice(self, scenario: Scenario) -> Advice:
        """Return what calibrations in the store say of the workers that it will have."""
        if self.calibrates or self.store != self.store_here:
            return Advice()
        kind = self.fleet or scenario.fleet.kind
        is_search = self.search is not None
        with advice_from(self.store, self.results, is_search=is_search) as advise:
            return advise(scenario, kind)

    def settled(self) -> Scenario:
        """Return the scenario that will be carried out: a search derives one of its own."""
        scenario = load_scenario(self.scenario, self.overrides)
        if self.search is None:
            return scenario
        fleet = scenario.fleet.model_copy(update={"kind": self.fleet or scenario.fleet.kind})
        scenario = scenario.model_copy(update={"fleet": fleet})
        fixed: dict[str, Any] = {"over": "both", "subject": "generator"} if self.calibrates else {}
        asked = {key: value for key, value in self.search.items() if key != "allowed_fall"}
        wanted = search_from(**asked, **fixed)
        return plan_in(self.store_here, self.results, scenario, wanted).scenario


def run(asked: Asked, *, out: Console, progress: Console) -> None:
    """Run the flow, show it on `progress`, and print the verdict on `out`.

    Raises what the run ended with: its exit code is the command's.
    """
    with remembered_interrupts():
        scenario = asked.settled()
        cost = asyncio.run(estimated(scenario, asked.fleet or scenario.fleet.kind))
        progress.print(f"{scenario.name}: {scenario.summary_line()}", highlight=False)
        progress.print(f"It costs {in_words(cost)}", highlight=False, soft_wrap=True)
        told = asked.advice(scenario)
        if told.sentence:
            style = "yellow" if told.is_warning else None
            said = f"Workers: {told.sentence}"
            progress.print(said, style=style, markup=False, highlight=False, soft_wrap=True)
        check_budget(scenario, cost)
        if asked.confirm:
            _confirm(cost)
        asyncio.run(_check_first(asked))
    if not asked.debug:
        # A run that fails is told in one message; Prefect's own lines go to its API all the same.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        _log_to(progress)
    with prefect_api(asked.results, say=lambda text: progress.print(text, highlight=False)):
        flow_run_id, ended = _shown(asked, scenario, progress)
        folder = _folder_of(flow_run_id, asked.results)
        summary = _summary(folder)
        if summary and folder:
            print_verdict(out, summary, report=(folder / "report.html").resolve())
        if isinstance(ended, BaseException):
            raise ended
        if isinstance(ended, Mapping) and "calibration" in ended:
            out.print(f"Calibration: {ended['calibration']['sentence']}", highlight=False)


def _confirm(cost: Estimate | None) -> None:
    """Ask whether the run may cost that; raise UsageError where nobody can be asked."""
    if cost is not None and not cost.usd:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "--confirm asks before the run, and nobody is there.",
            hint="Leave it out, or set max_usd.",
        )
    if not typer.confirm("Start it?"):
        raise InterruptedRunError("The run was not started.")


def _shown(asked: Asked, scenario: Scenario, progress: Console) -> tuple[str, object]:
    """Run the flow, and show it; return its flow run's id, and what it ended with."""
    with observer_for(progress, scenario) as observer, showing(observer):
        return asyncio.run(_flow(asked))


async def _check_first(asked: Asked) -> None:
    """Find out what can be found out at once, before Prefect takes its time to start.

    The flow checks all of it again, since it can be called without us.
    """
    scenario = load_scenario(asked.scenario, asked.overrides)
    check_hosts(scenario, asked.fleet or scenario.fleet.kind)
    relay_url = preflight.relay_of(scenario, asked.relay_url)
    if relay_url:
        preflight.check_target(relay_url, scenario, allowed=asked.i_may_load_this_host)
    if (asked.fleet or scenario.fleet.kind) == "local":
        preflight.check_bundle()
        await asyncio.to_thread(preflight.check_chromium)
    here = (asked.fleet or scenario.fleet.kind) == "local"
    await asyncio.to_thread(preflight.check_journey, scenario.journey, is_here=here)
    if asked.store_here:
        store = Store(StoreAddress.from_url(asked.store_here))
        await asyncio.to_thread(store.check)
    if relay_url:
        await preflight.check_relay(relay_url)


async def _flow(asked: Asked) -> tuple[str, object]:
    # Prefect reads its settings when it is imported, and they are known only now.
    from flows.capacity import relay_calibrate, relay_capacity  # noqa: PLC0415
    from flows.relay_load import relay_load  # noqa: PLC0415

    flow: Any = relay_load  # a flow of any signature, awaited for its state
    if asked.search is not None:
        flow = relay_calibrate if asked.calibrates else relay_capacity
    state = await flow(
        scenario=asked.scenario,
        relay_url=asked.relay_url,
        fleet=asked.fleet,
        store=asked.store,
        overrides=dict(asked.overrides),
        results=str(asked.results),
        i_may_load_this_host=asked.i_may_load_this_host,
        **(asked.search or {}),
        return_state=True,
    )
    flow_run_id = str(state.state_details.flow_run_id or "")
    if state.is_completed():
        return flow_run_id, await state.aresult(raise_on_failure=False)
    ended = await state.aresult(raise_on_failure=False)
    if state.is_cancelled():
        ended = InterruptedRunError("The run was cancelled.")
    if isinstance(ended, RelayLoadError):
        return flow_run_id, ended
    if isinstance(ended, BaseException):
        if asked.debug:
            traceback.print_exception(ended)
        said = "".join(traceback.format_exception_only(ended)).strip()
        return flow_run_id, CannotRunError(f"The run failed: {said}")
    return flow_run_id, CannotRunError(f"The run ended as {state.name}: {state.message}")


def _folder_of(flow_run_id: str, results: Path) -> Path | None:
    """Return the run's folder: its id ends as the flow run's does."""
    tail = flow_run_id.replace("-", "")[-8:]
    return next(iter(results.glob(f"*-{tail}")), None) if tail else None


def _summary(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


class _Lines(logging.Handler):
    """Warnings of our own modules, as lines above the display and without tracebacks."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]}"
        self._console.print(f"{record.levelname.lower()}: {text}", markup=False, highlight=False)


def _log_to(console: Console) -> None:
    for package in ("flows", "tasks", "reports", "run_store", "scenarios"):
        logging.getLogger(package).addHandler(_Lines(console))
