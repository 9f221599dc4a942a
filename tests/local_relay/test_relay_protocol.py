"""The local relay as the Tonk relay is: its protocol, its metrics and its manifest."""

import io
import json
import os
import signal
import socket
import subprocess
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path

from websockets.sync.client import connect

from tests.local_relay.clients import CLIENT, is_closed
from tests.relay_process import NODE, ROOT, RelayProcess, run_node, start_relay
from tests.waiting import wait_for


def test_says_that_it_is_ready_and_ends_on_sigterm() -> None:
    """One line on stdout names the addresses and the pid, and SIGTERM ends the relay with 0."""
    with start_relay() as relay:
        assert relay.pid == relay.process.pid
        assert relay.get("/")[0] == 200
        assert relay.get("/nothing")[0] == 404
        with connect(relay.url):
            relay.process.send_signal(signal.SIGTERM)
            assert relay.process.wait(timeout=60) == 0
        assert relay.process.stdout is not None
        assert relay.process.stdout.read() == ""


def test_metrics_have_the_tonk_relays_form(relay: RelayProcess) -> None:
    """/metrics has the keys and units of the original, and moves with time."""
    first = relay.metrics()
    assert abs(first["timestamp"] / 1000 - time.time()) < 60
    assert first["process"] == {"pid": relay.pid}
    statm = Path(f"/proc/{relay.pid}/statm").read_text(encoding="ascii").split()
    rss_bytes = int(statm[1]) * os.sysconf("SC_PAGE_SIZE")
    assert abs(first["memory"]["rss"] - rss_bytes) < 0.2 * rss_bytes
    total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert abs(first["memory"]["total"] - total_bytes) < 0.05 * total_bytes
    assert first["connections"] == 0
    second = relay.metrics()
    assert 0 < first["uptime"] < second["uptime"]
    assert 0 < first["cpu_seconds"] <= second["cpu_seconds"]
    assert "automerge-repo" in first["version"]


def test_connections_are_counted_exactly(relay: RelayProcess) -> None:
    """The count is right after each of 20 sockets opens and after each closes."""
    before = relay.stats()["sockets"]
    with ExitStack() as stack:
        sockets = []
        for count in range(1, 21):
            sockets.append(stack.enter_context(connect(relay.url)))
            assert relay.metrics()["connections"] == count
        for count, open_socket in zip(range(19, -1, -1), sockets, strict=True):
            open_socket.close()
            assert relay.metrics()["connections"] == count
    wait_for(
        lambda: relay.stats()["sockets"]["closed_by_client"] == before["closed_by_client"] + 20
    )
    assert relay.stats()["sockets"]["accepted"] == before["accepted"] + 20


def test_a_connection_that_vanishes_is_not_counted(relay: RelayProcess) -> None:
    """A TCP connection that ends without a closing handshake leaves the count."""
    connection = connect(relay.url)
    assert relay.metrics()["connections"] == 1
    connection.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: relay.metrics()["connections"] == 0)
    connection.close()


def test_two_clients_sync_a_document(relay: RelayProcess) -> None:
    """What one automerge-repo client writes, another sees, and messages are counted by kind."""
    before = relay.stats()["messages"]
    result = run_node(CLIENT, "latency", relay.url, "3", "150")
    assert result["writer"] == result["observer"] == {"number": 3}
    after = relay.stats()["messages"]
    assert after["in_by_kind"]["join"] == before["in_by_kind"]["join"] + 2
    assert after["out_by_kind"]["peer"] == before["out_by_kind"]["peer"] + 2
    assert after["in_by_kind"]["sync"] >= before["in_by_kind"]["sync"] + 3
    assert after["in_by_kind"]["other"] == after["out_by_kind"]["other"] == 0
    assert after["in"] == sum(after["in_by_kind"].values())


def test_the_same_client_syncs_through_the_reference_server(tmp_path: Path) -> None:
    """The client of these tests is no private dialect: automerge-repo's own server serves it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    main = ROOT / "node_modules" / "@automerge" / "automerge-repo-sync-server" / "src" / "index.js"
    server = subprocess.Popen(
        [str(NODE), str(main)],
        env={**os.environ, "PORT": str(port), "DATA_DIR": str(tmp_path / "documents")},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert str(port) in server.stdout.readline()
        result = run_node(CLIENT, "latency", f"ws://127.0.0.1:{port}/", "2", "150")
        assert result["writer"] == result["observer"] == {"number": 2}
    finally:
        server.terminate()
        server.wait(timeout=60)
        if server.stdout is not None:
            server.stdout.close()


def test_the_manifest_names_a_document_of_the_relay(relay: RelayProcess) -> None:
    """The zip is sound, and its rootId is a document that a client can get from the relay."""
    status, body = relay.get("/.manifest.tonk")
    assert status == 200
    with zipfile.ZipFile(io.BytesIO(body)) as bundle:
        assert bundle.testzip() is None
        root_id = json.loads(bundle.read("manifest.json"))["rootId"]
        stored = bundle.read(f"storage/{root_id[:2]}/{root_id[2:]}/snapshot/bundle_export")
    assert stored.startswith(bytes.fromhex("856f4a83"))  # the magic bytes of an Automerge document
    assert run_node(CLIENT, "find", relay.url, root_id)["type"] == "directory"


def test_a_message_that_is_none_costs_one_connection_only(relay: RelayProcess) -> None:
    """Bytes that are no message close the socket that sent them, and the relay goes on."""
    for nonsense in (b"\xff\x00", b"\xf6", b"", "text"):
        with connect(relay.url) as bad:
            bad.send(nonsense)
            wait_for(lambda bad=bad: is_closed(bad))  # type: ignore[misc]  # mypy cannot infer a lambda's default
    assert run_node(CLIENT, "talk", relay.url, "1", "0")["heard"][0]["type"] == "peer"
