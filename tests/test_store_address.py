"""A store named by a block of Prefect's."""

from __future__ import annotations

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_aws import AwsClientParameters, AwsCredentials
from prefect_aws.s3 import S3Bucket
from pydantic import SecretStr

from flows.relay_load import wanted_from
from run_store.errors import UsageError
from run_store.store import Store, StoreAddress
from tasks.store_address import store_address as named_store


async def test_a_block_brings_bucket_folder_endpoint_and_keys(
    store_address: StoreAddress, prefect_api: str
) -> None:
    """An S3Bucket block opens the same store as its bucket, endpoint and keys would."""
    bucket = store_address
    keys = bucket.secrets()
    assert keys is not None
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        await S3Bucket(
            bucket_name=bucket.bucket,
            bucket_folder="team/load",
            credentials=AwsCredentials(
                aws_access_key_id=keys[0],
                aws_secret_access_key=SecretStr(keys[1]),
                aws_client_parameters=AwsClientParameters(endpoint_url=bucket.endpoint_url),
            ),
        ).asave("load-store")
        address = await named_store("block:load-store")
        with pytest.raises(UsageError, match="no S3Bucket block called 'nowhere'"):
            await named_store("block:nowhere")
    assert address.url == f"s3://{bucket.bucket}/team/load"
    assert keys[1] not in repr(address)
    Store(address).check()


def test_a_deployed_run_finds_its_store_where_its_worker_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RELAY_LOAD_STORE counts as for the commands, and a parameter before it."""
    monkeypatch.setenv("RELAY_LOAD_STORE", "s3://of-the-worker/load")
    assert wanted_from("", scenario="local", store=None).store == "s3://of-the-worker/load"
    assert wanted_from("", scenario="local", store="s3://asked").store == "s3://asked"
