"""What must be right with hosts before agents are deployed to them; nothing is made there."""

from __future__ import annotations

import asyncio

from run_store.errors import RelayLoadError
from scenarios.model import FleetSpec
from tasks.checks import Check
from tasks.fleets import deployment
from tasks.fleets.remote import Access, Host, connect

REMEDY = "Workers run on Debian 12, Ubuntu 24.04 and newer, with some room on their disk."


def host_checks(fleet: FleetSpec) -> list[Check]:
    """Return a check of each of a fleet's hosts: its key is known, it lets us in, it will do.

    All are asked at once. Raises FleetError for a key file that is not there.
    """
    access = Access.of_scenario(fleet)

    async def all_hosts() -> list[Check]:
        hosts = [Host.from_text(text) for text in fleet.hosts]
        return await asyncio.gather(*(_check(host, access) for host in hosts))

    return asyncio.run(all_hosts())


async def _check(host: Host, access: Access) -> Check:
    name = f"host {host}"
    try:
        async with await connect(host, access) as remote:
            return Check(name, "ok", await deployment.describe(remote))
    except RelayLoadError as error:
        return Check(name, "failed", error.message, error.hint or REMEDY)
