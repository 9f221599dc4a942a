"""How many connections fit: memory for each, how fast they open, and whether they stay.

    python -m benchmarks.density --connections 1000

Opens the connections against a local relay, holds them, and asks the relay for its own count.
Memory is the PSS of all browser processes above that of a browser with one empty page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import urllib.request
from typing import Any

from benchmarks.bench_load import bench, browser_pss_mb
from run_store.messages import Line
from scenarios.model import Isolation, Scenario
from tests.relay_process import start_relay


def scenario(connections: int, isolation: Isolation, per_page: int) -> Scenario:
    """Return a scenario that only opens connections, 100 on a document."""
    return Scenario.model_validate(
        {
            "name": "density",
            "connections": connections,
            "connections_per_document": 100,
            "connections_per_page": per_page,
            "isolation": isolation,
            "fleet": {"workers": 1},
            "phases": {"hold": {"kind": "sustained", "duration": "1h"}},
        }
    )


def relay_connections(http_url: str) -> int:
    """Return how many WebSockets the relay itself counts."""
    with urllib.request.urlopen(f"{http_url}/metrics", timeout=10) as answer:  # noqa: S310 - loopback
        return int(json.loads(answer.read())["connections"])


async def measure(
    connections: int, isolation: Isolation, per_page: int, *, hold_s: float
) -> dict[str, Any]:
    """Open and hold connections; return memory, times and counts."""
    with start_relay() as relay:
        async with bench(scenario(connections, isolation, per_page), relay.url, pages=False) as one:
            await one.browsers.house(1)
            empty_mb = await browser_pss_mb()
            began = time.monotonic()
            await one.browsers.house(connections)
            await one.begin(duration_s=3600, connections=Line(start=connections, end=connections))
            await one.all_synced(connections)
            open_s = time.monotonic() - began
            await asyncio.sleep(2)
            counted = await asyncio.to_thread(relay_connections, relay.http_url)
            held_until = time.monotonic() + hold_s
            lowest = counted
            while time.monotonic() < held_until:
                await asyncio.sleep(1)
                await one.state()
                lowest = min(lowest, await asyncio.to_thread(relay_connections, relay.http_url))
            full_mb = await browser_pss_mb()
            return {
                "mb_per_connection": round((full_mb - empty_mb) / connections, 3),
                "relay_connections": counted,
                "lowest_while_held": lowest,
                "open_s": round(open_s, 1),
                "dropped": one.recording.counts.drops,
                "failed": one.recording.counts.connect_failures,
                "browser_mb": round(full_mb),
                "empty_browser_mb": round(empty_mb),
            }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all three kinds of isolation."""
    shared = await measure(
        arguments.connections, "shared", arguments.per_page, hold_s=arguments.hold_s
    )
    page = await measure(arguments.isolated, "page", 1, hold_s=2)
    context = await measure(arguments.isolated, "context", 1, hold_s=2)
    return {
        **shared,
        "connections": arguments.connections,
        "held_s": arguments.hold_s,
        "page_mb": page["mb_per_connection"],
        "context_mb": context["mb_per_connection"],
        "context_to_shared": round(context["mb_per_connection"] / shared["mb_per_connection"], 1),
    }


def main() -> None:
    """Print one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--per-page", type=int, default=100)
    parser.add_argument("--isolated", type=int, default=20, help="connections for page and context")
    parser.add_argument("--hold-s", type=float, default=60)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
