"""`relay-load cleanup`: what is ours in an AWS account is listed, then removed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli_options import RESULTS, Json, Results, StoreUrl
from flows.cli_print import new_table, print_json, print_table
from run_store.errors import FleetError, UsageError

if TYPE_CHECKING:
    from flows.sweep import Leftover


def cleanup(
    *,
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="Of this run only; an end of the id will do.")
    ] = None,
    older_than: Annotated[
        str, typer.Option("--older-than", help="Only what should have been gone for so long.")
    ] = "0s",
    within: Annotated[str, typer.Option(help="How long to look again until all is gone.")] = "5m",
    region: Annotated[str, typer.Option(help="One region, or all.")] = "all",
    force: Annotated[bool, typer.Option("--force", help="Also of runs that are going on.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    block: Annotated[
        str,
        typer.Option(
            "--aws-credentials-block", help="AwsCredentials block of Prefect's; else the usual way."
        ),
    ] = "",
    store: StoreUrl = None,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Remove machines, templates, keys and groups of ours from the AWS account."""
    from flows.sweep import look, regions_of, remove_leftovers, running_by_lease
    from tasks.fleets.ec2_prices import has_account
    from tasks.stores import opened_store

    console = Console(stderr=True)
    older_than_s, within_s = _seconds("--older-than", older_than), _seconds("--within", within)
    if not has_account(block):
        raise FleetError(
            "No AWS credentials are configured, so there is nothing to look at.",
            hint="Set AWS_PROFILE or AWS_ACCESS_KEY_ID.",
        )
    with opened_store(store, results) as runs:
        found = look(
            regions_of(region, block=block),
            run_id=run_id,
            older_than_s=older_than_s,
            is_running=running_by_lease(runs) if runs else lambda _: None,
            force=force,
            block=block,
        )
    doomed = [one for one in found if one.goes]
    if not dry_run and doomed and not yes:
        if not as_json:
            _print(found, {})
        if not sys.stdin.isatty():
            raise UsageError("Removing asks first, and nobody is there.", hint="Say --yes.")
        if not typer.confirm(f"Remove these {len(doomed)}?"):
            return
    left = [] if dry_run else remove_leftovers(doomed, within_s=within_s, block=block)
    done = {one: _outcome(one, left, dry_run=dry_run) for one in doomed}
    if as_json:
        print_json([_row(one, done) for one in found])
    elif found:
        _print(found, done)
    else:
        console.print("Nothing of ours was found.")
    if left:
        raise FleetError(
            f"{len(left)} of {len(doomed)} remain.",
            hint="Run it again in some minutes, or look at them in the EC2 console.",
        )


def _seconds(option: str, text: str) -> float:
    from scenarios.durations import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}.") from None


def _outcome(one: Leftover, left: Sequence[Leftover], *, dry_run: bool) -> str:
    return "would be removed" if dry_run else "remains" if one in left else "removed"


def _row(one: Leftover, done: dict[Leftover, str]) -> dict[str, Any]:
    return {
        "region": one.region,
        "kind": one.resource.kind,
        "id": one.resource.id,
        "run_id": one.resource.run_id,
        "outcome": done.get(one, "to be removed" if one.goes else "kept"),
        "reason": one.reason.removeprefix("kept: "),
    }


def _print(found: Sequence[Leftover], done: dict[Leftover, str]) -> None:
    table = new_table("region", "kind", "id", "run", "outcome", "reason")
    for one in found:
        table.add_row(*(str(cell) for cell in _row(one, done).values()))
    print_table(table)
