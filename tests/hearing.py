"""An observer that keeps what it is told."""

from __future__ import annotations

import dataclasses

from tasks.observation import Silent


@dataclasses.dataclass
class Hearing(Silent):
    """Keeps the texts of steps and of warnings, in order."""

    steps: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def step(self, name: str, text: str) -> None:  # noqa: ARG002 - the protocol's
        """Keep it."""
        self.steps.append(text)

    def warn(self, text: str) -> None:
        """Keep it."""
        self.warnings.append(text)
