"""Cases: the relay dies, hangs, refuses or is reached badly while it is under load."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from benchmarks.faults.case import Case, Scale
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.proxy import Link
from benchmarks.faults.site import Site
from benchmarks.faults.stage import port_of
from tasks.local_services import free_port
from tests.relay_process import RelayProcess, start_relay

SLOW_S = 0.05
THROTTLED_BYTES_PER_S = 20_000.0
AFTER_S = 10.0
AFTER_LONG_S = 25.0
"""How long the load goes on after an outage: the longer it was, the later connections try again."""


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of the relay."""
    away_s, after_s = scale.outage_s(4, 60), scale.outage_s(AFTER_S, AFTER_LONG_S)
    yield Case(
        "relay/restart", f"it is killed and started {away_s:g} s later", _restarts(away_s, after_s)
    )
    yield Case("relay/stall", f"it hangs for {away_s:g} s", _stalls(away_s))
    yield Case(
        "relay/refuses", f"it drops all and refuses for {away_s:g} s", _refuses(away_s, after_s)
    )
    yield Case("relay/dead", "it is killed and does not come back", _dies)
    yield Case("relay/slow", f"each step to it takes {SLOW_S:g} s more", _badly_reached(_slow))
    yield Case(
        "relay/throttled",
        f"it is reached at {THROTTLED_BYTES_PER_S / 1000:g} kB/s",
        _badly_reached(_throttled),
    )


def _loaded(site: Site, url: str, load_s: float) -> None:
    """Start a run against a relay of the suite, and wait until it is in its load."""
    site.parameters["relay_url"] = url
    site.overrides["phases.load.duration"] = f"{load_s:g}s"
    site.overrides["objectives"] = ["edits.error_rate < 5%"]
    site.plainly()
    site.order(LOAD)


def _restarts(seconds: float, after_s: float) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        port = str(free_port())
        with contextlib.ExitStack() as first:
            relay = first.enter_context(start_relay("--port", port))
            _loaded(site, relay.url, seconds + after_s)
            time.sleep(1)  # some edits and drops more than none
            relay.process.kill()
            site.must_name("relay_restarted")
            time.sleep(seconds)
        site.closing.enter_context(start_relay("--port", port))
        return _recovered(site)

    return play


def _refuses(seconds: float, after_s: float) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        relay = _relay(site)
        _loaded(site, relay.url, seconds + after_s)
        time.sleep(1)
        site.must_name("connection_drops")
        relay.set_faults(max_connections=0)
        relay.drop(share=1.0)
        time.sleep(seconds)
        relay.set_faults(max_connections=None)
        return _recovered(site)

    return play


def _stalls(seconds: float) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        relay = _relay(site)
        _loaded(site, relay.url, seconds + 6)
        relay.set_faults(stall_s=seconds)
        ended = site.wait()
        slowest_ms = max(
            phase["acknowledgement_ms"]["max"] or 0 for phase in site.summary()["phases"]
        )
        site.expect(slowest_ms > seconds * 500, f"the stall is seen in no edit: {slowest_ms} ms")
        return ended

    return play


def _dies(site: Site) -> str:
    relay = _relay(site)
    _loaded(site, relay.url, 8)
    time.sleep(1)  # connections that can be lost
    site.must_name("relay_silent", "connection_drops")
    relay.process.kill()
    ended = site.wait()
    said = site.summary()
    site.expect(said["not_recovered"] > 0, "the report has no connection that stayed away")
    site.expect(said["verdict"] == "failed", "a relay that died has passed")
    return ended


def _badly_reached(disturb: Callable[[Link], None]) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        link = site.closing.enter_context(Link("127.0.0.1", port_of(_relay(site).url)))
        _loaded(site, f"ws://127.0.0.1:{link.port}/", 6)
        disturb(link)
        return site.wait()

    return play


def _slow(link: Link) -> None:
    link.delay_s = SLOW_S


def _throttled(link: Link) -> None:
    link.bytes_per_s = THROTTLED_BYTES_PER_S


def _relay(site: Site) -> RelayProcess:
    return site.closing.enter_context(start_relay())


def _recovered(site: Site) -> str:
    """Wait for the end; the report must have the drops, and how long it took to be back."""
    ended = site.wait()
    phases = [phase["connections"] for phase in site.summary()["phases"]]
    recovered = sum(phase["recovered"] for phase in phases)
    site.expect(recovered > 0, "the report has no connection that came back")
    longest_ms = max(phase["recovery_max_ms"] or 0 for phase in phases)
    site.expect(longest_ms > 0, "the report has no recovery time")
    return ended
