from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from run_store.errors import (
    BrowserError,
    CannotRunError,
    RelayError,
    ScenarioError,
    StoreError,
    UsageError,
)
from scenarios.loading import load_scenario
from tasks import preflight
from tasks.local_services import RelayAddress, free_port, local_relay
from tasks.preparation import Wanted, prepared
from tests.store_server import StoreServer

OVERRIDES = {"connections": 2}


def refused(url: str, allowed_hosts: tuple[str, ...], *, allowed: bool = False) -> str:
    """Return why a relay may not be loaded; empty if it may."""
    scenario = load_scenario("local", {"allowed_hosts": allowed_hosts})
    try:
        preflight.check_target(url, scenario, allowed=allowed)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("url", "allowed_hosts", "allowed"),
    [
        ("ws://127.0.0.1:8081/", (), False),
        ("ws://localhost/", (), False),
        ("ws://[::1]:8081/", (), False),
        ("wss://Relay.example.org/", ("relay.example.org",), False),
        ("wss://relay.example.org:444/", ("relay.example.org:444",), False),
        ("wss://relay.example.org/", (), True),
    ],
)
def test_relays_that_may_be_loaded(url: str, allowed_hosts: tuple[str, ...], allowed: bool) -> None:
    """Loopback may always be loaded, others by the scenario's word or the caller's."""
    assert refused(url, allowed_hosts, allowed=allowed) == ""


@pytest.mark.parametrize(
    ("url", "allowed_hosts", "said"),
    [
        ("wss://relay.example.org/", (), "nobody said that it may be loaded"),
        ("ws://10.0.0.4:8081/", ("10.0.0.5",), "nobody said that it may be loaded"),
        ("ws://localhost.example.org/", (), "nobody said that it may be loaded"),
        ("ws://relay.example.org:81/", ("relay.example.org:80",), "nobody said"),
        ("http://127.0.0.1:8081/", (), "must begin with ws://"),
        ("127.0.0.1:8081", (), "must begin with ws://"),
        ("ws:///", (), "name a host"),
        ("ws://127.0.0.1:99999/", (), "is not a relay's address"),
        ("ws://[::1/", (), "is not a relay's address"),
    ],
)
def test_relays_that_may_not(url: str, allowed_hosts: tuple[str, ...], said: str) -> None:
    """Any other host is refused before anything is sent to it, and so is no address at all."""
    assert said in refused(url, allowed_hosts)


async def test_a_relay_answers(quiet_relay: RelayAddress) -> None:
    """A relay with metrics is told as such."""
    facts = await preflight.check_relay(quiet_relay.url)
    assert (facts.has_metrics, facts.problem) == (True, "")
    assert 0 < facts.handshake_ms < 10_000


@pytest.mark.parametrize(
    ("flag", "within_s", "has_metrics", "problem"),
    [
        ("--metrics-off", 60.0, False, "answers HTTP 404"),
        ("--metrics-fail", 60.0, True, "answers HTTP 500"),
        # Which bounds the handshake as well, and that shall be heard.
        ("--metrics-delay-ms=60000", 5.0, True, "does not answer within"),
    ],
)
async def test_metrics_may_be_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    flag: str,
    within_s: float,
    has_metrics: bool,
    problem: str,
) -> None:
    """A relay without metrics is loaded all the same; metrics that fail are still sampled."""
    monkeypatch.setattr(preflight, "ANSWERS_WITHIN_S", within_s)
    flags = flag.split("=")
    async with local_relay(log=tmp_path / "relay.log", flags=flags) as relay:
        facts = await preflight.check_relay(relay.url)
    assert facts.has_metrics is has_metrics
    assert problem in facts.problem


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"connections": 3, "memory": {"rss": 1}}, ""),
        ([], "no JSON object"),
        ({"memory": {"rss": 1}}, "no number of connections"),
        ({"connections": 3, "memory": 5}, "no memory.rss"),
    ],
)
def test_what_counts_as_metrics(told: Any, problem: str) -> None:
    """An answer that lacks what every relay of this kind tells is said to lack it."""
    found = preflight._unlike_metrics(told)  # noqa: SLF001 - a table is clearer than a server each
    assert problem in found if problem else not found


@pytest.fixture(params=["HTTP/1.0", "HTTP/1.1"])
def web_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the address of a web server that knows nothing of WebSockets."""

    class Pages(http.server.SimpleHTTPRequestHandler):
        protocol_version = request.param

        def log_message(self, *_: object) -> None:
            """Write nothing to our stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_a_web_server_is_no_relay(web_server: str) -> None:
    """What answers an upgrade with a page is told to be no WebSocket."""
    with pytest.raises(RelayError, match=r"is no WebSocket: .*(HTTP 200|valid HTTP response)"):
        await preflight.check_relay(f"ws://{web_server}/")


