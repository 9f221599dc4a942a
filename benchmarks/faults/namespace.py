"""A network namespace with three cables to this machine: to S3, the relay and the orchestrator."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from typing import Self

from benchmarks.faults.case import HungError, SkippedError

_NUMBERS = itertools.count(1)
CABLES = {"s": 1, "r": 5, "o": 9}
"""Our end's last number at each; the other end has the next."""


class Namespace:
    """A context manager that gives itself; an agent is put into it by its `name`.

    `store_host` and `relay_host` are this machine's addresses at their cables, `inner_host` is the
    namespace's own at the orchestrator's. Raises SkippedError where namespaces cannot be made.
    """

    def __init__(self) -> None:
        number = next(_NUMBERS)
        self.name = f"rl{os.getpid() % 100000}n{number}"
        self._net = f"10.213.{(os.getpid() + number) % 250}"
        self.store_host, self.relay_host = f"{self._net}.1", f"{self._net}.5"
        self.inner_host = f"{self._net}.10"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise SkippedError("network namespaces need root")
        if shutil.which("ip") is None:
            raise SkippedError("network namespaces need Debian's iproute2")
        try:
            _ip("netns", "add", self.name)
        except HungError as error:
            raise SkippedError(f"this machine makes no network namespace: {error}") from error
        try:
            _ip("-n", self.name, "link", "set", "lo", "up")
            for cable, host in CABLES.items():
                ours, theirs = self._end(cable), f"{cable}0"
                peer = ("type", "veth", "peer", "name", theirs, "netns", self.name)
                _ip("link", "add", ours, *peer)
                _ip("addr", "add", f"{self._net}.{host}/30", "dev", ours)
                _ip("-n", self.name, "addr", "add", f"{self._net}.{host + 1}/30", "dev", theirs)
                _ip("-n", self.name, "link", "set", theirs, "up")
            self.pull_in(*CABLES)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for cable in CABLES:
            with contextlib.suppress(HungError):
                _ip("link", "del", self._end(cable))
        with contextlib.suppress(HungError):
            _ip("netns", "del", self.name)

    def pull_out(self, *cables: str) -> None:
        """Take links down: nothing passes, and nobody is told."""
        for cable in cables:
            _ip("link", "set", self._end(cable), "down")

    def pull_in(self, *cables: str) -> None:
        """Bring links up again."""
        for cable in cables:
            _ip("link", "set", self._end(cable), "up")

    def _end(self, cable: str) -> str:
        return f"{self.name}{cable}"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HungError(f"ip {' '.join(words)}: {done.stderr.strip()}")
