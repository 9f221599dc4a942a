"""Cases: the way from the workers to S3 is cut, slow or throttled, or S3 answers with errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from benchmarks.faults.case import Case, Scale
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.proxy import Answer, Link, Teller, s3_error
from benchmarks.faults.site import Site
from benchmarks.faults.stage import port_of

SLOW_S = 0.15
THROTTLED_BYTES_PER_S = 40_000.0


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of the store."""
    away_s = scale.outage_s(5, 600)
    yield Case("store/cut", f"nothing passes to S3 for {away_s:g} s", _away(away_s, _cut))
    yield Case("store/refused", f"S3 is gone for {away_s:g} s", _away(away_s, Link.refuse))
    yield Case("store/slow", f"each step to S3 takes {SLOW_S:g} s more", _away(0, _slow))
    yield Case(
        "store/throttled",
        f"S3 is reached at {THROTTLED_BYTES_PER_S / 1000:g} kB/s",
        _away(0, _throttled),
    )
    for status, code in ((500, "InternalError"), (503, "SlowDown"), (403, "ExpiredToken")):
        yield Case(
            f"store/{status}",
            f"S3 answers {status} {code} for {away_s:g} s",
            _answers(away_s, s3_error(status, code)),
        )


def _cut(link: Link) -> None:
    link.way = "cut"


def _slow(link: Link) -> None:
    link.delay_s = SLOW_S


def _throttled(link: Link) -> None:
    link.bytes_per_s = THROTTLED_BYTES_PER_S


def _away(seconds: float, disturb: Callable[[Link], None]) -> Callable[[Site], str]:
    """Disturb the way to S3 in the load, for so long or (0) for the rest of the run."""

    def play(site: Site) -> str:
        address = site.stage.store.address
        link = site.closing.enter_context(Link("127.0.0.1", port_of(address.endpoint_url or "")))
        _reached_by(site, f"http://127.0.0.1:{link.port}", seconds)
        disturb(link)
        if seconds:
            time.sleep(seconds)
            link.way = "open"
        return site.wait()

    return play


def _answers(seconds: float, answer: Answer) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        url = site.stage.store.address.endpoint_url or ""
        teller = site.closing.enter_context(Teller(url))
        _reached_by(site, teller.url, seconds)
        teller.tell = lambda _: answer
        time.sleep(seconds)
        teller.tell = lambda _: None
        return site.wait()

    return play


def _reached_by(site: Site, endpoint: str, seconds: float) -> None:
    """Start a run whose agents reach S3 by an endpoint, and wait until it is in its load."""
    site.plan["agent_s3"] = endpoint
    site.plan["grace_s"] = max(2 * seconds, 120.0)
    site.overrides["phases.load.duration"] = f"{seconds + 6:g}s"
    site.plainly()
    site.order(LOAD)
