"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RunId = Annotated[str, typer.Argument(help="The run's id, or an end of it that is unique.")]
RelayUrl = Annotated[
    str | None, typer.Option(envvar="RELAY_URL", help="The relay: ws://host:port/.")
]
FleetKind = Annotated[
    Literal["local", "ssh", "ec2"] | None, typer.Option(help="Where the workers come from.")
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="RELAY_LOAD_STORE",
        metavar="S3-URL",
        help="The bucket: s3://bucket/prefix. Without it, a local one in the results folder.",
    ),
]
Results = Annotated[
    Path,
    typer.Option(
        "--results", envvar="RELAY_LOAD_RESULTS", file_okay=False, help="The folder for reports."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a field: phases.sustained.duration=20s."
    ),
]
HostNames = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="USER@ADDRESS:PORT", help="A host for a worker; repeat it."),
]
SshKey = Annotated[
    str | None, typer.Option(metavar="FILE", help="The private key that hosts let in.")
]
KnownHosts = Annotated[
    str | None, typer.Option(metavar="FILE", help="The hosts' keys; else your known_hosts.")
]
Scenario = Annotated[str, typer.Argument(help="A scenario's name, or the path of its file.")]
RESULTS = Path("results")
