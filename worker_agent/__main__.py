"""`python -m worker_agent --config FILE`: run one agent until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from run_store.agent_config import AgentConfig
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
        print(f"{arguments.config} is no agent config: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return asyncio.run(Agent(config).run())


if __name__ == "__main__":
    sys.exit(main())
