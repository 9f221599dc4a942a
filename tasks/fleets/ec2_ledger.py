"""What was asked of the cloud: each intent before its call, and what came of it after.

EC2 may neither list nor know what it has just made, for seconds and sometimes longer. So what was
asked for lately counts as not yet gone until it has been seen or `SETTLES_WITHIN_S` is over; a
call of which no answer was recorded counts so for all of that time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel

from run_store.errors import FleetError, StoreError
from run_store.layout import RunLayout
from run_store.store import Store
from tasks.fleets.ec2_resources import Resource
from tasks.instants import now_us

log = logging.getLogger(__name__)

SETTLES_WITHIN_S = 90.0
"""Longer than EC2 takes to know everywhere what it has made: seconds as a rule."""
_REFUSED = range(400, 500)


class Asked(BaseModel):
    """One call that creates. Unless it is `answered`, its outcome is not known.

    `settled` says that all that it made has been seen since.
    """

    number: int
    attempt: int
    call: str
    token: str
    region: str
    asked_us: int = 0
    answered: bool = False
    settled: bool = False
    resources: list[dict[str, Any]] = []

    @property
    def made(self) -> list[Resource]:
        """What the call is known to have made."""
        return [Resource(kind=one["kind"], id=one["id"]) for one in self.resources]


class Ledger:
    """The calls of one attempt, as objects below it in the bucket.

    They are objects of their own and not part of `run.json`, which the flow rewrites as a whole.
    """

    def __init__(self, store: Store, run_id: str, attempt: int, region: str) -> None:
        self._store = store
        self._root = RunLayout(run_id).root
        self._attempt = attempt
        self._region = region
        self._number = 0
        self._is_closed = threading.Event()

    def close(self) -> None:
        """Have no further call made: what it creates would appear behind the release."""
        self._is_closed.set()

    @contextlib.contextmanager
    def asking(self, call: str, token: str) -> Iterator[Asked]:
        """Record a call that is about to be made; raises StoreError, and then it is not made.

        A call that EC2 refused made nothing, and that is recorded; any other error leaves open
        what became of it. Raises FleetError once the ledger is closed.
        """
        if self._is_closed.is_set():
            raise FleetError(f"The run was ended while it rented: {call} was not called.")
        self._number += 1
        asked = Asked(
            number=self._number,
            attempt=self._attempt,
            call=call,
            token=token,
            region=self._region,
            asked_us=now_us(),
        )
        self._store.put_message(self._key(asked), asked)
        try:
            yield asked
        except FleetError as error:
            if not asked.answered and _was_refused(error):
                self.got(asked)
            raise

    def got(self, asked: Asked, *resources: Resource) -> None:
        """Record what a call created."""
        asked.answered = True
        asked.resources = [{"kind": one.kind, "id": one.id} for one in resources]
        self._store.put_message(self._key(asked), asked)

    def entries(self) -> list[Asked]:
        """Return every call of every attempt of the run."""
        keys = [key for key in self._store.keys(f"{self._root}attempt=") if "/cloud/" in key]
        read = (self._store.get_message(key, Asked) for key in keys)
        return [asked for asked in read if asked is not None]

    def go_on_behind(self, entries: Sequence[Asked]) -> None:
        """Number what is asked from now on behind these calls, which another process may have made.

        An entry that had the number of an earlier one would take its place.
        """
        own = (one.number for one in entries if one.attempt == self._attempt)
        self._number = max(own, default=0)

    def settle(self, entries: Sequence[Asked], seen: Collection[str]) -> None:
        """Record of which calls all that they made has been seen, for whoever looks next."""
        for asked in entries:
            if asked.answered and not asked.settled and {one.id for one in asked.made} <= set(seen):
                asked.settled = True
                try:
                    self._store.put_message(self._key(asked), asked)
                except StoreError as error:
                    log.warning("that it was seen what %s made is not noted: %s", asked.call, error)

    def _key(self, asked: Asked) -> str:
        return f"{self._root}attempt={asked.attempt}/cloud/{asked.number:04d}-{asked.call}.json"


def may_appear(entries: Sequence[Asked], seen: Collection[str], *, now_s: float) -> list[str]:
    """Name what may be there although EC2 does not know it: asked for lately and never seen."""
    young = [
        one for one in entries if not one.settled and now_s - one.asked_us / 1e6 < SETTLES_WITHIN_S
    ]
    return [f"what {one.call} may have made" for one in young if not one.answered] + [
        str(made) for one in young for made in one.made if made.id not in seen
    ]


def _was_refused(error: FleetError) -> bool:
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return False
    if cause.response["Error"]["Code"].endswith(".Duplicate"):
        return False  # a first try of the same call made it, and its answer was lost
    return cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) in _REFUSED
