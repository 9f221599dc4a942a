"""The command line: `relay-load COMMAND`. Errors come as one message, exit codes as documented.

0    passed, or the command did what it was asked to
1    could not run
2    bad usage or scenario
3    the relay missed its objectives, or a compared run is slower than its baseline
4    the run is invalid: its figures cannot be believed
130  interrupted
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from flows import (
    cli_capacity,
    cli_cleanup,
    cli_compare,
    cli_doctor,
    cli_estimate,
    cli_install,
    cli_trend,
    cli_watch,
)
from flows.cli_options import (
    RESULTS,
    FleetKind,
    HostNames,
    Json,
    KnownHosts,
    Overrides,
    RelayUrl,
    Results,
    RunId,
    Scenario,
    SshKey,
    StoreUrl,
)
from flows.cli_print import complain, new_table, print_json, print_table
from flows.early_interrupts import EARLY, remembered_interrupts
from run_store.errors import CannotRunError, RelayLoadError, UsageError

app = typer.Typer(
    name="relay-load",
    help="Load a Tonk relay with real headless browsers, and report what it held.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and Prefect's own log.")
    ] = False,
) -> None:
    if debug:
        os.environ["RELAY_LOAD_DEBUG"] = "1"


@app.command()
def run(
    scenario: Scenario,
    *,
    relay_url: RelayUrl = None,
    fleet: FleetKind = None,
    store: StoreUrl = None,
    overrides: Overrides = None,
    hosts: HostNames = None,
    ssh_key: SshKey = None,
    known_hosts: KnownHosts = None,
    wheelhouse: Annotated[
        str | None, typer.Option(metavar="DIR", help="Wheels for hosts without internet.")
    ] = None,
    ssh_cidr: Annotated[
        str | None,
        typer.Option(metavar="NETWORK", help="Who may reach rented machines; else this address."),
    ] = None,
    relay_security_group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="The relay's own, which lets rented machines in."),
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Show what the run will cost, and ask first.")
    ] = False,
    results: Results = RESULTS,
    i_may_load_this_host: Annotated[
        bool,
        typer.Option("--i-may-load-this-host", help="The relay is not on loopback, and is mine."),
    ] = False,
) -> None:
    """Run a load test, and end with its verdict."""
    with remembered_interrupts():
        from flows.cli_run import Asked
        from flows.cli_run import run as run_flow
        from scenarios.loading import overrides_from
        from tasks.hosts import with_hosts

    kind, given = with_hosts(
        overrides_from(overrides or []),
        fleet=fleet,
        hosts=hosts or (),
        ssh_key=ssh_key,
        known_hosts=known_hosts,
        wheelhouse=wheelhouse,
    )
    network = {"ssh_cidr": ssh_cidr, "relay_security_group": relay_security_group}
    given |= {f"fleet.{name}": value for name, value in network.items() if value}
    asked = Asked(
        scenario=scenario,
        relay_url=relay_url,
        fleet=kind,
        store=store,
        overrides=given,
        results=results,
        confirm=confirm,
        i_may_load_this_host=i_may_load_this_host,
        debug=_debugging(),
    )
    run_flow(asked, out=Console(), progress=Console(stderr=True))


@app.command()
def scenarios(*, store: StoreUrl = None, results: Results = RESULTS, as_json: Json = False) -> None:
    """List the scenarios that come with the project."""
    from scenarios.durations import format_duration
    from scenarios.loading import load_scenario, scenario_names
    from tasks import cost, prices
    from tasks.calibration import advice_from

    rows = []
    with advice_from(store, results) as advise:
        for name in scenario_names():
            scenario = load_scenario(name)
            estimate = cost.estimate(scenario)
            needed = advise(scenario, scenario.fleet.kind).needed
            rows.append(
                {
                    "scenario": name,
                    "duration_s": scenario.duration_s,
                    "connections": scenario.peak_connections,
                    "workers": scenario.fleet.workers,
                    "workers_by_calibration": needed.needed if needed else None,
                    "fleet": scenario.fleet.kind,
                    "estimated_usd": round(estimate.usd, 2) if estimate else None,
                    "description": scenario.description,
                }
            )
    if as_json:
        print_json({"scenarios": rows, "prices": prices.SOURCE, "spot_share": prices.SPOT_SHARE})
        return
    table = new_table("scenario", "duration", "connections", "workers", "estimated cost", "")
    for row in rows:
        usd, needed_workers = row["estimated_usd"], row["workers_by_calibration"]
        by_calibration = f" (calibrated: {needed_workers})" if needed_workers else ""
        table.add_row(
            str(row["scenario"]),
            format_duration(float(str(row["duration_s"]))),
            f"{row['connections']:,}",
            f"{row['workers']} {row['fleet']}{by_calibration}",
            "-" if usd is None else f"${usd:.2f}",
            str(row["description"]),
        )
    print_table(table)
    Console().print(
        f"Costs: {prices.TABLE.source}; with 10 min for set-up and teardown. `relay-load estimate`"
        " asks AWS for today's. A stress run goes on above its first number of connections.",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def runs(*, store: StoreUrl = None, results: Results = RESULTS, as_json: Json = False) -> None:
    """List the runs in the store, the newest first."""
    from flows.cli_runs import stored_runs
    from tasks.owed import owed_reports
    from tasks.stores import opened_store

    with opened_store(store, results) as opened:
        rows = [stored.row() for stored in stored_runs(opened)] if opened else []
        owed = [] if as_json or not opened else [one.run_id for one in owed_reports(opened)]
    if as_json:
        print_json(rows)
        return
    if not rows:
        Console(stderr=True).print(f"There are no runs in {store or results}.", highlight=False)
        return
    table = new_table(
        "run", "started (UTC)", "scenario", "state", "verdict", "validity", "capacity"
    )
    for row in rows:
        started = (row["started_at"] or "-").replace("T", " ").removesuffix("+00:00")
        rest = (row[key] for key in ("scenario", "state", "verdict", "validity", "capacity"))
        table.add_row(
            row["run_id"], started, *("-" if cell is None else str(cell) for cell in rest)
        )
    print_table(table)
    if owed:
        Console(stderr=True).print(
            f"{', '.join(owed)} ended without a report; make it: relay-load report {owed[0]}",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def report(run_id: RunId, *, store: StoreUrl = None, results: Results = RESULTS) -> None:
    """Build a run's report anew from the store, and copy it to the results folder."""
    from flows.cli_runs import find_run
    from flows.cli_verdict import print_verdict
    from reports.build import build_report
    from tasks.owed import noted, settle_if_dead
    from tasks.stores import opened_store

    with opened_store(store, results) as opened:
        found = find_run(opened, run_id, results=results)
        if opened is None:
            return
        settle_if_dead(opened, found)
        summary = build_report(opened, found, into=results / found)
        noted(opened, found, summary)
    if summary.running:
        Console(stderr=True).print(
            f"{found} is still going on: this is what it has shipped so far.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    print_verdict(
        Console(),
        summary.model_dump(mode="json"),
        report=(results / found / "report.html").resolve(),
    )


