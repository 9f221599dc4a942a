"""A run with real agents, which a test conducts: orders and leases out, statuses and rows in."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from run_store.agent_config import AgentConfig
from run_store.layout import Part, RunLayout, phase_label
from run_store.messages import Lease, Line, Order, PhaseRef, Status
from run_store.samples import KINDS
from run_store.schedule import PlannedEdit, edits_of_documents, plan_of, planned_edits
from run_store.store import Store
from scenarios.loading import load_scenario
from tasks.processes import wait_until
from tests.relay_process import ROOT, RelayProcess
from tests.store_server import StoreServer
from tests.waiting import wait_for
from tests.worker_agent.samples import parts, rows

READY_WITHIN_S = 120.0
Row = dict[str, Any]


class Run:
    """One run; a context manager that ends every agent which is left, with its browsers."""

    def __init__(
        self,
        folder: Path,
        server: StoreServer,
        relay_url: str,
        *,
        workers: Iterable[str] = ("worker-1",),
        **scenario: object,
    ) -> None:
        self.folder = folder
        self.server = server
        # The local server may answer 500 to a look at a status that is just being rewritten.
        self.store: Store = server.store(tries=6)
        self.run_id = folder.name
        self.layout = RunLayout(self.run_id)
        self.relay_url = relay_url
        self.workers = list(workers)
        self.scenario = load_scenario(
            "local", {"connections_per_page": 4, "fleet.workers": len(self.workers), **scenario}
        )
        self.plan = plan_of(self.scenario)
        self.orders: list[Order] = []
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self._next_edit = 0
        self._document_edits: dict[int, int] = {}
        self._connections = 0
        self._counter = 0
        self._rows: dict[str, list[Row]] = {}
        self._parts: list[Part] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for agent in self.agents.values():
            kill(agent)
        # The store may be gone when a test looks.
        for kind in KINDS if _error[0] is None else ():
            self._rows[kind] = rows(self.store, self.run_id, kind)
        self._parts = parts(self.store, self.run_id)

    def config(self, worker: str, **given: Any) -> AgentConfig:
        """Return what a worker's agent is told."""
        told: dict[str, Any] = {
            "order_poll_s": 0.1,
            "heartbeat_s": 0.3,
            "ship_every_s": 2.0,
            "spool": self.folder / f"spool-{worker}",
            **given,
        }
        return AgentConfig(
            run_id=self.run_id,
            attempt=1,
            worker=worker,
            store=self.server.address,
            relay_url=self.relay_url,
            scenario=self.scenario.model_dump(mode="json", by_alias=True),
            **told,
        )

    def start(
        self, worker: str, *, environment: dict[str, str] | None = None, **given: Any
    ) -> "subprocess.Popen[bytes]":
        """Start a worker's agent; a second time after its death."""
        path = self.folder / f"{worker}.json"
        self.config(worker, **given).to_file(path)
        with (self.folder / f"{worker}.log").open("ab") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "worker_agent", "--config", str(path)],
                cwd=ROOT,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.agents[worker] = agent
        return agent

    def start_all(self) -> None:
        """Start every worker's agent and wait until all are ready."""
        self.lease()
        for worker in self.workers:
            self.start(worker)
        for worker in self.workers:
            self.until(worker, lambda status: status.state == "ready", within_s=READY_WITHIN_S)

    def log(self, worker: str) -> str:
        """Return what an agent wrote to stderr."""
        path = self.folder / f"{worker}.log"
        return path.read_text(encoding="utf-8", errors="replace")[-5000:] if path.exists() else ""

    def status(self, worker: str = "worker-1") -> Status | None:
        """Return a worker's last heartbeat."""
        return self.store.get_message(self.layout.status(1, worker), Status)

    def until(
        self, worker: str, condition: Callable[[Status], object], *, within_s: float = 60.0
    ) -> Status:
        """Wait until a worker's status is as wanted, and return it."""

        def met() -> Status | None:
            status = self.status(worker)
            return status if status is not None and condition(status) else None

        status = wait_for(
            met, within_s=within_s, every_s=0.1, why=lambda: (self.status(worker), self.log(worker))
        )
        assert status is not None
        return status

    def lease(self, expires_after_s: float = 600) -> None:
        """Raise the lease."""
        self._counter += 1
        lease = Lease(counter=self._counter, every_s=1, expires_after_s=expires_after_s)
        self.store.put_message(self.layout.lease(1), lease)

    def order(
        self,
        name: str,
        duration_s: float,
        connections: int,
        *,
        begin: int | None = None,
        edits_per_s: float = 0.0,
        edits_per_s_at_end: float | None = None,
        lead_s: float = 2.0,
        **given: object,
    ) -> Order:
        """Order the next phase: from where the last one ended, or `begin`, to so many."""
        number = len(self.orders) + 1
        order = Order.model_validate(
            {
                "number": number,
                "attempt": 1,
                "action": "run",
                "starts_at_us": round((time.time() + lead_s) * 1e6),
                "duration_s": duration_s,
                "phase": PhaseRef(index=number - 1, name=name, kind="sustained"),
                "connections": Line(
                    start=self._connections if begin is None else begin, end=connections
                ),
                "edits_per_s": Line(
                    start=edits_per_s,
                    end=edits_per_s if edits_per_s_at_end is None else edits_per_s_at_end,
                ),
                "slots": self.workers,
                "first_edit": self._next_edit,
                "document_edits": self._document_edits,
                "relay_samplers": self.workers,
                **given,
            }
        )
        self._connections = connections
        self._next_edit += len(planned_edits(order, self.plan))
        self._document_edits = edits_of_documents(order, self.plan)
        self.orders.append(order)
        self.store.put_message(self.layout.order(1, number), order)
        return order

    def order_stop(self, *, is_last_word: bool = False) -> None:
        """Order the end."""
        stop = Order(
            number=len(self.orders) + 1,
            attempt=1,
            action="stop",
            starts_at_us=0,
            reason="done",
            is_last_word=is_last_word,
        )
        self.store.put_message(self.layout.order(1, stop.number), stop)

    def done(self, order: Order, *, within_s: float = 90.0) -> None:
        """Wait until every worker has done an order; on a busy machine some time after its end."""
        end_s = order.starts_at_us / 1e6 + order.duration_s
        for worker in self.workers:
            self.until(
                worker,
                lambda status: any(one.order == order.number for one in status.done),
                within_s=end_s - time.time() + within_s,
            )

    def sleep_until(self, order: Order, at_s: float) -> None:
        """Wait for an instant of an order: the test's own agenda."""
        time.sleep(max(0.0, order.starts_at_us / 1e6 + at_s - time.time()))

    def stop(self, *, is_last_word: bool = False) -> None:
        """Order the end, and wait until every agent has come to it with exit code 0."""
        self.order_stop(is_last_word=is_last_word)
        for worker, agent in self.agents.items():
            assert agent.wait(timeout=120) == 0, self.log(worker)

    def rows(self, kind: str, order: Order | None = None, **where: str) -> list[Row]:
        """Return the rows of one kind that the bucket had at the end: of one phase or of all."""
        if order is not None:
            where["phase"] = label(order)
        return [
            row
            for row in self._rows[kind]
            if all(row[name] == value for name, value in where.items())
        ]

    def part_numbers(self) -> dict[tuple[str, str, str], list[int]]:
        """Return which part numbers the bucket had at the end, by phase, kind and worker."""
        found: dict[tuple[str, str, str], list[int]] = {}
        for part in self._parts:
            key = part.phase, part.kind, part.worker
            found.setdefault(key, []).extend(range(part.first, part.last + 1))
        return {key: sorted(numbers) for key, numbers in found.items()}

    def planned(self, order: Order) -> dict[int, PlannedEdit]:
        """Return an order's edits over the whole fleet, by number."""
        return {edit.edit: edit for edit in planned_edits(order, self.plan)}


