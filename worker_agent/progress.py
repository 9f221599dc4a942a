"""How far this worker has come in an attempt, on disk for the agent that may follow this one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from run_store.messages import PhaseDone
from run_store.store import write_private

log = logging.getLogger(__name__)


class Progress(BaseModel):
    """The orders that were begun, by number, and those that are done and shipped."""

    begun: list[int] = []
    done: list[PhaseDone] = []

    def is_done(self, order: int) -> bool:
        """Say whether an order was carried out and its samples shipped."""
        return any(one.order == order for one in self.done)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read what `to_file` wrote; nothing was begun if there is no such file."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            # At worst an order is taken up again that was done; its samples are kept apart.
            log.warning("%s cannot be read: %s", path, error)
            return cls()

    def to_file(self, path: Path) -> None:
        """Write it whole or, where the disk has no room, not at all."""
        try:
            write_private(path, self.model_dump_json())
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error)
