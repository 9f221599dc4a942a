from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets.ssh_hosts import make_key


@pytest.fixture
def user_key(tmp_path: Path) -> Path:
    """A throw-away key pair of the user's; the public half is beside it."""
    path = tmp_path / "user_key"
    make_key(path)
    return path
