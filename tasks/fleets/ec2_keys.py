"""The keys that are made for an attempt: whom its machines let in, and who they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from run_store.store import write_private


@dataclass(frozen=True)
class Keys:
    """The run's own keys: whom its machines let in, and who they are."""

    user_key: Path
    user_public: str
    host_private: str = field(repr=False)
    host_public: str
    fingerprint: str


def make_keys(folder: Path) -> Keys:
    """Return the attempt's keys, made if they are not there.

    They never leave `folder` but for the host key, which the attempt's machines are given.
    """
    keys = []
    for name in ("user_key", "host_key"):
        path = folder / name
        if not path.exists():
            made = asyncssh.generate_private_key("ssh-ed25519")
            write_private(path, made.export_private_key().decode())
        keys.append(asyncssh.read_private_key(str(path)))
    user, host = keys
    return Keys(
        user_key=folder / "user_key",
        user_public=user.export_public_key().decode().strip(),
        host_private=host.export_private_key().decode(),
        host_public=host.export_public_key().decode().strip(),
        fingerprint=host.get_fingerprint("sha256"),
    )
