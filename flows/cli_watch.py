"""`relay-load watch`: the report of a run while it goes on, on a page of this machine."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console

from flows.cli_options import RESULTS, Results, RunId, StoreUrl

LAST_LOOK_S = 3.0
"""How long the last page waits, beyond one refresh, for a browser that shows the one before."""


def watch(
    run_id: RunId,
    *,
    store: StoreUrl = None,
    results: Results = RESULTS,
    port: Annotated[
        int, typer.Option(help="The port on 127.0.0.1; 0 means any that is free.", min=0, max=65535)
    ] = 0,
    every: Annotated[
        float, typer.Option(help="Seconds from one page to the next.", min=1, max=3600)
    ] = 5,
) -> None:
    """Show a run's report while the run goes on; it ends with the run."""
    from flows.cli_runs import find_run  # noqa: PLC0415 - --help answers at once
    from reports.live_page import PageServer, look_at  # noqa: PLC0415 - likewise
    from tasks.stores import opened_store  # noqa: PLC0415 - likewise

    console = Console(stderr=True)
    with opened_store(store, results) as opened:
        found = find_run(opened, run_id, results=results)
        if opened is None:
            return
        with PageServer(port=port, refresh_s=every) as server:
            console.print(f"{found}: {server.url} (Ctrl-C ends the watch, not the run)")
            while True:
                began = time.monotonic()
                look = look_at(opened, found)
                server.show(look)
                took_s = time.monotonic() - began
                if not look.summary.running:
                    break
                seen = "nothing yet" if look.seen_s is None else f"{look.seen_s:.0f} s of the run"
                console.print(f"still going: {seen} in the bucket", highlight=False)
                # Building a large page all the time would take a core from who makes the load.
                time.sleep(max(every - took_s, took_s, 0.0))
            server.last_was_fetched.wait(every + LAST_LOOK_S)
    verdict = look.summary.verdict
    console.print(f"{found} has ended: {verdict}, {look.summary.validity}", highlight=False)
    console.print(f"relay-load report {found} builds its report anew", highlight=False)
