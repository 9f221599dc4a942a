"""How long it takes to deploy agents to hosts: cold and prepared, to one, two and four at once.

    python -m benchmarks.deploy

The hosts are SSH servers on loopback addresses, each with a folder of its own, on this machine's
cores: what is common to all (building the wheel) is done once, the rest happens for all hosts at
once. Cold is an empty host, which gets an environment, our code and a Chromium that stands ready;
prepared is the same host again, for the next run. Packages come from pip's index. Offline is one
empty host that reaches no index, and is given its packages from a wheelhouse.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from run_store.messages import Lease
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from tasks.deploy import start_agents
from tasks.fleets.ssh import SshFleet
from tasks.fleets.wheelhouse import REQUIREMENTS
from tasks.local_services import local_store
from tasks.run_context import RunContext
from tests.fleets.ssh_hosts import NO_INDEX, SshHost, make_key, ssh_host
from tests.relay_process import start_relay

FIRST_ADDRESS = 101


@contextlib.contextmanager
def hosts_at(
    folder: Path, count: int, user_key: str, *, environment: str = ""
) -> Iterator[list[SshHost]]:
    """Run SSH servers on as many loopback addresses."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                ssh_host(
                    folder / f"h{n}",
                    f"127.0.1.{FIRST_ADDRESS + n}",
                    user_key=user_key,
                    environment=environment,
                )
            )
            for n in range(count)
        ]


def make_wheelhouse(folder: Path) -> Path:
    """Gather the wheels of an agent, as the documentation says."""
    # Our own environment has no pip: set-up fills it with uv.
    subprocess.run([sys.executable, "-m", "venv", folder / "own"], check=True)
    words = ["-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--require-hashes"]
    python = folder / "own" / "bin" / "python"
    subprocess.run([python, *words, "-r", REQUIREMENTS, "-d", folder], check=True)
    return folder


def context_of(
    folder: Path,
    hosts: Sequence[SshHost],
    *,
    run: str,
    key: Path,
    relay: str,
    store: StoreAddress,
    wheelhouse: str = "",
) -> RunContext:
    """Return an attempt of a run that leaves what it installs on its hosts."""
    scenario = load_scenario(
        "local",
        {
            "connections": len(hosts),
            "fleet": {
                "kind": "ssh",
                "workers": len(hosts),
                "hosts": [host.text for host in hosts],
                "host_keys": [host.pinned for host in hosts],
                "key_file": str(key),
                "keep_installed": True,
                "wheelhouse": wheelhouse,
            },
        },
    )
    return RunContext(
        run_id=run,
        attempt=1,
        scenario=scenario,
        relay_url=relay,
        has_metrics=True,
        address=store,
        folder=folder / run,
        fleet="ssh",
    )


async def deploy_s(context: RunContext) -> float:
    """Return how long it takes until all agents of a run stand ready; end them again."""
    store = Store(context.address)
    store.put_message(context.layout.lease(1), Lease(counter=1, every_s=2, expires_after_s=600))
    try:
        workers = await SshFleet().acquire(context)
        began = time.monotonic()
        conductor = await start_agents(context, workers)
        took_s = time.monotonic() - began
        if len(conductor.roll.alive) != len(workers):
            raise RuntimeError(f"not all agents came up: {conductor.roll.lost}")
        return took_s
    finally:
        left = await SshFleet().release(context)
        if left:
            raise RuntimeError(f"not given back: {left}")


async def measure(counts: Sequence[int]) -> dict[str, float]:
    """Return seconds by case; each count of hosts begins with empty ones."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, start_relay() as relay:
        folder = Path(name)
        key = folder / "user_key"
        public = make_key(key)
        with local_store(folder / "results") as store:
            for count in counts:
                with hosts_at(folder / f"of{count}", count, public) as hosts:
                    for state in ("cold", "prepared"):
                        context = context_of(
                            folder,
                            hosts,
                            run=f"{state}-{count}",
                            key=key,
                            relay=relay.url,
                            store=store,
                        )
                        took_s = await deploy_s(context)
                        figures[f"{state}_{count}_s"] = round(took_s, 1)
                        print(f"{state}, {count} hosts: {took_s:.1f} s", flush=True)
            wheels = make_wheelhouse(folder / "wheels")
            with hosts_at(folder / "offline", 1, public, environment=NO_INDEX) as hosts:
                context = context_of(
                    folder,
                    hosts,
                    run="offline",
                    key=key,
                    relay=relay.url,
                    store=store,
                    wheelhouse=str(wheels),
                )
                took_s = await deploy_s(context)
                figures["offline_1_s"] = round(took_s, 1)
                print(f"from a wheelhouse, 1 host: {took_s:.1f} s", flush=True)
    return figures


def main() -> None:
    """Print one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 4])
    print(json.dumps(asyncio.run(measure(parser.parse_args().hosts))))


if __name__ == "__main__":
    main()
