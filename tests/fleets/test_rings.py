from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from flows.sweep import find_leftovers, remove_leftovers, running_by_lease
from run_store.messages import Attempt, Lease, RunRecord
from run_store.store import Store, StoreAddress
from tasks.fleets.ec2 import Ec2Fleet
from tasks.fleets.ec2_keys import Keys
from tasks.fleets.ec2_user_data import user_data
from tests.fleets.emulated_ec2 import REGION, Account
from tests.fleets.test_ec2 import context_of
from tests.waiting import wait_for


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


def test_a_machines_own_limit_ends_it(tmp_path: Path) -> None:
    """The first thing that a machine does at its boot ends it in time, with nobody's help."""
    keys = Keys(
        user_key=tmp_path / "key",
        user_public="u",
        host_private="h",
        host_public="h",
        fingerprint="f",
    )
    (command,) = json.loads(user_data(keys, time.time() + 1).partition("\n")[2])["bootcmd"]
    ended = tmp_path / "ended"
    stands_in = tmp_path / "bin"
    stands_in.mkdir()
    for name, does in (("systemd-run", "exit 1"), ("poweroff", f'echo "$@" > {ended}')):
        (stands_in / name).write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        (stands_in / name).chmod(0o755)
    for name in ("sh", "date", "sleep", "setsid"):  # and nothing that could end this machine
        (stands_in / name).symlink_to(str(shutil.which(name)))
    subprocess.run(command, env={"PATH": str(stands_in)}, check=True, timeout=10)
    wait_for(ended.exists)
    assert ended.read_text().strip() == "-f"
