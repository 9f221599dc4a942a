"""Hosts of the user's own, by the command line's and the flow's parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from run_store.errors import UsageError
from scenarios.loading import load_scenario
from tasks.hosts import check_hosts, with_hosts
from tests.command_line import relay_load


def test_naming_hosts_asks_for_a_worker_on_each(tmp_path: Path) -> None:
    """Hosts and files become the scenario's fleet; what is said of the fleet itself counts more."""
    key = tmp_path / "key"
    hosts = ["me@a", "me@b:2222", "c"]
    fleet, given = with_hosts(
        {"connections": 7}, hosts=hosts, ssh_key=str(key), wheelhouse="~/wheels"
    )
    spec = load_scenario("local", given).fleet
    assert (fleet, spec.workers, spec.hosts) == ("ssh", 3, tuple(hosts))
    assert (spec.key_file, spec.wheelhouse) == (str(key), str(Path.home() / "wheels"))
    assert given["connections"] == 7
    _, fewer = with_hosts({"fleet.workers": 1}, hosts=["a", "b"])
    assert load_scenario("local", fewer).fleet.workers == 1
    assert with_hosts({}) == (None, {})
    assert with_hosts({}, fleet="ec2", wheelhouse="/w")[0] == "ec2"


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        ({"workers": 1}, "No hosts are named"),
        ({"workers": 2, "hosts": ["a"]}, "asks for 2 workers and names 1 hosts"),
        ({"workers": 2, "hosts": ["a", "a"]}, "named twice"),
        ({"workers": 1, "hosts": ["a b"]}, "is not a host"),
        ({"workers": 1, "hosts": ["a"], "key_file": "/none/key"}, "no SSH key /none/key"),
        ({"workers": 1, "hosts": ["a"], "known_hosts": "/none"}, "no file of known hosts"),
        ({"workers": 1, "hosts": ["a"], "host_keys": ["a MD5:x"]}, "not a pinned host key"),
        ({"workers": 1, "hosts": ["a"], "wheelhouse": "/none"}, "no wheels in /none"),
    ],
)
def test_bad_hosts_are_told_before_anything_starts(fleet: dict[str, object], said: str) -> None:
    """What cannot be meant is said at once, and no host is reached for it."""
    scenario = load_scenario("local", {"fleet": fleet})
    with pytest.raises(UsageError, match=said):
        check_hosts(scenario, "ssh")
    check_hosts(scenario, "local")


def test_the_command_line_refuses_bad_hosts(tmp_path: Path) -> None:
    """A host that is none ends the command with 2, and so do hosts of another fleet."""
    bad = relay_load("run", "local", "--host", "$(id)@x", cwd=tmp_path)
    assert (bad.code, "is not a host" in bad.told) == (2, True)
    other = relay_load("run", "local", "--fleet", "ec2", "--host", "a", cwd=tmp_path)
    assert (other.code, "Hosts go with --fleet ssh" in other.told) == (2, True)
