"""What an agent is told when it is started; everything after that comes as orders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from run_store.store import StoreAddress, write_private


class AgentConfig(BaseModel):
    """One worker's part in one attempt of a run.

    `spool` is a folder on the worker's disk for samples that are not shipped yet.
    `chromium` names the browser; None searches for one. `power_off` lets the agent shut the
    machine down when its lease is over (only on machines that the run created).
    `lives_at_most_s` ends the agent whatever happens; `store_grace_s` is how long the load
    goes on while S3 does not answer. `metadata_url` is the metadata service that tells a rented
    machine of its end; None asks nobody. A page that holds more than `page_memory_mb` between
    two orders is replaced.
    """

    # An error's message must not quote the input: it may hold a secret.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    run_id: str
    attempt: int
    worker: str
    store: StoreAddress
    relay_url: str
    scenario: dict[str, Any]
    spool: Path
    chromium: str | None = None
    power_off: bool = False
    lives_at_most_s: float = 4 * 3600.0
    store_grace_s: float = 120.0
    order_poll_s: float = 0.5
    heartbeat_s: float = 1.0
    ship_every_s: float = 30.0
    metadata_url: str | None = None
    notice_poll_s: float = 5.0
    page_memory_mb: float = 1024

    def to_file(self, path: Path) -> None:
        """Write the config, with the store's secrets, to a file that only its owner can read."""
        plain = self.model_dump(mode="json")
        plain["store"] = self.store.plain()
        write_private(path, json.dumps(plain))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read what `to_file` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
