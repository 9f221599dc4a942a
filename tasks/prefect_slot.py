"""A slot of a global concurrency limit in Prefect, for as long as a flow holds it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

from run_store.errors import DeadlineError
from tasks.observation import current_observer

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""How long Prefect keeps the slot of a flow that was killed; it takes no less."""
ASK_EVERY_S = 5.0
SAY_EVERY_S = 60.0


@contextlib.asynccontextmanager
async def prefect_slot(
    name: str, *, within_s: float, still_waits: Callable[[], Awaitable[str]] | None = None
) -> AsyncIterator[None]:
    """Hold the one slot of a limit among the deployed runs of this Prefect server.

    `still_waits` is asked every few seconds: it returns which run has what is waited for, if that
    is known, and ends the waiting by what it raises.

    The limit is made if it is missing. Other runs take none: a server that lives no longer than
    they do never frees the slot of one that was killed. Raises DeadlineError; a Prefect that
    refuses or is away is only logged, since the bucket's lock is held.
    """
    from prefect.concurrency.asyncio import (  # noqa: PLC0415 - only a flow has it at hand
        AcquireConcurrencySlotTimeoutError,
        ConcurrencySlotAcquisitionError,
        concurrency,
    )
    from prefect.runtime import deployment  # noqa: PLC0415 - likewise

    if not deployment.id:
        yield
        return
    async with _let_go_if_possible(name) as held:
        deadline, said_at = time.monotonic() + within_s, float("-inf")
        while True:
            slot = concurrency(
                name,
                timeout_seconds=ASK_EVERY_S,
                lease_duration=LEASE_S,
                strict=True,
                raise_on_lease_renewal_failure=False,
            )
            try:
                await _ensure_limit(name)
                await held.enter_async_context(slot)
                break
            except AcquireConcurrencySlotTimeoutError:
                if time.monotonic() > deadline:
                    raise DeadlineError(
                        f"Prefect's limit {name} was not free within {within_s:g} s.",
                        hint=f"See who holds it: prefect gcl inspect {name}",
                    ) from None
                holder = await still_waits() if still_waits else ""
                if time.monotonic() - said_at > SAY_EVERY_S:
                    said_at = time.monotonic()
                    has = f"run {holder} has it" if holder else "another run has it"
                    text = f"waiting for a slot of Prefect's limit {name}: {has}"
                    current_observer().step("prepare", text)
            except (ConcurrencySlotAcquisitionError, httpx.HTTPError, OSError) as error:
                log.warning("Prefect's limit %s is not held: %s", name, error)
                break
        yield


@contextlib.asynccontextmanager
async def _let_go_if_possible(name: str) -> AsyncIterator[contextlib.AsyncExitStack]:
    """Give a stack whose end must not take the run's: Prefect frees a slot that nobody renews."""
    held = contextlib.AsyncExitStack()
    try:
        yield held
    finally:
        try:
            await held.aclose()
        except (httpx.HTTPError, OSError) as error:
            log.warning("Prefect's limit %s is not given back: %s", name, error)


async def _ensure_limit(name: str) -> None:
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - as above
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate  # noqa: PLC0415
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound  # noqa: PLC0415

    async with get_client() as client:
        try:
            await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with contextlib.suppress(ObjectAlreadyExists):
                await client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=name, limit=1)
                )
