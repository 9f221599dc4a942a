"""The AWS account of a run: an AwsCredentials block of Prefect's, or the usual chain."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import boto3

from run_store.credentials import session_with
from run_store.errors import UsageError

if TYPE_CHECKING:
    from prefect_aws import AwsCredentials


def session_of(block: str = "") -> boto3.session.Session:
    """Return a session with the credentials of a block; without a name, those of the usual chain.

    A block is read once in a process: giving back must not need Prefect's API. Raises UsageError
    if there is no such block.
    """
    return _block(block).get_boto3_session() if block else session_with(None)


@lru_cache
def _block(name: str) -> AwsCredentials:
    # Callers are threads and, in the sweep, a flow's own: a loop of its own serves all of them.
    # The context is copied because Prefect keeps the address of its API there.
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(context.run, asyncio.run, _loaded(name)).result()


async def _loaded(name: str) -> AwsCredentials:
    from prefect_aws import AwsCredentials  # noqa: PLC0415 - slow, and seldom needed

    try:
        return cast("AwsCredentials", await AwsCredentials.aload(name))
    except ValueError as error:
        raise UsageError(
            f"Prefect has no AwsCredentials block called {name!r}.",
            hint="Make one in its UI under Blocks, or leave out fleet.aws_credentials_block.",
        ) from error