@app.command()
def query(
    run_id: RunId,
    *,
    sql: Annotated[str | None, typer.Option("--sql", help="What to run; else a prompt.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", dir_okay=False, exists=True, help="A file of SQL.")
    ] = None,
    output: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="How rows are printed.")
    ] = "table",
    store: StoreUrl = None,
    results: Results = RESULTS,
) -> None:
    """Ask a run's samples in SQL: at a prompt, or what --sql, --file or stdin says."""
    from flows import cli_query
    from flows.cli_runs import find_run
    from reports.questions import open_questions
    from tasks.stores import opened_store

    text = cli_query.sql_of(sql, file)
    console = Console(stderr=True)
    with opened_store(store, results) as opened:
        found = find_run(opened, run_id, results=results)
        if opened is None:
            return
        with open_questions(opened, found) as questions:
            cli_query.greet(console, questions, found, at_prompt=text is None)
            shell = cli_query.Shell(questions, output, sys.stdout)
            if text is None:
                cli_query.prompt(shell, run_id=found, history=cli_query.history_file())
            else:
                shell.run(text)


@app.command()
def stop(
    run_id: RunId,
    *,
    store: StoreUrl = None,
    results: Results = RESULTS,
    timeout: Annotated[str, typer.Option(help="How long to wait for its end.")] = "5m",
) -> None:
    """End a run in order, from anywhere, and wait until it has ended."""
    from flows.cli_runs import find_run, stop_run
    from scenarios.durations import parse_duration_s
    from tasks.stores import opened_store

    try:
        within_s = parse_duration_s(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}.") from None
    console = Console(stderr=True)
    with opened_store(store, results) as opened:
        found = find_run(opened, run_id, results=results)
        if opened is not None:
            state = stop_run(opened, found, within_s=within_s, say=console.print)
            console.print(f"{found} has ended: {state}", highlight=False)


