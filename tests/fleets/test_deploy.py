"""What may hinder a deployment, and that many hosts take no longer than one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from run_store.errors import FleetError
from run_store.store import StoreAddress
from tasks.deploy import start_agents
from tasks.fleets.remote import Host
from tasks.fleets.ssh import SshFleet
from tests.command_line import relay_load
from tests.fleets.ssh_hosts import NO_INDEX, SshHost, needs_root, needs_sshd, ssh_host
from tests.fleets.test_ssh import context_of, public

pytestmark = needs_sshd
FEDORA = 'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43 (Server Edition)"\n'
BOOKWORM = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
BULLSEYE = 'ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n'
JAMMY = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n'
STEP_S = 0.25
HOSTS = 8


def holds_something(host: SshHost) -> bool:
    """Look with the host's own eyes: what is mounted for it is seen by it alone."""
    return Path(f"/proc/{host.process.pid}/root{host.prefix}").exists()


@needs_root
async def test_hosts_that_cannot_be_deployed_to_say_why(
    tmp_path: Path,
    user_key: Path,
    store_address: StoreAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another system, an old one, a full disk, no package index: each is named, with a way out.

    The run ends before any load, and nothing of ours stays on any of the hosts.
    """
    monkeypatch.setattr("tasks.fleets.ssh.TRIES", 1)
    bad: dict[str, dict[str, Any]] = {
        "fedora": {"system": FEDORA},
        "bullseye": {"system": BULLSEYE},
        "jammy": {"system": JAMMY},
        "full": {"system": BOOKWORM, "disk_mb": 64},
        "cut-off": {"environment": NO_INDEX},
    }
    with contextlib.ExitStack() as stack:
        hosts = [
            stack.enter_context(
                ssh_host(
                    tmp_path / name,
                    f"127.0.1.{number + 11}",
                    user_key=public(user_key),
                    prefix=tmp_path / name / "disk" / "prefix",
                    **what,
                )
            )
            for number, (name, what) in enumerate(bad.items())
        ]
        context = context_of(
            tmp_path,
            *(host.text for host in hosts),
            key=user_key,
            pinned=tuple(host.pinned for host in hosts),
            address=store_address,
        )
        fleet = SshFleet()
        workers = await fleet.acquire(context)
        try:
            with pytest.raises(FleetError, match=r"Only 0 of 5 workers became ready") as failed:
                await start_agents(context, workers)
        finally:
            assert await fleet.release(context) == []
        assert [host.address for host in hosts if holds_something(host)] == []
    assert failed.value.exit_code == 1
    fedora, bullseye, jammy, full, cut_off = failed.value.message.split("could not be deployed")[1:]
    assert "this system is Fedora Linux 43 (Server Edition); workers run on Debian 12" in fedora
    assert "this system is Debian GNU/Linux 11 (bullseye)" in bullseye
    assert "this system is Ubuntu 22.04.5 LTS" in jammy
    assert "the disk is full: 64 MiB are free" in full
    assert "1200 MiB are needed" in full
    assert "Could not find a version" in cut_off
    assert "does this host reach its package index? If not, deploy to it with --whe" in cut_off


@needs_root
def test_the_doctor_tells_how_it_stands_with_each_host(tmp_path: Path, user_key: Path) -> None:
    """A host that will do is described, another is named with its remedy; nothing is made there."""
    with (
        ssh_host(tmp_path / "a", "127.0.1.31", user_key=public(user_key), system=BOOKWORM) as good,
        ssh_host(tmp_path / "b", "127.0.1.32", user_key=public(user_key), system=FEDORA) as bad,
    ):
        known = tmp_path / "known_hosts"
        known.write_text(f"{good.known}\n{bad.known}\n", encoding="utf-8")
        hosts = [word for host in (good, bad) for word in ("--host", host.text)]
        keys = ("--ssh-key", str(user_key), "--known-hosts", str(known))
        looked = relay_load("doctor", "local", *hosts, *keys, "--json", cwd=tmp_path)
        told = {row["name"]: row for row in json.loads(looked.out)}
        assert looked.code == 1
        assert told["hosts"]["said"] == "2 are named"
        assert told[f"host {good.text}"]["state"] == "ok"
        assert told[f"host {good.text}"]["said"].startswith("Debian GNU/Linux 12 (bookworm), ")
        assert "Fedora Linux 43" in told[f"host {bad.text}"]["said"]
        assert "Ubuntu 24.04" in told[f"host {bad.text}"]["remedy"]
        assert not good.prefix.exists()


class SlowRemote:
    """A host on which each step takes the same time, and nothing is done.

    On real ones eight agents' start would cost this machine's cores more than any step waits.
    """

    is_open = True
    steps: ClassVar[Counter[str]] = Counter()
    at_once: ClassVar[Counter[str]] = Counter()
    most_at_once: ClassVar[int] = 0

    def __init__(self, host: Host) -> None:
        self.host = host

    async def run_script(self, _script: str, arguments: Sequence[str], **_: object) -> str:
        """Answer as a prepared host does."""
        await self._step()
        answers = {
            "folder": f"/relay-load/{arguments[-1]}",
            "look": "environment=yes\napplication=yes",
            "chromium": "/usr/bin/chromium",
        }
        return answers.get(arguments[0], "")

    async def put(self, _files: object, **_: object) -> None:
        """Take files."""
        await self._step()

    async def close(self) -> None:
        """Nothing is open."""

    async def _step(self) -> None:
        self.steps[self.host.address] += 1
        self.at_once[self.host.address] += 1
        SlowRemote.most_at_once = max(self.most_at_once, self.at_once.total())
        await asyncio.sleep(STEP_S)
        self.at_once[self.host.address] -= 1


async def test_eight_hosts_take_no_longer_than_one(
    tmp_path: Path,
    user_key: Path,
    store_address: StoreAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where each step to a host takes its time, hosts take their steps together."""

    async def connected(host: Host, _access: object) -> SlowRemote:
        await asyncio.sleep(STEP_S)
        return SlowRemote(host)

    monkeypatch.setattr("tasks.fleets.ssh.connect", connected)
    names = [f"root@127.0.2.{number + 1}" for number in range(HOSTS + 1)]
    context = context_of(tmp_path, *names, key=user_key, address=store_address)
    fleet = SshFleet()
    first, *eight = await fleet.acquire(context)
    await fleet.deploy(context, first)  # builds the wheel that is copied to all
    assert SlowRemote.most_at_once == 1
    await asyncio.gather(*(fleet.deploy(context, worker) for worker in eight))
    assert SlowRemote.most_at_once == HOSTS
    done = SlowRemote.steps.pop("127.0.2.1")
    assert done >= 6
    assert SlowRemote.steps == {f"127.0.2.{number + 2}": done for number in range(HOSTS)}
