"""`python -m worker_agent --config FILE`: run one agent until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from run_store.agent_config import AgentConfig
from run_store.errors import RelayLoadError
from worker_agent.agent import Agent


def main() -> int:
    """Read the config and follow orders; return the exit code."""
    parser = argparse.ArgumentParser(prog="worker_agent", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="an AgentConfig as JSON")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        config = AgentConfig.from_file(arguments.config)
    except (OSError, ValueError) as error:
        print(f"{arguments.config} is no agent config: {error}", file=sys.stderr)  # noqa: T201 - nothing else is set up yet
        return 2
    try:
        agent = Agent(config)
    except RelayLoadError as error:
        print(error, file=sys.stderr)  # noqa: T201 - likewise
        return 1
    return asyncio.run(agent.run())


if __name__ == "__main__":
    sys.exit(main())
