"""How long a load may take at the most: nothing waits for ever. A pure function."""

from __future__ import annotations

from scenarios.model import Scenario

AROUND_A_PHASE_S = 100.0
"""What a phase may need beside its length: an instant to begin at, and the last samples."""
AROUND_A_LOAD_S = 1200.0
"""What a whole load may need beside its phases: agents to be ready, a store that is away."""


def load_lasts_at_most_s(scenario: Scenario) -> float:
    """Return how long a load may take from its agents' start to its last sample, in seconds."""
    return scenario.duration_s + AROUND_A_PHASE_S * len(scenario.phases) + AROUND_A_LOAD_S
