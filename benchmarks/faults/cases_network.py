"""Cases: the agent stands in a network of its own, whose cables are pulled out in the load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.faults.case import Case, Scale
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.namespace import Namespace
from benchmarks.faults.proxy import Link
from benchmarks.faults.site import Site
from benchmarks.faults.stage import port_of
from tests.relay_process import RelayProcess, start_relay

CUTS = {"S3": ("s",), "the relay": ("r",), "S3 and the relay": ("s", "r")}
SHORT_S = 2.0
LONG_S = 12.0
"""More than a worker may be silent, so that what follows is what follows a minute's cut."""
GRACE_S = 8.0


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of the network; the orchestrator keeps its own way to everything."""
    for what, cables in CUTS.items():
        for seconds in (SHORT_S, scale.outage_s(LONG_S, 60), 0.0):
            lasts = f"for {seconds:g} s" if seconds else "for good"
            yield Case(
                f"network/{what} {lasts}",
                f"the link from the worker to {what} is down {lasts}",
                _cut(cables, seconds),
            )


@dataclass(frozen=True)
class Network:
    """A relay of the case's own, a network, and what stands at its cables, as seen from inside."""

    inside: Namespace
    relay: RelayProcess
    store_url: str
    relay_url: str


def cabled(site: Site) -> Network:
    """Make a case's network, from which S3 and a relay are reached by cables; it goes with it."""
    net = site.closing.enter_context(Namespace())
    relay = site.closing.enter_context(start_relay())
    store_url = site.stage.store.address.endpoint_url or ""
    to_store = Link("127.0.0.1", port_of(store_url), listen=net.store_host)
    to_relay = Link("127.0.0.1", port_of(relay.url), listen=net.relay_host)
    site.closing.enter_context(to_store)
    site.closing.enter_context(to_relay)
    return Network(
        inside=net,
        relay=relay,
        store_url=f"http://{net.store_host}:{to_store.port}",
        relay_url=f"ws://{net.relay_host}:{to_relay.port}/",
    )


def _cut(cables: tuple[str, ...], seconds: float) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        network = cabled(site)
        net = network.inside
        site.plan["netns"] = net.name
        site.plan["agent_s3"] = network.store_url
        site.plan["agent_relay"] = network.relay_url
        site.plan["grace_s"] = 2 * seconds + GRACE_S
        site.parameters["relay_url"] = network.relay.url
        site.overrides["phases.load.duration"] = f"{seconds + GRACE_S:g}s"
        if not seconds or seconds >= LONG_S:
            silent = ("worker-1", "has not been heard") if "s" in cables else ("relay_silent",)
            site.must_name(*silent)
        site.plainly()
        site.order(LOAD)
        time.sleep(1)  # rows to lose
        net.pull_out(*cables)
        if seconds:
            time.sleep(seconds)
            net.pull_in(*cables)
        return site.wait()

    return play