def label(order: Order) -> str:
    """Return the label of an order's phase."""
    assert order.phase is not None
    return phase_label(order.phase.index, order.phase.name)


def family(agent: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """Return all processes below an agent: the driver of its browsers, and those."""
    return psutil.Process(agent.pid).children(recursive=True)


def is_renderer(process: psutil.Process) -> bool:
    """Say whether a process of a browser runs pages."""
    with suppress(psutil.Error):
        return "--type=renderer" in process.cmdline()
    return False


def kill_browsers(processes: Iterable[psutil.Process]) -> None:
    """Kill those of the processes that are browsers; what runs a browser's pages goes with it."""
    for process in processes:
        with suppress(psutil.Error):
            words = process.cmdline()
            is_part = any(word.startswith("--type=") for word in words)
            if "chrom" in "".join(words[:1]) and not is_part:
                process.kill()


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; a zombie does not."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def still_alive(those: list[psutil.Process]) -> list[psutil.Process]:
    """Return which of these processes have not ended within half a minute."""
    wait_until(lambda: not alive(those), within_s=30)
    return alive(those)


def still_connected(relay: RelayProcess) -> int:
    """Return how many connections a relay has left, half a minute later at the most."""
    wait_until(lambda: relay.metrics()["connections"] == 0, within_s=30)
    return int(relay.metrics()["connections"])


def kill(agent: "subprocess.Popen[bytes]") -> None:
    """End an agent that a test has not brought to its end, and everything below it."""
    below: list[psutil.Process] = []
    with suppress(psutil.Error):
        below = family(agent) if agent.poll() is None else []
    if agent.poll() is None:
        agent.kill()
        agent.wait()
    _, left = psutil.wait_procs(below, timeout=5)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
