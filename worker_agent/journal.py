"""One growing file of samples on disk: what is in it survives the process, and a full disk."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

log = logging.getLogger(__name__)

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


class Journal:
    """An Arrow stream that is written a whole batch at a time.

    A batch that does not fit on the disk leaves the file as it was before, so that what comes
    later can be read. Not safe for several threads at once.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self.size = 0
        self._schema = schema
        self._begin()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def append(self, batch: pa.RecordBatch) -> None:
        """Write a batch through to the operating system; OSError if it does not fit."""
        self._writer.write_batch(batch)
        data = self._tap.take()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
            if self.rows == 0:
                # The stream's header came with this batch: the next one must bring it again.
                self._begin()
            raise
        self.size += len(data)
        self.rows += batch.num_rows

    def move(self, path: Path) -> None:
        """Rename the file; what is appended later goes to it all the same."""
        self.path.rename(path)
        self.path = path

    def close(self) -> None:
        """Let go of the file; a stream needs no mark at its end."""
        os.close(self._fd)

    def _begin(self) -> None:
        self._tap = _Tap()
        self._writer = pa.ipc.new_stream(self._tap, self._schema, options=_OPTIONS)


def read_batches(path: Path) -> list[pa.RecordBatch]:
    """Return all whole batches of a journal; a killed agent may have left half of one."""
    batches: list[pa.RecordBatch] = []
    try:
        with pa.OSFile(str(path), "rb") as file:
            reader = pa.ipc.open_stream(file)
            while True:
                batches.append(reader.read_next_batch())
    except (StopIteration, EOFError):
        pass
    except (pa.ArrowInvalid, OSError) as error:
        log.warning("%s ends in a broken batch: %s", path, error)
    return batches


class _Tap(io.RawIOBase):
    """A file that keeps what is written to it until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
