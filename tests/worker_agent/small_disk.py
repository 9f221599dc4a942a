"""A file system of its own, which a test can fill and empty."""

import subprocess
from pathlib import Path
from typing import Self


class SmallDisk:
    """2 MiB at `folder`; a context manager that takes it away again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    @classmethod
    def mount(cls, folder: Path) -> Self | None:
        """Make one; None if we may not, as only root may."""
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        return cls(folder) if done.returncode == 0 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def fill(self, *, leaving: int = 0) -> None:
        """Leave so many bytes free, or none."""
        chunk = b"\xa5" * 4096
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(chunk)
            except OSError:
                pass
            file.truncate(max(0, file.tell() - leaving))

    def clear(self) -> None:
        """Give the room back."""
        self._filler.unlink()
