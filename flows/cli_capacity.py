"""`relay-load capacity` and `calibrate`: what a relay holds, and what one worker makes."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from flows.cli_options import (
    RESULTS,
    FleetKind,
    Overrides,
    RelayUrl,
    Results,
    Scenario,
    StoreUrl,
)
from flows.early_interrupts import remembered_interrupts

Start = Annotated[
    float | None, typer.Option(min=0, help="The first load; else the scenario's own.")
]
Limit = Annotated[
    float | None, typer.Option(min=0, help="The highest load; else 32 times the first.")
]
Precision = Annotated[
    float, typer.Option(help="How closely to look: 0.05 is within 5 % to each side.")
]
Hold = Annotated[str, typer.Option(metavar="DURATION", help="How long a step is judged.")]
Settle = Annotated[
    str, typer.Option(metavar="DURATION", help="How long a step settles before it is judged.")
]
Allowed = Annotated[
    bool,
    typer.Option("--i-may-load-this-host", help="The relay is not on loopback, and is mine."),
]
Confirm = Annotated[
    bool, typer.Option("--confirm", help="Show what the search may cost, and ask first.")
]


def capacity(
    scenario: Scenario,
    *,
    relay_url: RelayUrl = None,
    over: Annotated[
        Literal["connections", "edits", "both"],
        typer.Option(help="What grows: connections, edits/s, or both in proportion."),
    ] = "connections",
    start: Start = None,
    limit: Limit = None,
    precision: Precision = 0.05,
    connections: Annotated[
        int | None, typer.Option(min=1, help="With --over edits: how many, all the time.")
    ] = None,
    edits_per_s: Annotated[
        float | None, typer.Option(min=0, help="At the first step, of the whole fleet.")
    ] = None,
    hold: Hold = "20s",
    settle: Settle = "5s",
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            "--objective", help="What a step must hold: delivery_ms.p95 < 500ms. Repeat it."
        ),
    ] = None,
    allowed_fall: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The fall that raises no alarm: 0.1 is 10 %."),
    ] = None,
    fleet: FleetKind = None,
    store: StoreUrl = None,
    overrides: Overrides = None,
    confirm: Confirm = False,
    results: Results = RESULTS,
    i_may_load_this_host: Allowed = False,
) -> None:
    """Search how much a relay holds on a scenario, and add the answer to the trend."""
    search = {
        "over": over,
        "start": start,
        "limit": limit,
        "precision": precision,
        "connections": connections,
        "edits_per_s": edits_per_s,
        "hold": hold,
        "settle": settle,
        "objectives": objectives,
        "allowed_fall": allowed_fall,
    }
    _run(
        search,
        scenario=scenario,
        relay_url=relay_url,
        fleet=fleet,
        store=store,
        overrides=overrides,
        confirm=confirm,
        results=results,
        i_may_load_this_host=i_may_load_this_host,
    )


def calibrate(
    scenario: Scenario,
    *,
    relay_url: RelayUrl = None,
    start: Start = None,
    limit: Limit = None,
    precision: Precision = 0.1,
    hold: Hold = "20s",
    settle: Settle = "5s",
    fleet: FleetKind = None,
    store: StoreUrl = None,
    overrides: Overrides = None,
    confirm: Confirm = False,
    results: Results = RESULTS,
    i_may_load_this_host: Allowed = False,
) -> None:
    """Measure what one worker holds on a scenario before it is late, and keep that."""
    search = {
        "start": start,
        "limit": limit,
        "precision": precision,
        "hold": hold,
        "settle": settle,
    }
    _run(
        search,
        calibrates=True,
        scenario=scenario,
        relay_url=relay_url,
        fleet=fleet,
        store=store,
        overrides=overrides,
        confirm=confirm,
        results=results,
        i_may_load_this_host=i_may_load_this_host,
    )


def _run(
    search: dict[str, Any], *, overrides: list[str] | None, calibrates: bool = False, **asked: Any
) -> None:
    with remembered_interrupts():
        from flows.cli_run import Asked, run
        from scenarios.loading import overrides_from

    run(
        Asked(
            **asked,
            overrides=overrides_from(overrides or []),
            debug=bool(os.environ.get("RELAY_LOAD_DEBUG")),
            search=search,
            calibrates=calibrates,
        ),
        out=Console(),
        progress=Console(stderr=True),
    )
