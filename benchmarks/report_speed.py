"""How long a whole report over a large run takes, and how heavy its page is.

    python -m benchmarks.report_speed [--edits 1000000] [--deliveries 10000000]

Ten workers' samples, one part for each kind and phase as they are after compaction, in a real S3
server on loopback. `seconds` and `peak_mb` are of a process of its own that builds the report;
`scan_seconds` is one bare DuckDB scan of the same deliveries with exact quantiles, and `ratio`
how many such scans the report costs. `first_paint_s` is Chromium's, of the page on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.async_api import async_playwright

from benchmarks.synthetic_store import write_run
from benchmarks.synthetic_world import World, draw_world
from reports.build import build_report
from reports.loading import connect
from run_store.layout import RunLayout
from run_store.store import Store, StoreAddress
from tests.store_server import StoreServer
from worker_agent.chromium import require_chromium

WORKERS = 10
SUSTAINED_S = 3600
_SEED = 11
_PAINTED_WITHIN_S = 10.0
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def large_world(edits: int, deliveries: int) -> World:
    """Return a world of an hour with so many edits and, nearly, so many deliveries."""
    world = draw_world(
        _SEED,
        noise="gaussian",
        workers=WORKERS,
        sustained_s=SUSTAINED_S,
        edits_per_s=edits / (SUSTAINED_S + 30),
    )
    world.per_document = max(2, round(deliveries / edits) + 1)
    connections = 90 * world.per_document
    world.phases = tuple(
        dataclasses.replace(phase, connections=connections if phase.name != "warmup" else 100)
        for phase in world.phases
    )
    world.unacknowledged_share = np.zeros_like(world.unacknowledged_share)
    return world


def scan_s(address: StoreAddress, run_id: str) -> float:
    """Return the seconds of one bare scan of the deliveries with exact quantiles."""
    with tempfile.TemporaryDirectory() as folder:
        connection = connect(address, Path(folder), "1500MB")
        root = f"s3://{address.bucket}/{address.prefix}{RunLayout(run_id).samples('deliveries')}"
        began = time.monotonic()
        connection.execute(
            "SELECT quantile_cont((seen_us - intended_us) / 1000.0, [0.5, 0.95, 0.99])"
            " FROM read_parquet($files)",
            {"files": f"{root}**/*.parquet"},
        ).fetchall()
        took = time.monotonic() - began
        connection.close()
    return took


async def first_paint_s(page_file: Path) -> float | None:
    """Return when Chromium first painted something of the page, from its own clock."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(require_chromium()), args=["--no-sandbox"]
        )
        page = await browser.new_page()
        await page.goto(page_file.as_uri(), wait_until="load")
        # The page forbids eval, so it is asked again from outside instead of waiting inside.
        deadline = time.monotonic() + _PAINTED_WITHIN_S
        while (  # noqa: ASYNC110 - it is another process that paints
            painted_ms := await page.evaluate(_PAINT)
        ) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await browser.close()
    return None if painted_ms is None else float(painted_ms) / 1000


def build(address_file: Path, run_id: str, folder: Path) -> None:
    """Build the report and print how long it took and what it needed; run in a child process."""
    store = Store(StoreAddress.from_file(address_file), timeout_s=60)
    began = time.monotonic()
    build_report(store, run_id, into=folder)
    seconds = time.monotonic() - began
    # Not getrusage: its peak is handed down over exec, and the parent held all the samples.
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    peak_mb = int(peak) / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}))


def measure(edits: int, deliveries: int) -> dict[str, float | None]:
    """Return all figures for a run of this size."""
    with (
        tempfile.TemporaryDirectory(prefix="report-speed-") as name,
        StoreServer(Path(name)) as server,
    ):
        folder, address = Path(name), server.address
        run_id = write_run(large_world(edits, deliveries), server.store(timeout_s=120))
        address_file = folder / "store.json"
        address.to_file(address_file)
        command = [sys.executable, "-m", "benchmarks.report_speed", "--build", str(address_file)]
        done = subprocess.run(
            [*command, run_id, str(folder / "report")],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        built = json.loads(done.stdout.strip().splitlines()[-1])
        scan = scan_s(address, run_id)
        page = folder / "report" / "report.html"
        painted = asyncio.run(first_paint_s(page))
        return {
            "seconds": round(built["seconds"], 2),
            "peak_mb": round(built["peak_mb"]),
            "scan_seconds": round(scan, 2),
            "ratio": round(built["seconds"] / scan, 1),
            "html_mb": round(page.stat().st_size / 2**20, 3),
            "first_paint_s": round(painted, 3) if painted is not None else None,
        }


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_speed")
    parser.add_argument("--edits", type=int, default=1_000_000)
    parser.add_argument("--deliveries", type=int, default=10_000_000)
    parser.add_argument("--build", nargs=3, metavar=("STORE", "RUN", "FOLDER"), help="internal")
    options = parser.parse_args()
    if options.build:
        address_file, run_id, folder = options.build
        build(Path(address_file), run_id, Path(folder))
        return
    print(json.dumps(measure(options.edits, options.deliveries)))


if __name__ == "__main__":
    main()
