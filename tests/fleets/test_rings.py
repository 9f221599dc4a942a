from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

from flows.relay_load import relay_load, release_run
from flows.sweep import find_leftovers, remove_leftovers, running_by_lease
from run_store.errors import FleetError
from run_store.layout import RunLayout
from run_store.messages import Attempt, Lease, RunRecord
from run_store.store import Store, StoreAddress
from scenarios.loading import load_scenario
from tasks.deploy import start_agents
from tasks.fleets import ec2
from tasks.fleets.base import Worker
from tasks.fleets.ec2 import Ec2Fleet
from tasks.fleets.ec2_resources import find_resources
from tasks.fleets.remote import Host, connect
from tasks.local_services import RelayAddress, local_store
from tasks.run_context import RunContext
from tests.fleets.emulated_ec2 import REGION, Account, powered_off
from tests.fleets.ssh_hosts import needs_sshd
from tests.fleets.test_ec2 import context_of
from tests.relay_process import start_relay
from tests.waiting import wait_for
from worker_agent.power import COMMANDS


async def test_the_sweep_alone_empties_the_account(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """What a killed run has rented goes with the sweep, long before its time limit."""
    context = context_of(tmp_path, account, store_address)
    await Ec2Fleet().acquire(context)
    assert account.left()
    store = Store(store_address)
    record = RunRecord(
        run_id=context.run_id,
        scenario={},
        relay_url=context.relay_url,
        fleet="ec2",
        created_us=0,
        attempts=[Attempt(number=1, started_us=0)],
    )
    known = store.get_message(context.layout.run, RunRecord)
    store.put_message(context.layout.run, known or record)
    store.put_message(context.layout.lease(1), Lease(counter=1, every_s=2, expires_after_s=30))
    found = find_leftovers([REGION], is_running=running_by_lease(store, watch_s=0.1))
    assert {one.reason for one in found} == {"its run has ended"}
    assert remove_leftovers(found) == []
    assert account.left() == []


@pytest.mark.slow
async def test_finally_alone_empties_the_account(
    tmp_path: Path,
    account: Account,
    prefect_api: str,  # noqa: ARG001 - the flow runs on it
    quiet_relay: RelayAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flow whose machines are rented and then let nobody in gives them back by itself.

    It has no hooks, no agent was ever started, and no sweep looks.
    """
    monkeypatch.setattr(ec2, "SSH_WITHIN_S", 0.3)
    monkeypatch.setattr(relay_load, "on_crashed_hooks", [])
    monkeypatch.setattr(relay_load, "on_cancellation_hooks", [])
    fleet = {"subnets": [account.subnet], "image": account.image, "ssh_cidr": "203.0.113.7/32"}
    with pytest.raises(FleetError, match="Only 0 of 2"):
        await relay_load(
            "baseline",
            relay_url=quiet_relay.url,
            fleet="ec2",
            results=str(tmp_path / "results"),
            overrides={"connections": 10, "phases.warmup.connections": 4, "fleet": fleet},
        )
    assert {"ec2:CreateFleet", "ec2:TerminateInstances"} <= account.calls
    assert account.left() == []


async def test_the_hook_alone_empties_the_account(
    tmp_path: Path,
    account: Account,
    store_address: StoreAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The crash hook, which knows a flow run's id and parameters, ends what a killed run rented.

    No process of the run is left, no agent was ever started, and no sweep looks.
    """
    identity = uuid4()
    run_id = f"baseline-20260101-000000-{identity.hex[-8:]}"
    context = context_of(tmp_path, account, store_address, run_id=run_id)
    await Ec2Fleet().acquire(context)
    assert len([one for one in account.left() if one.startswith("i-")]) == len(context.workers)
    record = RunRecord(
        run_id=run_id,
        scenario=context.scenario.model_dump(mode="json", by_alias=True),
        relay_url=context.relay_url,
        fleet="ec2",
        created_us=0,
        attempts=[Attempt(number=1, started_us=0)],
    )
    Store(store_address).put_message(context.layout.run, record)
    keys = store_address.secrets()
    assert keys is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store_address.endpoint_url or "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    elsewhere = {"store": store_address.url, "results": str(tmp_path / "elsewhere")}
    crashed = FlowRun(
        id=identity, flow_id=uuid4(), parameters={"scenario": "baseline", **elsewhere}
    )
    await release_run(relay_load, crashed, Crashed())
    assert account.left() == []


async def test_the_hook_has_the_time_for_what_a_release_in_haste_leaves(
    tmp_path: Path, store_address: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched is shipped by a release that is not in haste, whatever is left to remove."""
    identity = uuid4()
    run_id = f"local-20260101-000000-{identity.hex[-8:]}"
    record = RunRecord(
        run_id=run_id,
        scenario=load_scenario("local").model_dump(mode="json", by_alias=True),
        relay_url="ws://127.0.0.1:9/",
        fleet="local",
        created_us=0,
        attempts=[Attempt(number=1, started_us=0)],
    )
    Store(store_address).put_message(RunLayout(run_id).run, record)
    keys = store_address.secrets()
    assert keys is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store_address.endpoint_url or "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    in_haste = []

    async def all_gone(context: RunContext) -> bool:
        in_haste.append(context.in_haste)
        return True

    monkeypatch.setattr("flows.relay_load.give_back", all_gone)
    where = {"store": store_address.url, "results": str(tmp_path / "results")}
    crashed = FlowRun(id=identity, flow_id=uuid4(), parameters={"scenario": "local", **where})
    await release_run(relay_load, crashed, Crashed())
    assert in_haste == [True, False]


@pytest.mark.slow
@needs_sshd
@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="agents would be systemd's here")
async def test_the_agents_lease_alone_ends_its_machine(
    tmp_path: Path, account: Account, worker_environment: Path
) -> None:
    """Where nobody raises the lease, each agent powers its machine off, which terminates it.

    The orchestrator does nothing any more: no `finally`, no hook, no sweep; and the machines'
    own limit is more than an hour away.
    """
    beating = threading.Event()
    with (
        start_relay() as relay,
        local_store(tmp_path / "results") as address,
        account.hypervisor(tmp_path / "hosts", environment=worker_environment) as hosts,
    ):
        context = context_of(tmp_path, account, address, relay.url)
        store = Store(address)

        def keep() -> None:
            counter = 1
            while not beating.wait(0.5):
                lease = Lease(counter=(counter := counter + 1), every_s=1, expires_after_s=6)
                store.put_message(context.layout.lease(1), lease)

        keeper = threading.Thread(target=keep)
        keeper.start()
        try:
            workers = await Ec2Fleet().acquire(context)
            wait_for(lambda: len(hosts) == len(workers))
            found = [await commands_found(context, worker) for worker in workers]
            assert sorted(found) == sorted(
                [str(host / "power" / one) for one, *_ in COMMANDS] for host in hosts
            )
            await start_agents(context, workers)
            agents = [one for host in hosts for one in agents_below(host)]
            assert len(agents) == len(context.workers)
            # While the lease is raised nobody is powered off: nor must this machine ever be.
            for host in hosts:
                for agent in agents_below(host):
                    assert_only_noted(agent, host / "power")
            assert not any(powered_off(host) for host in hosts)
        except BaseException:
            for host in hosts:
                for process in (*supervisors_below(host), *agents_below(host)):
                    process.kill()
            raise
        finally:
            beating.set()
            keeper.join()
        wait_for(lambda: all(powered_off(host) for host in hosts), within_s=60)
        wait_for(lambda: not [one for one in account.left() if one.startswith("i-")])
        assert {powered_off(host) for host in hosts} == {"systemctl poweroff"}
        wait_for(lambda: not any(agent.is_running() for agent in agents))
        left = [one.kind for one in find_resources(account.client, context.run_id)]
        assert left == ["launch template", "key pair", "security group"]  # these cost nothing


async def commands_found(context: RunContext, worker: Worker) -> list[str]:
    """Return where a login, which is how agents are started, finds what would end a machine."""
    looks = "".join(f"command -v {command}\n" for command, *_ in COMMANDS)
    async with await connect(Host.from_text(worker.where), Ec2Fleet().access(context)) as remote:
        return (await remote.run_script(looks, [], within_s=20, doing="look")).split()


def assert_only_noted(agent: psutil.Process, stand_ins: Path) -> None:
    """Hold that an agent finds no command that would really end this machine."""
    path = agent.environ()["PATH"]
    for command, *_ in COMMANDS:
        assert shutil.which(command, path=path) == str(stand_ins / command), path


def agents_below(host: Path) -> list[psutil.Process]:
    """Return the agents of a host."""
    return _processes(host, "agent.pid")


def supervisors_below(host: Path) -> list[psutil.Process]:
    """Return what starts a host's agents again when they die."""
    return _processes(host, "supervisor.pid")


def _processes(host: Path, name: str) -> list[psutil.Process]:
    files = (host / "prefix" / "runs").rglob(name)
    pids = [int(file.read_text(encoding="utf-8")) for file in files]
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return [one for one in found if any(str(host) in word for word in one.cmdline())]


async def test_a_machines_own_limit_ends_it(
    tmp_path: Path, account: Account, store_address: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing that a rented machine does at its boot ends it in time, with nobody's help.

    No agent was ever started on it, and nobody else looks.
    """
    context = context_of(tmp_path, account, store_address)
    monkeypatch.setattr(ec2, "AROUND_S", 2.0 - context.scenario.duration_s)
    await Ec2Fleet().acquire(context)
    (command,) = account.user_data()["bootcmd"]
    ended = tmp_path / "ended"
    stands_in = tmp_path / "bin"
    stands_in.mkdir()
    for name, does in (("systemd-run", "exit 1"), ("poweroff", f'echo "$@" > {ended}')):
        (stands_in / name).write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        (stands_in / name).chmod(0o755)
    for name in ("sh", "date", "sleep", "setsid"):  # and nothing that could end this machine
        (stands_in / name).symlink_to(str(shutil.which(name)))
    boots = await asyncio.create_subprocess_exec(*command, env={"PATH": str(stands_in)})
    assert await boots.wait() == 0
    wait_for(ended.exists)
    wait_for(lambda: ended.read_text().strip() == "-f")
    assert await Ec2Fleet().release(context) == []
