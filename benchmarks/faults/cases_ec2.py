"""Cases: EC2 throttles, fails, does not describe yet what it made, or takes a machine back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.faults.account import OPERATIONS, RENTING
from benchmarks.faults.case import Case, HungError, Scale
from benchmarks.faults.cases_agent import LOAD
from benchmarks.faults.proxy import Answer, Request, Teller
from benchmarks.faults.site import Site, until
from tasks.processes import PROJECT

TIMES = 2
"""How often a call fails before EC2 does what it is asked."""
FOR_GOOD = 10_000
WITHIN_S = 300.0
LATE = ["DescribeInstances", "InvalidInstanceID.NotFound"]
UNKNOWN_FOR = 20
Groups = list[list[str]]
NOTICE = '{"action": "terminate", "time": "2099-01-01T00:00:00Z"}'


def cases(scale: Scale) -> Iterator[Case]:
    """Yield the cases of EC2."""
    throttled, failed = (503, "RequestLimitExceeded"), (500, "InternalError")
    # At full length each call fails in a rental of its own.
    groups = [[name] for name in OPERATIONS] if scale.full else [list(OPERATIONS)]
    for name, answer in (("throttling", throttled), ("500", failed)):
        yield Case(
            f"ec2/{name}",
            f"each of {len(OPERATIONS)} calls is answered {TIMES} times with {answer[1]}",
            _rents(groups, answer, TIMES),
        )
    some = [[name] for name in (RENTING if scale.full else RENTING[-1:])]
    yield Case(
        "ec2/500 for good",
        f"{' or '.join(name for (name,) in some)} is answered with {failed[1]} for good",
        _does_not_rent(some, failed),
    )
    yield Case(
        "ec2/not described yet",
        f"machines that were made are unknown for {TIMES} looks",
        _rents([LATE[:1]], (400, LATE[1]), TIMES),
    )
    yield Case(
        "ec2/not known for long",
        f"machines that were made are neither listed nor known for {UNKNOWN_FOR} looks",
        _unknown,
    )
    yield Case("ec2/spot notice", "EC2 tells one of two machines that it is taken", _notice)


def _rents(groups: Groups, answer: tuple[int, str], times: int) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        for tried in _account(site, groups, answer, times):
            name = tried["operations"][0]
            site.expect(tried["rented"] == "2 machines", f"{name}: {tried['rented']}")
            site.expect(not tried["spared"], f"nobody called {tried['spared']}")
        return "goes on"

    return play


def _does_not_rent(groups: Groups, answer: tuple[int, str]) -> Callable[[Site], str]:
    def play(site: Site) -> str:
        for tried in _account(site, groups, answer, FOR_GOOD):
            name, said = tried["operations"][0], tried["rented"]
            site.expect(answer[1] in said and name in said, f"{name}: {said}")
        return "says why"

    return play


def _unknown(site: Site) -> str:
    for tried in _account(site, [["DescribeInstances"]], (400, LATE[1]), 0, hidden=UNKNOWN_FOR):
        site.expect(tried["rented"] == "2 machines", tried["rented"])
        site.expect(not tried["looks"], f"the release ended {tried['looks']} looks too early")
    return "goes on"


def _account(
    site: Site, groups: Groups, answer: tuple[int, str], times: int, *, hidden: int = 0
) -> list[dict[str, Any]]:
    """Have machines rented and given back in an account of its own; note what stays there."""
    # An answer that EC2 never gave is looked for: for good, that takes its full time each.
    settles = {"tasks.fleets.ec2_ledger:SETTLES_WITHIN_S": 5.0} if times == FOR_GOOD else {}
    site.plan["set"] = {"tasks.fleets.ec2:LOOK_EVERY_S": 0.1, **settles}
    store = site.folder / "store.json"
    # Apart from what is looked at afterwards: there is a rental here, and no run.
    address = site.stage.store.address.model_copy(update={"prefix": f"{site.prefix}-rented/"})
    address.to_file(store)
    order = {
        "store": str(store),
        "folder": str(site.folder),
        "groups": groups,
        "status": answer[0],
        "code": answer[1],
        "times": times,
        "hidden": hidden,
    }
    file = site.folder / "order.json"
    file.write_text(json.dumps(order), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.faults.account", str(file)],
            cwd=PROJECT,
            env={**site.stage.environment, **site.own_environment()},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HungError(f"renting and giving back takes more than {WITHIN_S:g} s") from None
    if done.returncode:
        raise HungError(f"exit {done.returncode}: {done.stderr[-1500:]}")
    tries: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    for tried in tries:
        site.left += [f"{tried['operations'][0]}: {one}" for one in tried["left"]]
        site.expect(tried["returned"] == "all", f"{tried['operations'][0]}: {tried['returned']}")
    return tries


def _notice(site: Site) -> str:
    """Tell one agent by a metadata service of the suite; where it runs makes no difference."""
    metadata = site.closing.enter_context(Teller("http://127.0.0.1:9"))
    told = {"notice": False}

    def tell(request: Request) -> Answer:
        if request.method == "PUT":
            return Answer(200, "token", "text/plain")
        return Answer(200, NOTICE) if told["notice"] else Answer(404, "none")

    metadata.tell = tell
    site.plan["agent_metadata"] = {"worker-1": metadata.url}
    site.overrides["fleet.workers"] = 2
    site.overrides["phases.load.duration"] = "14s"
    site.must_name("takes this spot machine back", "worker-1")
    site.plainly()
    site.order(LOAD)
    told["notice"] = True
    until(lambda: site.agents().get("worker-1") is None, within_s=60, what="the end of worker-1")
    return site.wait()