async def test_a_closed_port_is_unreachable() -> None:
    """Where nobody listens the relay is unreachable."""
    with pytest.raises(RelayError, match=r"cannot be reached: .*refused|Connect call failed"):
        await preflight.check_relay(f"ws://127.0.0.1:{free_port()}/")


async def test_an_unknown_name_is_unreachable() -> None:
    """A host name that does not exist is told, and not as a traceback."""
    with pytest.raises(RelayError, match="cannot be reached"):
        await preflight.check_relay("ws://relay.invalid/")


async def test_a_mute_port_is_no_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that listens and never answers does not hold up the run."""
    monkeypatch.setattr(preflight, "ANSWERS_WITHIN_S", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(RelayError, match="did not answer within"):
            await preflight.check_relay(f"ws://127.0.0.1:{port}/")


def test_a_bundle_that_is_not_built_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing page script is an error that says how to build it."""
    monkeypatch.setattr(preflight, "BUNDLE", tmp_path / "page.js")
    with pytest.raises(CannotRunError, match="make setup"):
        preflight.check_bundle()


def test_a_missing_chromium_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser that is none is an error; the words are those of the worker's own search."""
    monkeypatch.setenv("RELAY_LOAD_CHROMIUM", "/nowhere/chromium")
    with pytest.raises(BrowserError, match="/nowhere/chromium"):
        preflight.check_chromium()


async def opened(wanted: Wanted) -> None:
    async with prepared(wanted):
        raise AssertionError("this run should not have been opened")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"scenario": "loca"}, ScenarioError, "no scenario called 'loca'"),
        ({"scenario": "baseline"}, UsageError, "RELAY_URL"),
        ({"overrides": {"connections": -1}}, ScenarioError, "connections"),
        ({"overrides": {"phases.nap.duration": "1s"}}, ScenarioError, "no phase called 'nap'"),
        ({"fleet": "clouds"}, UsageError, "'clouds'"),
        ({"relay_url": "wss://relay.example.org/"}, UsageError, "nobody said"),
        ({"relay_url": "ws://127.0.0.1:9/"}, RelayError, "cannot be reached"),
        ({"store": "somewhere"}, UsageError, "not a store"),
    ],
)
async def test_what_cannot_be_meant_leaves_nothing_behind(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Bad input ends before anything is started, and no folder is made for it."""
    results = tmp_path / "results"
    with pytest.raises(error, match=said):
        await opened(Wanted(**{"scenario": "local", "results": results, **given}))
    assert not results.exists()


async def test_a_bucket_that_is_not_there_is_told(
    tmp_path: Path, store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing bucket and refused credentials are errors of the store, before the relay starts."""
    results = tmp_path / "results"
    keys = store_server.address.secrets()
    assert keys is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store_server.address.endpoint_url or "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    with pytest.raises(StoreError, match="no bucket nowhere-at-all"):
        await opened(Wanted(scenario="local", store="s3://nowhere-at-all", results=results))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="refused our credentials"):
        await opened(Wanted(scenario="local", store="s3://relay-load", results=results))
    assert not results.exists()


@pytest.mark.parametrize(
    ("journey", "is_here", "said"),
    [
        ("nobodys_module:edit", True, "nobodys_module"),
        ("nobodys_module:edit", False, "nobodys_module"),
        ("worker_agent.examples.counter", True, "module:function"),
        ("worker_agent.examples.counter", False, "module:function"),
        ("worker_agent.examples.counter:nothing", True, "nothing"),
    ],
)
def test_a_journey_that_cannot_be_run(journey: str, is_here: bool, said: str) -> None:
    """A module or function that is not there is named before anything is started."""
    with pytest.raises(UsageError, match=said):
        preflight.check_journey(journey, is_here=is_here)


def test_a_journey_that_can_be_run() -> None:
    """The example of the project is one, here and elsewhere, and so is none at all."""
    complaints = []
    for journey in ("worker_agent.examples.counter:edit", ""):
        for is_here in (True, False):
            try:
                preflight.check_journey(journey, is_here=is_here)
            except UsageError as error:
                complaints.append(error)
    assert complaints == []


async def test_a_run_with_a_bad_journey_is_not_begun(tmp_path: Path) -> None:
    """It ends at once, with the words of the check, and leaves nothing."""
    results = tmp_path / "results"
    overrides = {**OVERRIDES, "journey": "nobodys_module:edit", "isolation": "context"}
    with pytest.raises(UsageError, match="nobodys_module"):
        await opened(Wanted(scenario="local", results=results, overrides=overrides))
    assert not results.exists()
