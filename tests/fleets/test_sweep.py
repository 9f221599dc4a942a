from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.sweep import (
    KEPT_RUNNING,
    KEPT_UNKNOWN,
    find_leftovers,
    look,
    remove_leftovers,
    running_by_lease,
    why_leftover,
)
from run_store.errors import UsageError
from run_store.layout import RunLayout
from run_store.messages import Lease
from run_store.store import Store
from tasks.fleets.ec2_prices import has_account
from tasks.fleets.ec2_resources import Resource
from tasks.local_services import local_store
from tests.command_line import relay_load
from tests.fleets.emulated_ec2 import REGION, Account, emulated_account
from tests.silent_run import put_silent_run


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with emulated_account(monkeypatch) as empty:
        yield empty


def add_key_pair(account: Account, run_id: str, expires_at: float) -> str:
    name = f"relay-load-{run_id}-1"
    tags = {"relay-load:run": run_id, "relay-load:expires-at": str(int(expires_at))}
    account.client.create_key_pair(
        KeyName=name,
        TagSpecifications=[
            {
                "ResourceType": "key-pair",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        ],
    )
    return name


def a_protected_machine(account: Account) -> str:
    """Make a machine of ours whose time is over, and that somebody has protected since."""
    tags = {"relay-load:run": "old-run", "relay-load:expires-at": str(int(time.time() - 10))}
    made = account.client.run_instances(
        ImageId=account.image,
        MinCount=1,
        MaxCount=1,
        SubnetId=account.subnet,
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        ],
    )
    machine = str(made["Instances"][0]["InstanceId"])
    account.client.modify_instance_attribute(
        InstanceId=machine, DisableApiTermination={"Value": True}
    )
    return machine


@pytest.mark.parametrize(
    ("expires_at", "running", "asked_for", "force", "goes"),
    [
        (50, None, False, False, True),  # its time is over, nothing else is known
        (150, None, False, False, False),  # its time is not over
        (150, False, False, False, True),  # its run has ended before its time
        (50, True, False, False, False),  # a run that is alive keeps its own
        (50, True, True, False, False),  # also when it is asked for
        (150, True, True, True, True),  # unless forced
        (150, None, True, False, True),  # asked for, and nobody says that it runs
        (0, None, False, False, False),  # no date: the sweep cannot know
    ],
)
def test_what_may_go(
    expires_at: float, running: bool | None, asked_for: bool, force: bool, goes: bool
) -> None:
    """A thing goes when it is known to have outlived its run, or is asked for."""
    resource = Resource("key pair", "k", "r", expires_at)
    reason = why_leftover(resource, now=100, running=running, asked_for=asked_for, force=force)
    assert bool(reason) == goes


def test_expired_goes_and_the_rest_stays(account: Account) -> None:
    """What has outlived its run is removed; a later one's and other people's things stay."""
    old = add_key_pair(account, "old-run", time.time() - 10)
    new = add_key_pair(account, "new-run", time.time() + 1000)
    account.client.create_key_pair(KeyName="somebody-elses")
    found = find_leftovers([REGION])
    assert [one.resource.id for one in found] == [old]
    assert remove_leftovers(found) == []
    assert sorted(account.left()) == sorted([new, "somebody-elses"])
    assert find_leftovers([REGION]) == []


def test_lease_tells_a_dead_run(tmp_path: Path) -> None:
    """A run whose lease stands still is dead; one that has ended is; an unknown one is unknown."""
    with local_store(tmp_path) as address:
        store = Store(address)
        put_silent_run(store, "a-run")
        says = running_by_lease(store, watch_s=0.1)
        assert says("a-run") is False
        assert says("another-run") is None


@pytest.mark.parametrize("lease", ["stands still", "is not there yet"])
def test_a_run_whose_presence_is_raised_is_alive(tmp_path: Path, lease: str) -> None:
    """In its teardown agents ship what they have; before its load it may wait for its relay."""
    with local_store(tmp_path) as address:
        store, layout = Store(address), RunLayout("a-run")
        put_silent_run(store, layout.run_id)
        if lease == "is not there yet":
            store.delete(layout.lease(1))
            assert running_by_lease(store)("a-run") is None
        over = threading.Event()
        presence = Lease(counter=1, every_s=1, expires_after_s=3)
        store.put_message(layout.presence(1), presence)

        def keep() -> None:
            while not over.wait(0.2):
                presence.counter += 1
                store.put_message(layout.presence(1), presence)

        keeper = threading.Thread(target=keep)
        keeper.start()
        try:
            assert running_by_lease(store)("a-run") is True
        finally:
            over.set()
            keeper.join()


def test_an_end_of_the_id_asks_for_one_run(account: Account) -> None:
    """A run that is asked for loses what it has; of the others it is said why they keep theirs."""
    mine = add_key_pair(account, "heavy-1-aaaa1111", time.time() + 1000)
    add_key_pair(account, "heavy-1-bbbb2222", time.time() + 1000)
    (asked,) = look([REGION], run_id="aaaa1111")
    assert (asked.resource.id, asked.goes) == (mine, True)
    everything = look([REGION], is_running=lambda run_id: "bbbb" in run_id or None)
    assert [(one.goes, one.reason) for one in everything] == [
        (False, KEPT_UNKNOWN),
        (False, KEPT_RUNNING),
    ]


def test_cleanup_removes_what_may_go_and_says_what_stays(tmp_path: Path, account: Account) -> None:
    """The table tells of each thing; nothing goes unasked, and what may go is gone."""
    old = add_key_pair(account, "old-run", time.time() - 10)
    new = add_key_pair(account, "new-run", time.time() + 1000)
    # A process takes seconds to start: the first looks are made in this one.
    command = ["cleanup", "--region", REGION]
    within = CliRunner()
    unasked = within.invoke(app, command)
    assert isinstance(unasked.exception, UsageError)
    assert "Say --yes" in unasked.exception.hint
    assert old in unasked.stdout
    looked = within.invoke(app, [*command, "--dry-run", "--json"])
    told = {row["id"]: (row["outcome"], row["reason"]) for row in json.loads(looked.stdout)}
    assert told == {
        old: ("would be removed", "its time is over"),
        new: ("kept", "nobody knows that its run has ended"),
    }
    assert sorted(account.left()) == sorted([old, new])
    done = within.invoke(app, [*command, "--yes"])
    assert (done.exit_code, account.left()) == (0, [new])
    assert "removed" in done.stdout
    machine = a_protected_machine(account)
    names = ("AWS_ENDPOINT_URL_EC2", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    variables = {name: os.environ[name] for name in names}
    remains = relay_load(*command, "--yes", "--within", "1s", cwd=tmp_path, variables=variables)
    assert (remains.code, "remains" in remains.out) == (1, True)
    assert "1 of 1 remain" in remains.told
    assert machine in account.left()
    alone = relay_load("cleanup", "--yes", cwd=tmp_path)
    assert alone.code == 1
    assert "No AWS credentials" in alone.told


def test_no_account_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no credentials are configured the sweep has nothing to do."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert has_account() is False
