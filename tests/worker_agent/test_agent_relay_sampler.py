import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from statistics import median
from typing import Any

import pytest

from run_store.messages import Order, Status
from run_store.samples import RELAY
from tests.relay_process import start_relay
from worker_agent import relay_duty, relay_sampler
from worker_agent.clock import RunClock
from worker_agent.relay_duty import RelayDuty
from worker_agent.relay_sampler import RelaySampler, metrics_url


@pytest.fixture(scope="module", autouse=True)
def scenes_meanwhile(played: object) -> None:
    """Have the agents' runs begin now: they wait most of their time, and these tests do not."""


Answer = Callable[[socket.socket], None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Serve on loopback: `answer` is given each connection once its request has come."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handle, args=[connection], daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"


def http(body: bytes, *, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


def says(data: bytes) -> Answer:
    return lambda connection: connection.sendall(data)


def trickles(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


GOOD = {
    "timestamp": 1_700_000_000_000,
    "memory": {"rss": 3 * 2**20, "total": 2**30},
    "connections": 7,
    "uptime": 12.5,
    "process": {"pid": 42},
}


async def poll(url: str, polls: int = 1, *, within_s: float = 60) -> list[dict[str, Any]]:
    """Sample until so many polls are recorded; return their rows."""
    rows: list[dict[str, Any]] = []
    sampler = RelaySampler(url, RunClock(), rows.append)
    sampling = asyncio.create_task(sampler.run())
    try:
        async with asyncio.timeout(within_s):
            while len(rows) < polls:  # noqa: ASYNC110 - the sampler is told nothing of this
                await asyncio.sleep(0.01)
    finally:
        sampling.cancel()
    return rows


async def test_a_real_relay_is_read_in_full() -> None:
    """The local relay's figures come with their units, and nothing else is claimed."""
    with start_relay() as relay:
        (row,) = await poll(relay.url)
        assert row.get("error") is None
        assert row["connections"] == 0
        assert row["pid"] == relay.pid
        assert 20 < row["memory_rss_mb"] < 500
        assert 0 < row["uptime_s"] < 60
        assert row["timestamp_ms"] == pytest.approx(time.time() * 1000, abs=60_000)
        assert 0 < row["response_ms"] < 60_000
        assert set(row) <= set(RELAY.names)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"), "status 500"),
        (says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "status 404"),
        (says(b""), "cut off"),
        (says(b"\x81\x05hello\r\n\r\n"), "cut off"),
        (says(http(b'{"timestamp": 1', length=500)), "cut off"),
        (says(http(b"<html>")), "not the expected JSON"),
        (says(http(b"\xff\xfe\x00")), "not the expected JSON"),
        (says(http(b"[1, 2]")), "not the expected JSON"),
        (says(http(b"[" * 100_000)), "not the expected JSON"),
        (says(http(b" " * (2**20 + 1))), "longer than"),
        (trickles, "no answer within"),
        (lambda _connection: time.sleep(3), "no answer within"),
    ],
)
async def test_a_poll_that_fails_is_a_sample(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, error: str
) -> None:
    """Whatever a relay does on /metrics, the row says when and why, and the next poll comes."""
    if error == "no answer within":
        monkeypatch.setattr(relay_sampler, "POLL_TIMEOUT_S", 0.4)
    monkeypatch.setattr(relay_sampler, "POLL_EVERY_S", 0.1)
    with server(answer) as url:
        rows = await poll(url, 2)
    for row in rows:
        assert error in row["error"]
        assert row["at_us"] > 0
        assert "response_ms" not in row or row["response_ms"] is None


async def test_nobody_there_is_a_sample() -> None:
    """A port without a listener is unreachable."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (row,) = await poll(f"ws://127.0.0.1:{probe.getsockname()[1]}/")
    assert row["error"].startswith("unreachable")


@pytest.mark.parametrize(
    ("change", "column", "value", "problem"),
    [
        ({}, "connections", 7, None),
        ({"memory": None}, "memory_rss_mb", None, None),
        ({"memory": {}}, "memory_rss_mb", None, None),
        ({"memory": "lots"}, "memory_total_mb", None, None),
        ({"process": 5}, "pid", None, None),
        ({"connections": 7.0}, "connections", 7, None),
        ({"connections": "7"}, "connections", None, "connections"),
        ({"connections": True}, "connections", None, "connections"),
        ({"connections": 7.5}, "connections", None, "connections"),
        ({"connections": 2**40}, "connections", None, "connections"),
        ({"uptime": 1e400}, "uptime_s", None, "uptime"),
        ({"uptime": float("nan")}, "uptime_s", None, "uptime"),
        ({"timestamp": 10**400}, "timestamp_ms", None, "timestamp"),
        ({"version": 3}, "version", "3", None),
        ({"cpu_seconds": 1}, "cpu_seconds", 1.0, None),
    ],
)
async def test_one_bad_figure_costs_only_itself(
    change: dict[str, Any], column: str, value: object, problem: str | None
) -> None:
    """A figure that is none is null and named; the others are kept, and all fit the schema."""
    with server(says(http(json.dumps({**GOOD, **change}).encode()))) as url:
        (row,) = await poll(url)
    assert row[column] == value
    assert (problem is None) == (row.get("error") is None)
    assert problem is None or problem in row["error"]
    for key, name, expected in (
        ("connections", "connections", 7),
        ("memory", "memory_rss_mb", 3.0),
        ("uptime", "uptime_s", 12.5),
        ("process", "pid", 42),
    ):
        assert key in change or row[name] == expected


async def test_a_relay_that_hangs_is_polled_each_second_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Polls that wait hold up no others, and each ends at its time."""
    monkeypatch.setattr(relay_sampler, "POLL_EVERY_S", 0.1)
    monkeypatch.setattr(relay_sampler, "POLL_TIMEOUT_S", 1.0)
    with server(lambda _connection: time.sleep(2)) as url:
        rows = await poll(url, 15)
    # Of a busy machine's gaps some are long; were polls waited for, all were a second.
    gaps_s = [(b["at_us"] - a["at_us"]) / 1e6 for a, b in pairwise(rows)]
    assert median(gaps_s) == pytest.approx(0.1, abs=0.05)


async def test_the_clocks_offset_has_a_bound() -> None:
    """Against a relay on the same machine the offset is zero within the bound that is stated."""
    with start_relay() as relay:
        offset = await RelaySampler(relay.url, RunClock(), print).clock_offset()
    assert offset is not None
    assert abs(offset.offset_ms) <= offset.error_ms
    assert offset.error_ms < 200


@pytest.mark.parametrize("body", [b"{}", b'{"timestamp": "now"}', b"[]", b"nonsense"])
async def test_a_relay_without_a_clock_gives_no_offset(body: bytes) -> None:
    """Where there is no timestamp nothing is guessed."""
    with server(says(http(body))) as url:
        assert await RelaySampler(url, RunClock(), print).clock_offset() is None


@pytest.mark.parametrize(
    ("relay", "metrics"),
    [
        ("ws://h:1", "http://h:1/metrics"),
        ("ws://h:1/", "http://h:1/metrics"),
        ("wss://h/", "https://h/metrics"),
        ("wss://h/some/path", "https://h/some/path/metrics"),
    ],
)
def test_metrics_are_beside_the_socket(relay: str, metrics: str) -> None:
    """The address of /metrics follows from the WebSocket's."""
    assert metrics_url(relay) == metrics


def order(*samplers: str) -> Order:
    return Order(number=1, attempt=1, action="run", starts_at_us=0, relay_samplers=list(samplers))


class Workers:
    """The statuses of other workers, which beat until they are silenced."""

    def __init__(self) -> None:
        self.beat = 0
        self.silent: set[str] = set()
        self.stopped: set[str] = set()

    async def status_of(self, worker: str) -> Status | None:
        """Return a status whose beat moves unless the worker is silent."""
        self.beat += 1
        return Status(
            worker=worker,
            attempt=1,
            beat=1 if worker in self.silent else self.beat,
            at_us=0,
            state="stopped" if worker in self.stopped else "running",
        )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let followers look and lose patience sooner."""
    monkeypatch.setattr(relay_duty, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(relay_duty, "FOLLOW_AFTER_S", 0.2)
    monkeypatch.setattr(relay_sampler, "POLL_EVERY_S", 0.02)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - any condition, which nobody announces
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quick")
async def test_one_worker_samples_the_relay_and_another_follows() -> None:
    """A follower samples only while the one before it is silent, and hands back afterwards."""
    workers, rows = Workers(), list[dict[str, Any]]()
    with server(says(http(json.dumps(GOOD).encode()))) as url:
        duty = RelayDuty(RelaySampler(url, RunClock(), rows.append), "b", workers.status_of)
        duty.follow(order("a", "b"))
        await until(lambda: workers.beat > 20)
        assert rows == []
        workers.silent.add("a")
        await until(lambda: len(rows) > 3)
        workers.silent.clear()
        looks = workers.beat
        await until(lambda: workers.beat > looks + 5)
        sampled, looks = len(rows), workers.beat
        await until(lambda: workers.beat > looks + 10)
        assert len(rows) <= sampled + 1
        workers.stopped.add("a")
        await until(lambda: len(rows) > sampled + 3)
        duty.end()


@pytest.mark.usefixtures("quick")
async def test_the_next_phase_does_not_interrupt_sampling() -> None:
    """An order with the same samplers lets the polls that are on their way come to their end."""
    rows: list[dict[str, Any]] = []

    def slowly(connection: socket.socket) -> None:
        time.sleep(0.3)
        connection.sendall(http(json.dumps(GOOD).encode()))

    with server(slowly) as url:
        duty = RelayDuty(RelaySampler(url, RunClock(), rows.append), "a", Workers().status_of)
        for _ in range(20):
            duty.follow(order("a", "b"))
            await asyncio.sleep(0.05)
        await until(lambda: len(rows) > 3)
        duty.follow(order("b"))
        await asyncio.sleep(0.05)
        sampled = len(rows)
        await asyncio.sleep(0.5)
        assert len(rows) == sampled
        duty.end()
