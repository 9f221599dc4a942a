"""What was asked of the cloud: each intent before its call, and what came of it after."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from run_store.layout import RunLayout
from run_store.store import Store
from tasks.fleets.ec2_resources import Resource


class Asked(BaseModel):
    """One call that creates. Without `resources` its outcome is not known."""

    number: int
    attempt: int
    call: str
    token: str
    region: str
    resources: list[dict[str, Any]] = []


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

    def intend(self, call: str, token: str) -> Asked:
        """Record a call that is about to be made; raises StoreError, and then it is not made."""
        self._number += 1
        asked = Asked(
            number=self._number,
            attempt=self._attempt,
            call=call,
            token=token,
            region=self._region,
        )
        self._store.put_message(self._key(asked), asked)
        return asked

    def got(self, asked: Asked, *resources: Resource) -> None:
        """Record what a call created."""
        asked.resources = [{"kind": one.kind, "id": one.id} for one in resources]
        self._store.put_message(self._key(asked), asked)

    def entries(self) -> list[Asked]:
        """Return every call of every attempt of the run."""
        keys = [key for key in self._store.keys(f"{self._root}attempt=") if "/cloud/" in key]
        read = (self._store.get_message(key, Asked) for key in keys)
        return [asked for asked in read if asked is not None]

    def resources(self) -> list[Resource]:
        """Return what the records say was created."""
        return [
            Resource(kind=one["kind"], id=one["id"])
            for asked in self.entries()
            for one in asked.resources
        ]

    def _key(self, asked: Asked) -> str:
        return f"{self._root}attempt={asked.attempt}/cloud/{asked.number:04d}-{asked.call}.json"
