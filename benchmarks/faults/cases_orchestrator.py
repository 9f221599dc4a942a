"""Cases: the way to a worker's host is cut in the load, while it reaches S3 and the relay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from benchmarks.faults.case import Case, Scale, SkippedError
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.cases_network import GRACE_S, LONG_S, SHORT_S, cabled
from benchmarks.faults.namespace import Namespace
from benchmarks.faults.site import Site
from benchmarks.faults.stage import as_plan
from tasks.fleets.worker_access import VARIABLES
from tests.fleets.ssh_hosts import SSHD, make_key, ssh_host
from tests.flow_process import MARK

PORT = 2222


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of the link over which a host is deployed to, looked at and cleaned up."""
    for seconds in (SHORT_S, scale.outage_s(LONG_S, 60), 0.0):
        lasts = f"for {seconds:g} s" if seconds else "for good"
        yield Case(
            f"network/the orchestrator {lasts}",
            f"the link from the orchestrator to an SSH host is down {lasts}",
            _cut(seconds),
        )


def _cut(seconds: float) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        net = on_ssh_host(site)
        site.overrides["phases.load.duration"] = f"{seconds + GRACE_S:g}s"
        if not seconds:
            site.must_name(net.inner_host, "cannot be reached")
        site.plainly()
        site.order(LOAD)
        time.sleep(1)  # rows to lose
        net.pull_out("o")
        if seconds:
            time.sleep(seconds)
            net.pull_in("o")
        return site.wait()

    return play


def on_ssh_host(site: Site) -> Namespace:
    """Have the case's worker on an SSH host in a network of its own, prepared by an earlier run.

    Raises SkippedError where this machine has no SSH server.
    """
    if SSHD is None:
        raise SkippedError("an SSH host needs Debian's openssh-server")
    installed = site.stage.installed_worker()
    network = cabled(site)
    net = network.inside
    key = site.folder / "user_key"
    host = site.closing.enter_context(
        ssh_host(
            site.folder / "host",
            net.inner_host,
            user_key=make_key(key),
            port=PORT,
            prepared=installed,
            netns=net.name,
            environment=f"{MARK}={site.mark} 'RELAY_LOAD_FAULTS={as_plan(**site.plan)}'",
        )
    )
    # The orchestrator reaches both by the addresses that its worker has for them.
    site.environment["AWS_ENDPOINT_URL_S3"] = network.store_url
    keys = site.stage.store.address.secrets() or ("", "", "")
    site.environment |= dict(zip(VARIABLES, keys, strict=True))
    site.parameters["relay_url"] = network.relay_url
    site.parameters["i_may_load_this_host"] = True
    site.overrides["fleet"] = {
        "kind": "ssh",
        "workers": 1,
        "hosts": [host.text],
        "host_keys": [host.pinned],
        "key_file": str(key),
        "worker_credentials": "env",
    }
    return net
