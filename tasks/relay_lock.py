"""One run at a time for one relay: a lock in the bucket.

The lock is Lamport's bakery: whoever wants a relay writes a claim of its own, first with number 0
("choosing"), then with one more than the highest that it read; the lowest number has the relay,
and nobody goes ahead of one that is still choosing. It needs nothing of the store but that a
written object is read and listed by everybody from then on, which S3 promises; conditional
writes, which not every S3 server knows, are not used.

    locks/relay/<host>-<port>/<run-id>.<8 characters>.json

A claim carries a counter that its owner keeps raising. One that stood still for
`EXPIRES_AFTER_S` of the reader's own clock has no owner any more, and is deleted by whoever waits
for it. An owner that finds its claim gone, or could not raise it for so long, has lost the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self
from urllib.parse import urlsplit

from run_store.errors import DeadlineError, InterruptedRunError, StoreError
from run_store.layout import RunLayout, relay_claims
from run_store.messages import RelayClaim
from run_store.store import Store
from tasks.beats import Beats
from tasks.instants import now_us
from tasks.observation import current_observer
from tasks.prefect_slot import prefect_slot
from tasks.preflight import is_loopback
from tasks.run_context import RunContext
from tasks.threads import to_its_end

log = logging.getLogger(__name__)

EVERY_S = 3.0
EXPIRES_AFTER_S = 45.0
"""Longer than an agent's lease: when a claim expires, its run's load has ended."""
LOOK_EVERY_S = 1.0
WAITS_AT_MOST_S = 6 * 3600.0
STORE_AWAY_AT_MOST_S = 300.0
"""How long one that waits bears a store that does not answer."""
_SAY_EVERY_S = 60.0
_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}


def relay_name(relay_url: str) -> str:
    """Return a relay's name, `host-port`, alike for all ways to write it.

    One on loopback is named with its machine: others that share the bucket have their own.
    """
    parts = urlsplit(relay_url)
    host = (parts.hostname or "").lower()
    port = parts.port or _PORTS.get(parts.scheme, 0)
    if is_loopback(host):
        return f"{platform.node().lower()}.loopback-{port}"
    return f"{host.replace(':', '.')}-{port}"


def ahead_of(own: RelayClaim, others: Sequence[RelayClaim]) -> list[RelayClaim]:
    """Return the claims that come before one's own, the relay's holder first.

    Those that are still choosing (number 0) may come before it, and are waited for.
    """
    return sorted(
        (c for c in others if c.number == 0 or (c.number, c.token) < (own.number, own.token)),
        key=lambda claim: (claim.number == 0, claim.number, claim.token),
    )


class RelayLock:
    """A run's claim to a relay; an `async with` waits until it is the first, and gives it back.

    Whom `on_lost` names is told if the relay is lost meanwhile. Raises StoreError if the
    store does not answer, DeadlineError after `within_s`, InterruptedRunError if the run is asked
    to stop while it waits.
    """

    def __init__(
        self,
        store: Store,
        relay_url: str,
        run_id: str,
        *,
        within_s: float = WAITS_AT_MOST_S,
        expires_after_s: float = EXPIRES_AFTER_S,
        every_s: float = EVERY_S,
    ) -> None:
        self._when_lost: Callable[[str], None] = lambda _: None
        self._store = store
        self._relay = relay_url
        self._folder = relay_claims(relay_name(relay_url))
        self._run_id = run_id
        self._within_s = within_s
        self._expires_after_s = expires_after_s
        self._every_s = every_s
        self._claim = RelayClaim(token=secrets.token_hex(4), run_id=run_id, since_us=now_us())
        self._key = _key(self._folder, self._claim)
        self._beats = Beats()
        self._raised_at = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._is_lost = self._holds = False
        self._answered_at = time.monotonic()
        self._seen: set[str] = set()

    async def __aenter__(self) -> Self:
        try:
            await self._choose()
            self._keeper = asyncio.create_task(self._keep(), name="relay claim")
            await self._wait()
        except BaseException:
            await self.give_up()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.give_up()

    def on_lost(self, then: Callable[[str], None]) -> None:
        """Have `then` called with a reason when the relay is lost; at once if it was already."""
        self._when_lost = then
        if self._is_lost and self._holds:
            then(self._reason)

    async def give_up(self) -> None:
        """Take the claim back; a store that is away only delays the others."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        async with self._writing:  # a claim that is just being raised must not come back
            with contextlib.suppress(StoreError):
                await asyncio.to_thread(self._store.delete, self._key)

    async def _choose(self) -> None:
        """Take a number behind all others."""
        self._claim.number = 0
        await self._write()
        others = await asyncio.to_thread(self._others)
        self._claim.number = 1 + max((claim.number for claim in others), default=0)
        await self._write()

    async def _wait(self) -> None:
        """Return when nobody is ahead any more."""
        deadline, said, said_at = time.monotonic() + self._within_s, "", 0.0
        while True:
            try:
                # Whoever was asked to stop takes no turn that has come meanwhile.
                await refuse_if_stopped(self._store, self._run_id)
                ahead = await self._look()
            except StoreError as error:
                if time.monotonic() - self._answered_at > STORE_AWAY_AT_MOST_S:
                    raise
                log.warning("nothing is known of the relay's lock: %s", error)
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            if not ahead:
                self._holds = True
                return
            holder, now = ahead[0].run_id, time.monotonic()
            if now > deadline:
                raise DeadlineError(
                    f"The relay {self._relay} was not free within {self._within_s:g} s: "
                    f"run {holder} holds it.",
                    hint=f"Wait for its end, or end it: relay-load stop {holder}",
                )
            if holder != said or now - said_at > _SAY_EVERY_S:
                said, said_at = holder, now
                text = f"waiting for the relay {self._relay}: run {holder} is loading it"
                log.info("%s", text)
                current_observer().step("prepare", text)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> list[RelayClaim]:
        """Return the claims ahead whose owners live."""
        if self._is_lost:
            await self._choose()
            self._is_lost = False
        began = time.monotonic()
        try:
            others = await asyncio.to_thread(self._others)
        except StoreError:
            for token in self._seen:
                self._beats.store_silent(token)
            raise
        self._answered_at = time.monotonic()
        took_s = self._answered_at - began
        self._seen = {claim.token for claim in others}
        return [c for c in ahead_of(self._claim, others) if not await self._has_expired(c, took_s)]

    async def _has_expired(self, claim: RelayClaim, took_s: float) -> bool:
        silent_s = self._beats.heard(claim.token, claim.counter, took_s=took_s)
        if silent_s <= self._expires_after_s:
            return False
        log.warning("the run %s no longer holds the relay: it is gone", claim.run_id)
        await asyncio.to_thread(self._store.delete, _key(self._folder, claim))
        return True

    async def _keep(self) -> None:
        """Raise the claim's counter until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                there = await asyncio.to_thread(self._store.get, self._key)
                late_s = time.monotonic() - self._raised_at
                if self._is_lost or there is None or late_s > self._expires_after_s:
                    self._lose()
                else:
                    raised_at = self._raised_at
                    await self._write()
                    # A write that took so long may stand where others had put the claim aside.
                    if time.monotonic() - raised_at > self._expires_after_s:
                        self._lose()
            except StoreError as error:
                log.warning("the claim to the relay could not be raised: %s", error)

    @property
    def _reason(self) -> str:
        return f"the relay {self._relay} may have been given to another run meanwhile"

    def _lose(self) -> None:
        """Take that others may hold the relay; one that still waits chooses a new number."""
        if not self._is_lost and self._holds:
            self._when_lost(self._reason)
        self._is_lost = True

    async def _write(self) -> None:
        async with self._writing:
            self._claim.counter += 1
            began = time.monotonic()
            await to_its_end(self._store.put_message, self._key, self._claim.model_copy())
            self._raised_at = began

    def _others(self) -> list[RelayClaim]:
        claims = _claims(self._store, self._folder)
        return [claim for claim in claims if _key(self._folder, claim) != self._key]


@contextlib.asynccontextmanager
async def turn_at_relay(context: RunContext, *, is_own: bool) -> AsyncIterator[RelayLock]:
    """Hold a run's relay for it alone: among this Prefect server's runs, and in the bucket.

    A relay that the run has started for itself is nobody else's, and nothing is held. Raises as
    RelayLock and `prefect_slot` do.
    """
    lock = RelayLock(context.store(), context.relay_url, context.run_id)
    if is_own:
        yield lock
        return
    name = f"relay-{relay_name(context.relay_url)}"
    store = context.store()

    async def still_waits() -> str:
        """Return who has the relay. Raises InterruptedRunError once nobody wants this run."""
        with contextlib.suppress(StoreError):
            await refuse_if_stopped(store, context.run_id)
            return await asyncio.to_thread(holder_of, store, context.relay_url)
        return ""

    async with prefect_slot(name, within_s=WAITS_AT_MOST_S, still_waits=still_waits), lock:
        yield lock


async def refuse_if_stopped(store: Store, run_id: str) -> None:
    """Raise InterruptedRunError if somebody asked for a run's end while it waits."""
    if await asyncio.to_thread(store.get, RunLayout(run_id).stop) is not None:
        raise InterruptedRunError("The run was asked to stop while it waited for its turn.")


def holder_of(store: Store, relay_url: str) -> str:
    """Return the run whose claim to a relay comes first, whether it lives or not; empty if none."""
    claims = [one for one in _claims(store, relay_claims(relay_name(relay_url))) if one.number]
    return min(claims, key=lambda claim: (claim.number, claim.token)).run_id if claims else ""


def free_relay(store: Store, relay_url: str, run_id: str) -> None:
    """Take back whatever claims a run has to a relay, once its load has ended for certain."""
    folder = relay_claims(relay_name(relay_url))
    for claim in _claims(store, folder):
        if claim.run_id == run_id:
            store.delete(_key(folder, claim))


def _claims(store: Store, folder: str) -> list[RelayClaim]:
    found = (store.get_message(key, RelayClaim) for key in store.keys(folder))
    return [claim for claim in found if claim is not None]


def _key(folder: str, claim: RelayClaim) -> str:
    return f"{folder}{claim.run_id}.{claim.token}.json"
