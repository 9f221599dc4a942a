from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from flows.sweep import find_leftovers, regions_of, remove_leftovers
from run_store.errors import UsageError
from run_store.store import StoreAddress
from tasks.fleets import ec2_ledger
from tasks.fleets.aws_account import session_of
from tasks.fleets.ec2 import Ec2Fleet
from tasks.fleets.ec2_checks import account_checks
from tasks.fleets.ec2_prices import current_prices, has_account
from tests.fleets.emulated_ec2 import REGION, Account
from tests.fleets.test_ec2 import context_of

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_api")]
BLOCK = "load-test-account"


@pytest.fixture
async def only_a_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Keep credentials in a block of Prefect's, and nowhere else; return its name."""
    keys = AwsCredentials(
        aws_access_key_id="in-the-block", aws_secret_access_key=SecretStr("not-shown-anywhere")
    )
    await keys.save(BLOCK, overwrite=True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return BLOCK


async def test_all_that_is_asked_of_aws_goes_by_the_block(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    account: Account,
    store_address: StoreAddress,
    only_a_block: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a block named and no other credentials: rented, priced, checked, found, given back."""
    block = only_a_block
    # The sweep removes here what the release then looks for as long as it may yet appear.
    monkeypatch.setattr(ec2_ledger, "SETTLES_WITHIN_S", 2.0)
    context = context_of(tmp_path, account, store_address, aws_credentials_block=block)
    fleet = context.scenario.fleet
    assert not has_account()
    assert has_account(block)
    credentials = session_of(block).get_credentials()
    assert credentials is not None
    assert credentials.access_key == "in-the-block"
    try:
        assert len(await Ec2Fleet().acquire(context)) == 2
        assert "spot price history" in current_prices(fleet).source
        states = {check.name: check.state for check in account_checks(fleet)}
        assert (states["credentials"], states["permissions"]) == ("ok", "ok")
        found = find_leftovers(
            await asyncio.to_thread(regions_of, REGION, block=block),
            run_id=context.run_id,
            is_running=lambda _: False,
            block=block,
        )
        assert remove_leftovers(found, block=block) == []
        assert account.left() == []
    finally:
        assert await Ec2Fleet().release(context) == []
    shown = f"{context!r} {session_of(block)!r} {json.dumps(caplog.messages)}"
    assert "not-shown-anywhere" not in shown


async def test_a_block_that_is_not_there_is_named(
    tmp_path: Path, account: Account, store_address: StoreAddress
) -> None:
    """A name that no block has is told, with what to do, and the checks go on without it."""
    context = context_of(tmp_path, account, store_address, aws_credentials_block="nobodys")
    with pytest.raises(UsageError, match="no AwsCredentials block called 'nobodys'") as failed:
        await Ec2Fleet().acquire(context)
    assert "under Blocks" in failed.value.hint
    first, *others = account_checks(context.scenario.fleet)
    assert (first.state, {check.state for check in others}) == ("failed", {"skipped"})
    assert account.left() == []
