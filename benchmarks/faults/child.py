"""`python -m benchmarks.faults.child JSON`: the flow, called plainly, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys

INTERRUPTED = 130


def main() -> int:
    """Run the flow with the parameters given; return the exit code that the commands have."""
    try:
        # Inside, since Ctrl-C may come while this takes its seconds.
        from flows.relay_load import relay_load  # noqa: PLC0415
        from run_store.errors import RelayLoadError  # noqa: PLC0415

        try:
            asyncio.run(relay_load(**json.loads(sys.argv[1])))
        except RelayLoadError as error:
            print("ENDED WITH", type(error).__name__, error, flush=True)
            return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
