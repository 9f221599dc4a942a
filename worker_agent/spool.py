"""Samples on their way to the bucket, on disk until they are there.

    <spool>/journal/<phase>/<kind>.arrows          rows as they come, flushed each second
    <spool>/ready/<phase>/<kind>-<number>.parquet  frozen: complete, never changed, not yet sent
    <spool>/shipped/…                              sent; kept until the phase is compacted

A part is numbered when it is frozen, from 1 and without gaps for each phase and kind. Sending
it again changes nothing, so a crash at any point costs at most the rows not yet flushed.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_store.layout import RunLayout
from run_store.samples import SCHEMAS
from run_store.store import Store

log = logging.getLogger(__name__)

PART_BYTES = 8 * 2**20
"""A journal that has grown so large is frozen before its time."""


class Spool:
    """One worker's samples of one attempt. Not safe for several threads at once."""

    def __init__(
        self, folder: Path, *, store: Store, layout: RunLayout, attempt: int, worker: str
    ) -> None:
        self._folder = folder
        self._store = store
        self._layout = layout
        self._attempt = attempt
        self._worker = worker
        self._journals: dict[tuple[str, str], pa.ipc.RecordBatchStreamWriter] = {}
        self._files: dict[tuple[str, str], pa.OSFile] = {}
        self._compacted: set[tuple[str, str]] = set()
        for name in ("journal", "ready", "shipped"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # What an earlier agent of this worker left behind is frozen as it stands.
        for path in sorted((folder / "journal").glob("*/*.arrows")):
            self._freeze_file(path, path.parent.name, path.stem)

    def append(self, phase: str, kind: str, columns: dict[str, list[Any]]) -> None:
        """Add rows, given as columns; columns that are left out are null."""
        schema = SCHEMAS[kind]
        rows = len(next(iter(columns.values()), []))
        if rows == 0:
            return
        arrays = [
            pa.array(columns.get(field.name, [None] * rows), type=field.type, from_pandas=False)
            for field in schema
        ]
        key = (phase, kind)
        if key not in self._journals:
            path = self._folder / "journal" / phase / f"{kind}.arrows"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[key] = pa.OSFile(str(path), "wb")
            self._journals[key] = pa.ipc.new_stream(self._files[key], schema)
        self._journals[key].write_batch(pa.record_batch(arrays, schema=schema))
        self._files[key].flush()
        if self._files[key].tell() >= PART_BYTES:
            self.freeze(phase, kind)

    def freeze(self, phase: str | None = None, kind: str | None = None) -> None:
        """Make parts of what the journals hold: of all, or of one phase, or one kind in it."""
        for key in list(self._journals):
            if phase in (None, key[0]) and kind in (None, key[1]):
                self._journals.pop(key).close()
                self._files.pop(key).close()
                path = self._folder / "journal" / key[0] / f"{key[1]}.arrows"
                self._freeze_file(path, *key)

    def ship(self) -> int:
        """Send every frozen part; return how many were sent.

        Raises StoreError at the first that could not be; it stays, with those behind it.
        """
        sent = 0
        for path in sorted((self._folder / "ready").glob("*/*.parquet")):
            phase, (kind, number) = path.parent.name, path.stem.rsplit("-", 1)
            key = self._layout.part(
                kind, attempt=self._attempt, phase=phase, worker=self._worker, first=int(number)
            )
            self._store.put_file(key, path)
            self._move(path, "shipped")
            sent += 1
        return sent

    def compact(self, phase: str) -> None:
        """Put one object in the place of each kind's parts of a phase that is over.

        The whole one is written before the small ones are deleted; readers skip covered parts.
        """
        for kind in SCHEMAS:
            if (phase, kind) in self._compacted:
                continue
            paths = sorted((self._folder / "shipped" / phase).glob(f"{kind}-*.parquet"))
            numbers = [int(path.stem.rsplit("-", 1)[1]) for path in paths]
            done = any(path.stat().st_size == 0 for path in paths)
            if not done and len(paths) > 1 and numbers == list(range(1, len(paths) + 1)):
                whole = self._folder / "shipped" / phase / f"{kind}.whole"
                with pq.ParquetWriter(whole, SCHEMAS[kind], compression="zstd") as writer:
                    for path in paths:
                        writer.write_table(pq.read_table(path, schema=SCHEMAS[kind]))
                self._store.put_file(self._key(phase, kind, 1, len(paths)), whole)
                self._store.delete(*(self._key(phase, kind, number) for number in numbers))
                whole.unlink()
            self._compacted.add((phase, kind))
            for path in paths:
                path.write_bytes(b"")  # its number stays taken, its rows are in the bucket

    def numbers(self, phase: str) -> dict[str, int]:
        """Return the last part's number for each kind of a phase that has any."""
        found = {kind: self._last(phase, kind) for kind in SCHEMAS}
        return {kind: number for kind, number in found.items() if number}

    def phases(self) -> list[str]:
        """Return every phase that has samples here or had."""
        return sorted({path.name for path in self._folder.glob("*/*-*") if path.is_dir()})

    def unshipped(self) -> dict[str, int]:
        """Return how many parts of each phase wait to be sent, or still grow."""
        waiting: dict[str, int] = {}
        for path in [
            *(self._folder / "ready").glob("*/*.parquet"),
            *(self._folder / "journal").glob("*/*.arrows"),
        ]:
            waiting[path.parent.name] = waiting.get(path.parent.name, 0) + 1
        return waiting

    def free_mb(self) -> float:
        """Return the free space of the spool's disk in MiB."""
        return shutil.disk_usage(self._folder).free / 2**20

    def _key(self, phase: str, kind: str, first: int, last: int | None = None) -> str:
        return self._layout.part(
            kind,
            attempt=self._attempt,
            phase=phase,
            worker=self._worker,
            first=first,
            last=last,
        )

    def _last(self, phase: str, kind: str) -> int:
        paths = [
            path
            for state in ("ready", "shipped")
            for path in (self._folder / state / phase).glob(f"{kind}-*.parquet")
        ]
        return max((int(path.stem.rsplit("-", 1)[1]) for path in paths), default=0)

    def _freeze_file(self, journal: Path, phase: str, kind: str) -> None:
        batches = _readable_batches(journal)
        if batches:
            number = self._last(phase, kind) + 1
            part = self._folder / "ready" / phase / f"{kind}-{number:06d}.parquet"
            part.parent.mkdir(parents=True, exist_ok=True)
            draft = part.with_suffix(".draft")
            table = pa.Table.from_batches(batches, schema=SCHEMAS[kind])
            pq.write_table(table, draft, compression="zstd")
            draft.replace(part)
        journal.unlink()

    def _move(self, path: Path, state: str) -> None:
        target = self._folder / state / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def _readable_batches(journal: Path) -> list[pa.RecordBatch]:
    """Return all whole batches of a journal; a killed agent may have left half of one."""
    batches: list[pa.RecordBatch] = []
    try:
        with pa.OSFile(str(journal), "rb") as file:
            reader = pa.ipc.open_stream(file)
            while True:
                batches.append(reader.read_next_batch())
    except (StopIteration, EOFError):
        pass
    except (pa.ArrowInvalid, OSError) as error:
        log.warning("%s ends in a broken batch: %s", journal, error)
    return batches
