"""Runs with real agents, Chromium, a local relay and S3, each played once for many tests.

Each scene is a function of a folder and the S3 server. It waits for what it needs to go on;
what has come of it is for the tests to judge. Scenes take their time with little work, so they
are played side by side.
"""

from collections.abc import Callable
from pathlib import Path

from tests.store_server import StoreServer
from tests.worker_agent.ending_scenes import abandoned, hasty, restart
from tests.worker_agent.outage_scenes import handshakes, no_documents, outages
from tests.worker_agent.plan_scenes import grown, late, plain

Scene = Callable[[Path, StoreServer], object]

SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (outages, plain, no_documents, handshakes, restart, abandoned, late, hasty, grown)
}
"""Every scene by its name, the longest first."""
