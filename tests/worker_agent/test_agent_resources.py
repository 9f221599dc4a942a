import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def sampled(sampling: str) -> dict[str, Any]:
    """Return what a process that has one child finds of the two."""
    printed = subprocess.run(
        [sys.executable, "-m", "tests.worker_agent.resource_use", sampling],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    ).stdout
    found = json.loads(printed)
    assert isinstance(found, dict)
    return found


def test_cpu_is_that_of_the_time_between_two_samples() -> None:
    """A busy core shows as such, of the agent and of its children, whatever thread asks."""
    found = sampled("between")
    usage = found["usage"]
    # The kernel counts in hundredths of a second.
    tick = 5.0
    for who in ("browser", "agent"):
        percent = usage[f"{who}_cpu_percent"]
        assert found["least_percent"][who] > 0
        assert found["least_percent"][who] - tick <= percent <= found["most_percent"][who] + tick
    both = (usage["browser_cpu_percent"] + usage["agent_cpu_percent"]) / found["cores"]
    assert both * 0.7 < usage["cpu_percent"] <= 100
    assert usage["rss_mb"] == pytest.approx(found["rss_mb"], rel=0.3)


def test_the_first_sample_counts_nothing_from_before() -> None:
    """What browsers used while they started is not taken for the first second's."""
    assert sampled("before")["usage"]["browser_cpu_percent"] < 100
