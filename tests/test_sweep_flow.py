from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Running

from flows import sweep as sweep_module
from flows.sweep import RUN_TAIL, running_by_lease, sweep
from run_store.errors import StoreError
from run_store.store import Store
from tasks.local_services import local_store
from tests.silent_run import put_silent_run

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_api")]


@flow(name="a-load")
def a_load(store: str | None = None) -> None:
    """Stand for a run of a deployment whose heartbeat has stopped."""


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "RELAY_LOAD_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        sweep_module, "running_by_lease", lambda store: running_by_lease(store, watch_s=0.1)
    )


def begun(store: str | None = None) -> uuid.UUID:
    """Return a flow run that is running as far as Prefect knows."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(a_load, parameters={"store": store}, state=Running())
    return run.id


def state_of(identity: uuid.UUID) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(identity).state
    return (state.name if state else None) or ""


def put_running(results: Path, identity: uuid.UUID, *, has_lease: bool = True) -> None:
    """Put the flow run's run into the local store: it says that it is running, and is silent."""
    with local_store(results) as address:
        run_id = f"local-{identity.hex[-RUN_TAIL:]}"
        put_silent_run(Store(address), run_id, has_lease=has_lease)


def test_a_run_whose_heartbeat_stopped_is_crashed_if_its_lease_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody raises the lease, its process is gone, and Prefect's slot is to be free."""
    monkeypatch.setenv("RELAY_LOAD_RESULTS", str(tmp_path))
    dead = begun()
    put_running(tmp_path, dead)
    sweep(flow_run=f"prefect.flow-run.{dead}")
    assert state_of(dead) == "Crashed"


@pytest.mark.parametrize("known", ["not at all", "without a lease"])
def test_a_run_of_which_nothing_is_known_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """It may live: this store may be another than its own, or its load is yet to begin."""
    monkeypatch.setenv("RELAY_LOAD_RESULTS", str(tmp_path))
    unknown = begun()
    put_running(tmp_path, unknown if known == "without a lease" else uuid.uuid4(), has_lease=False)
    assert sweep(flow_run=str(unknown)) == []
    assert state_of(unknown) == "Running"


def test_a_run_is_looked_for_in_the_store_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the sweep's own store says is of another run: here, that it is dead."""
    monkeypatch.setenv("RELAY_LOAD_RESULTS", str(tmp_path))
    elsewhere = begun("s3://nobodys-bucket/")
    put_running(tmp_path, elsewhere)
    with pytest.raises(StoreError):
        sweep(flow_run=str(elsewhere))
    assert state_of(elsewhere) == "Running"
