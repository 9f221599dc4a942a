"""`relay-load install`: register everything on the Prefect server that the user is connected to."""

from __future__ import annotations

import asyncio

from rich.console import Console

from run_store.errors import CannotRunError


def install() -> None:
    """Register work pool, queues, deployments and automation on the connected Prefect server."""
    from flows.cli_prefect import check_api, connected_api_url

    url = connected_api_url()
    if url is None:
        raise CannotRunError(
            "Prefect is not connected to a server.",
            hint="Set PREFECT_API_URL, or run `relay-load up`, which has a server of its own.",
        )
    check_api(url)
    # Prefect reads its settings when it is imported; they are known to be good now.
    from flows.registration import POOL, register

    for line in asyncio.run(register()):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    Console(stderr=True).print(
        f"Runs need a worker: prefect worker start --pool {POOL}", highlight=False
    )
