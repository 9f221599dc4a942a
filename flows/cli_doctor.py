"""`relay-load doctor`: is everything there that a run needs, and what to do about what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from flows.cli_options import (
    RESULTS,
    FleetKind,
    HostNames,
    Json,
    KnownHosts,
    Overrides,
    RelayUrl,
    Results,
    SshKey,
    StoreUrl,
)
from flows.cli_print import new_table, print_json, print_table
from run_store.errors import CannotRunError

if TYPE_CHECKING:
    from scenarios.model import Scenario
    from tasks.checks import Check


def doctor(
    scenario: Annotated[
        str, typer.Argument(help="The scenario that is to be run: its name or file.")
    ] = "local",
    *,
    relay_url: RelayUrl = None,
    fleet: FleetKind = None,
    overrides: Overrides = None,
    hosts: HostNames = None,
    ssh_key: SshKey = None,
    known_hosts: KnownHosts = None,
    store: StoreUrl = None,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Check all that a run needs: browser, relay, bucket, Prefect, and the AWS account."""
    from scenarios.loading import load_scenario, overrides_from
    from tasks.hosts import with_hosts

    asked, given = with_hosts(
        overrides_from(overrides or []),
        fleet=fleet,
        hosts=hosts or (),
        ssh_key=ssh_key,
        known_hosts=known_hosts,
    )
    loaded = load_scenario(scenario, given)
    kind = asked or loaded.fleet.kind
    checks = list(_checks(loaded, fleet=kind, relay_url=relay_url, store=store, results=results))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        table = new_table("check", "state", "")
        for check in checks:
            table.add_row(check.name, check.state, check.said)
            if check.remedy:
                table.add_row("", "", f"-> {check.remedy}")
        print_table(table)
    failed = [check.name for check in checks if check.state == "failed"]
    if failed:
        raise CannotRunError(
            f"{scenario} cannot be run yet: {', '.join(failed)}.",
            hint="" if not as_json else "Each failed check has its remedy.",
        )
    Console(stderr=True).print(f"Nothing that was checked hinders {scenario}.", highlight=False)


def _checks(
    scenario: Scenario, *, fleet: str, relay_url: str | None, store: str | None, results: Path
) -> Iterator[Check]:
    """Yield all checks; those that this run does not need are skipped, with the reason."""
    from tasks.checks import Check, checked

    if fleet == "local":
        yield checked("page", _page)
        yield checked("Chromium", _chromium)
    else:
        why = f"the {fleet} fleet's workers have their own"
        yield Check("Chromium", "skipped", why)
    if fleet == "ssh":
        yield from _hosts(scenario)
    else:
        yield Check("hosts", "skipped", f"the {fleet} fleet needs none")
    yield _relay(scenario, relay_url)
    yield _bucket(store, results, fleet)
    yield _prefect()
    if fleet == "ec2":
        from tasks.fleets.ec2_checks import account_checks

        yield checked("budget", lambda: _budget(scenario))
        yield from account_checks(scenario.fleet)
    else:
        yield Check("AWS account", "skipped", f"the {fleet} fleet rents nothing")


def _page() -> str:
    from tasks import preflight

    preflight.check_bundle()
    return "the script that runs in the browser is built"


def _chromium() -> str:
    from tasks import preflight

    return str(preflight.check_chromium())


def _hosts(scenario: Scenario) -> Iterator[Check]:
    """Yield whether enough hosts are named, and how it stands with each."""
    from tasks.checks import checked
    from tasks.fleets.ssh_checks import host_checks
    from tasks.hosts import check_hosts

    def named() -> str:
        check_hosts(scenario, "ssh")
        return f"{len(scenario.fleet.hosts)} are named"

    hosts = checked("hosts", named)
    yield hosts
    if hosts.state == "ok":
        yield from host_checks(scenario.fleet)


def _budget(scenario: Scenario) -> str:
    from tasks.budget import estimated, in_words
    from tasks.cost import check_budget

    cost = asyncio.run(estimated(scenario, "ec2"))
    check_budget(scenario, cost)
    return in_words(cost)


def _relay(scenario: Scenario, given: str | None) -> Check:
    from tasks import preflight
    from tasks.checks import Check, checked

    def look() -> str:
        relay_url = preflight.relay_of(scenario, given)
        if relay_url is None:
            return "the run starts one of its own"
        facts = asyncio.run(preflight.check_relay(relay_url))
        metrics = facts.problem or ("with metrics" if facts.has_metrics else "without metrics")
        return f"{relay_url} shakes hands in {facts.handshake_ms:.0f} ms, {metrics}"

    check = checked("relay", look)
    if check.state == "failed" and not given and "no relay of its own" in check.said:
        return Check("relay", "skipped", "none is named: --relay-url, or RELAY_URL")
    return check


def _bucket(store: str | None, results: Path, fleet: str) -> Check:
    from run_store.store import Store, StoreAddress
    from tasks.checks import Check, checked

    if not store and fleet != "local":
        # Hosts of one's own may be on this machine; rented ones never are.
        state: Literal["failed", "skipped"] = "failed" if fleet == "ec2" else "skipped"
        said = "other machines cannot reach a local one"
        return Check("bucket", state, said, "Name one: --store s3://bucket/prefix")
    if not store:
        return Check("bucket", "ok", f"a local one, in {results / 'store'}")
    if store.startswith("block:"):
        return Check("bucket", "skipped", "a block is read when the run starts")

    def look() -> str:
        Store(StoreAddress.from_url(store)).check()
        return store

    return checked("bucket", look)


def _prefect() -> Check:
    from flows.cli_prefect import check_api, connected_api_url
    from tasks.checks import Check, checked

    url = connected_api_url()
    if url is None:
        return Check("Prefect", "ok", "each run starts a server of its own")

    def look() -> str:
        check_api(url)
        return url

    return checked("Prefect", look)
