"""What is checked before anything is started: target, relay, page bundle, browser."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import websockets
from websockets.asyncio.client import connect

from run_store.errors import BrowserError, CannotRunError, RelayError, UsageError
from scenarios.model import Scenario
from tasks.processes import PROJECT, own_environment

BUNDLE = PROJECT / "worker_agent" / "page" / "dist" / "page.js"
ANSWERS_WITHIN_S = 10.0
_LOOPBACK_NAMES = ("localhost", "ip6-localhost")


@dataclass(frozen=True)
class RelayFacts:
    """What a relay answered: how long its handshake took, and whether it publishes `/metrics`.

    `problem` says what was wrong with them. Those that fail or hang are still published: the
    run samples them, since their failing is a fact about the relay.
    """

    handshake_ms: float
    has_metrics: bool
    problem: str = ""


def relay_of(scenario: Scenario, given: str | None) -> str | None:
    """Return the relay to load; None if the scenario is to have one of its own started.

    What the caller gave comes before RELAY_URL. RELAY_LOAD_OWN_RELAY names one that runs on this
    machine already, for scenarios that would start one. Raises UsageError if there is none.
    """
    if relay_url := given or os.environ.get("RELAY_URL"):
        return relay_url
    if scenario.own_relay:
        return os.environ.get("RELAY_LOAD_OWN_RELAY") or None
    raise UsageError(
        f"The scenario {scenario.name} has no relay of its own.",
        hint="Say which relay to load: --relay-url ws://host:port/, relay_url=, or RELAY_URL.",
    )


def check_target(relay_url: str, scenario: Scenario, *, allowed: bool = False) -> None:
    """Raise UsageError unless this relay may be loaded: nothing is sent to it before.

    Loopback always may. Any other host must be among the scenario's `allowed_hosts` (as `host`
    or `host:port`), or the caller says that it is theirs to load.
    """
    host, port = _host_and_port(relay_url)
    if allowed or is_loopback(host):
        return
    if {host, f"{host}:{port}"} & {name.lower() for name in scenario.allowed_hosts}:
        return
    raise UsageError(
        f"The relay {host} is not on this machine, and nobody said that it may be loaded.",
        hint=(
            "A load test can take a relay away from its users. If it is yours to load, say so: "
            f'--i-may-load-this-host, or allowed_hosts = ["{host}"] in the scenario.'
        ),
    )


def is_loopback(host: str) -> bool:
    """Say whether a host, by name or address, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES


def metrics_url(relay_url: str) -> str:
    """Return where a relay publishes its metrics: `/metrics` beside its WebSocket."""
    scheme, _, rest = relay_url.partition("://")
    return f"{'https' if scheme == 'wss' else 'http'}://{rest.rstrip('/')}/metrics"


async def check_relay(relay_url: str) -> RelayFacts:
    """Open one WebSocket to the relay and close it; ask for its metrics once.

    Raises RelayError if it cannot be reached or what answers speaks no WebSocket. Missing
    metrics are no error.
    """
    handshake_ms = await _handshake(relay_url)
    has_metrics, problem = await _look_at_metrics(metrics_url(relay_url))
    return RelayFacts(handshake_ms, has_metrics=has_metrics, problem=problem)


def check_bundle() -> None:
    """Raise CannotRunError unless the page's script is built."""
    if not BUNDLE.is_file():
        raise CannotRunError(
            f"The script that runs in the browser is not built ({BUNDLE}).",
            hint="Run `make setup`.",
        )


def check_journey(journey: str, *, is_here: bool) -> None:
    """Raise UsageError if a scenario's journey cannot be run: no such module, no such function.

    What other machines are to run need not be importable here: its requirements are theirs, and
    only its files are looked for.
    """
    if journey:
        found = _asked("worker_agent.journey", "check" if is_here else "files", journey)
        if found.returncode != 0:
            raise UsageError(
                f"The journey {journey} cannot be run: {found.stderr.strip()}",
                hint="docs/journeys.md says what a journey's module holds.",
            )


def check_chromium() -> Path:
    """Return this machine's Chromium; raise BrowserError, which says what to install."""
    try:
        found = _asked("worker_agent.chromium", "find")
    except subprocess.TimeoutExpired:
        raise BrowserError("Looking for Chromium took more than two minutes.") from None
    if found.returncode != 0:
        raise BrowserError(found.stderr.strip() or "No Chromium was found on this machine.")
    return Path(found.stdout.strip())


def _asked(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Ask the agent's side, which this one does not import."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=own_environment(),
    )


async def _handshake(relay_url: str) -> float:
    began = time.perf_counter()
    try:
        # Neither a proxy nor the size of what the relay sends at once matters for this look.
        async with connect(relay_url, open_timeout=ANSWERS_WITHIN_S, close_timeout=2, proxy=None):
            return (time.perf_counter() - began) * 1000
    except TimeoutError:
        raise RelayError(
            f"The relay {relay_url} did not answer within {ANSWERS_WITHIN_S:g} s.",
            hint="Is it running, and is that its address?",
        ) from None
    except OSError as error:
        raise RelayError(
            f"The relay {relay_url} cannot be reached: {error.strerror or error}.",
            hint="Start it, or correct the address.",
        ) from error
    except websockets.InvalidStatus as error:
        raise RelayError(
            f"{relay_url} is no WebSocket: it answered the upgrade with HTTP "
            f"{error.response.status_code}.",
            hint="Give the address at which the relay takes its clients.",
        ) from error
    except (websockets.WebSocketException, EOFError) as error:
        raise RelayError(
            f"{relay_url} is no WebSocket: {error}.",
            hint="Give the address at which the relay takes its clients.",
        ) from error


async def _look_at_metrics(url: str) -> tuple[bool, str]:
    """Return whether a relay publishes its metrics, and what is wrong with them, if anything."""
    try:
        async with httpx.AsyncClient(timeout=ANSWERS_WITHIN_S, trust_env=False) as client:
            answer = await client.get(url)
        if answer.status_code != httpx.codes.OK:
            return answer.is_server_error, f"{url} answers HTTP {answer.status_code}"
        problem = _unlike_metrics(answer.json())
    except httpx.TimeoutException:
        return True, f"{url} does not answer within {ANSWERS_WITHIN_S:g} s"
    except httpx.HTTPError as error:
        return False, f"{url} does not answer: {error or type(error).__name__}"
    except ValueError:
        return False, f"{url} does not answer in JSON"
    return not problem, problem and f"{url}: {problem}"


def _unlike_metrics(told: Any) -> str:
    """Return what is missing in the answer; only what every relay of this kind tells is asked."""
    if not isinstance(told, dict):
        return "its answer is no JSON object"
    memory = told.get("memory")
    if not isinstance(told.get("connections"), int):
        return "its answer has no number of connections"
    if not isinstance(memory, dict) or not isinstance(memory.get("rss"), int | float):
        return "its answer has no memory.rss"
    return ""


def _host_and_port(relay_url: str) -> tuple[str, int]:
    """Return a relay's host, in lower case, and its port; UsageError if it is no ws address."""
    problem = ""
    try:
        parts = urlsplit(relay_url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            problem = "it must begin with ws:// or wss:// and name a host"
        else:
            return parts.hostname.lower(), parts.port or (443 if parts.scheme == "wss" else 80)
    except ValueError as error:
        problem = str(error)
    raise UsageError(
        f"{relay_url!r} is not a relay's address: {problem}.", hint="Write ws://127.0.0.1:8081/"
    )
