"""Where a store is, as users name it: `s3://bucket/prefix`, or a block of Prefect's."""

from __future__ import annotations

from typing import cast

from prefect_aws import AwsCredentials
from prefect_aws.s3 import S3Bucket
from pydantic import SecretStr

from run_store.errors import UsageError
from run_store.store import StoreAddress

BLOCK = "block:"


async def store_address(named: str) -> StoreAddress:
    """Return the address of `s3://bucket/prefix`, or of `block:NAME`, an S3Bucket block.

    For the former, endpoint and keys come from the usual AWS places; a block brings its own, or
    leaves them to the same places. Raises UsageError if there is no such store or block.
    """
    if not named.startswith(BLOCK):
        return StoreAddress.from_url(named)
    name = named.removeprefix(BLOCK)
    try:
        block = cast("S3Bucket", await S3Bucket.aload(name))
    except ValueError as error:
        raise UsageError(
            f"Prefect has no S3Bucket block called {name!r}.",
            hint="Make one in its UI under Blocks, or give --store s3://bucket/prefix.",
        ) from error
    credentials = block.credentials
    folder = block.bucket_folder.strip("/")
    secret = credentials.aws_secret_access_key if isinstance(credentials, AwsCredentials) else None
    return StoreAddress(
        bucket=block.bucket_name,
        prefix=f"{folder}/" if folder else "",
        endpoint_url=credentials.aws_client_parameters.endpoint_url or None,
        region=credentials.region_name,
        access_key=_secret(getattr(credentials, "aws_access_key_id", None)) if secret else None,
        secret_key=secret,
        session_token=_secret(getattr(credentials, "aws_session_token", None)) if secret else None,
    )


def _secret(text: str | SecretStr | None) -> SecretStr | None:
    return SecretStr(text) if isinstance(text, str) else text
