"""The store of runs that are there already: the one that is named, or the local one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from run_store.store import Store, StoreAddress
from tasks.local_services import local_store


@contextlib.contextmanager
def opened_store(url: str | None, results: Path) -> Iterator[Store | None]:
    """Open the store at `url`, or the local one in `results`; None if there is no local one yet.

    `url` is s3://bucket/prefix, or block:NAME. Raises UsageError or StoreError.
    """
    if url and url.startswith("block:"):
        # Prefect is slow to import, and reads its settings as it is.
        from tasks.store_address import store_address  # noqa: PLC0415

        yield Store(asyncio.run(store_address(url)))
    elif url:
        yield Store(StoreAddress.from_url(url))
    elif (results / "store").is_dir():
        with local_store(results) as address:
            yield Store(address)
    else:
        yield None
