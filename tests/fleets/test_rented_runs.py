"""Deployed runs on rented machines, from `prefect deployment run` to an account that is empty."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tasks.local_services import free_port
from tests.command_line import SHORT
from tests.fleets.emulated_ec2 import Account, powered_off
from tests.fleets.ssh_hosts import needs_sshd
from tests.test_up import api_of, relay_of, run_deployment, started


@needs_sshd
@pytest.mark.flow
@pytest.mark.browser
@pytest.mark.timeout(500)
@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["baseline", "heavy"])
def test_a_deployed_run_on_rented_machines(
    tmp_path: Path, account: Account, worker_environment: Path, scenario: str
) -> None:
    """Machines are rented, deployed to over pinned SSH, loaded with, billed, and all given back.

    The run is that of `prefect.yaml`, shortened; the relay is the one that `up` has.
    """
    ports = ["--port", str(free_port()), "--relay-port", str(free_port())]
    with (
        started(tmp_path, *ports, variables=account.variables()) as (up, log),
        account.hypervisor(tmp_path / "hosts", environment=worker_environment) as hosts,
    ):
        api, relay = api_of(up, log), relay_of(log)
        shortened = {
            **SHORT,
            **account.fleet(),
            "phases.warmup.connections": 4,
            "fleet.workers": 2,
            "connections_per_document": 3,
        }
        run_deployment(
            tmp_path, api, f"relay-load/{scenario}", relay_url=relay, overrides=shortened
        )
        assert account.left() == []
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    assert len(hosts) == 2
    for host in hosts:
        assert not (host / "prefix" / "runs").exists()
        assert not powered_off(host)
    [file] = tmp_path.glob(f"results/{scenario}-*/summary.json")
    summary = json.loads(file.read_text(encoding="utf-8"))
    assert summary["verdict"] == "passed"
    assert summary["connections"]["peak"] == 6
    assert [worker["worker"] for worker in summary["workers"]] == ["worker-1", "worker-2"]
    assert 0 < summary["cost"]["actual_usd"] < 0.05
    said = (tmp_path / "results" / "prefect" / "worker.log").read_text(encoding="utf-8")
    assert "estimate: about $" in said