@app.command()
def prune(
    *,
    keep: Annotated[int, typer.Option(min=0, help="How many ended runs stay.")],
    store: StoreUrl = None,
    results: Results = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete the oldest ended runs from the store, and their copies in the results folder."""
    from flows.cli_runs import delete_run, ended_beyond, stored_runs
    from tasks.stores import opened_store

    console = Console(stderr=True)
    with opened_store(store, results) as opened:
        doomed = ended_beyond(stored_runs(opened), keep) if opened else []
        for old in doomed:
            console.print(f"{'would delete' if dry_run else 'to delete'} {old.run_id}, {old.state}")
        if not doomed or opened is None:
            console.print("There is nothing to delete.")
        elif not dry_run:
            if not yes and not sys.stdin.isatty():
                raise UsageError(
                    "Deleting runs asks first, and nobody is there.", hint="Say --yes."
                )
            if yes or typer.confirm(f"Delete {len(doomed)} runs for good?"):
                objects = sum(delete_run(opened, old.run_id, results=results) for old in doomed)
                console.print(f"Deleted {len(doomed)} runs, {objects} objects.")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def relay(context: typer.Context) -> None:
    """Run the local relay by itself; its options are those of `relay-load relay --help`."""
    from tasks.local_services import node
    from tasks.processes import PROJECT

    script = PROJECT / "local_relay" / "relay.mjs"
    if not (PROJECT / "node_modules").is_dir():
        raise CannotRunError("The relay's packages are not installed.", hint="Run `make setup`.")
    program = node()
    os.execv(program, [program, str(script), *context.args])  # noqa: S606 - no shell is the point


@app.command()
def up(
    *,
    results: Results = RESULTS,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of Prefect's UI; else 4200 if free.")
    ] = None,
    relay_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the relay; else 8081 if free.")
    ] = None,
) -> None:
    """Run Prefect with its UI, a worker, a local store and a local relay, until Ctrl-C."""
    from flows.cli_up import up as run_up

    run_up(results, port=port, relay_port=relay_port, console=Console(stderr=True))


app.command()(cli_doctor.doctor)
app.command()(cli_estimate.estimate)
app.command()(cli_install.install)
app.command()(cli_cleanup.cleanup)
app.command()(cli_watch.watch)
app.command()(cli_compare.compare)
app.command()(cli_trend.trend)
app.command()(cli_capacity.capacity)
app.command()(cli_capacity.calibrate)


def main() -> None:
    """Run the command line; end the process with its exit code."""
    try:
        EARLY.let_go()
        app()
    except RelayLoadError as error:
        if _debugging():
            raise
        complain(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain("Interrupted.", "")
        sys.exit(130)
    except Exception as error:
        if _debugging():
            raise
        complain(
            f"Unexpected {type(error).__name__}: {error}",
            "This is a fault of relay-load. `relay-load --debug` shows where.",
        )
        sys.exit(1)


def _debugging() -> bool:
    return os.environ.get("RELAY_LOAD_DEBUG", "") not in ("", "0")


if __name__ == "__main__":
    main()
