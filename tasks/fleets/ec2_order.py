"""What is rented, for whom, and until when: the name and the tags of everything that is made."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Any

from scenarios.model import FleetSpec
from tasks.fleets.ec2_resources import ATTEMPT, EXPIRES_AT, OWNER, RUN


@dataclass(frozen=True)
class Order:
    """What is rented for one attempt; `expires_at` is in seconds since the epoch.

    `relay_port` is the relay's, for the rule that lets the workers in there. `batch` tells the
    client tokens of what is rented later in the attempt from those of its beginning.
    """

    run_id: str
    attempt: int
    workers: int
    expires_at: float
    fleet: FleetSpec
    relay_port: int = 0
    batch: str = ""

    @property
    def name(self) -> str:
        """The name of everything that this attempt makes."""
        return f"relay-load-{self.run_id}-{self.attempt}"

    def tags(self, *kinds: str) -> list[Any]:
        """Return the tags as they are given when a resource of these kinds is made."""
        values = {
            RUN: self.run_id,
            ATTEMPT: str(self.attempt),
            EXPIRES_AT: str(int(self.expires_at)),
            OWNER: getpass.getuser(),
            "Name": self.name,
        }
        tags = [{"Key": key, "Value": value} for key, value in values.items()]
        return [{"ResourceType": kind, "Tags": tags} for kind in kinds]
