"""Samples on their way to the bucket, on disk until they are there.

    <spool>/lock                                  held while an agent lives
    <spool>/journal/<phase>/<kind>.arrows         rows as they come, written through at once
    <spool>/ready/<phase>/<kind>-<number>.arrows  frozen: complete, never changed, not yet sent
    <spool>/shipped/<phase>/…                     sent; emptied when the phase is compacted

A part is numbered when it is frozen, from 1 and without gaps for each phase and kind. Freezing
and moving on are renames, so a full disk stops neither; sending a part again changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import shutil
import threading
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_store.errors import CannotRunError, StoreError
from run_store.layout import RunLayout
from run_store.samples import SCHEMAS
from run_store.store import Store
from worker_agent.backlog import Backlog, Key, thinned
from worker_agent.journal import Journal, read_batches

log = logging.getLogger(__name__)

PART_BYTES = 8 * 2**20
"""A journal that has grown so large is frozen before its time."""
LOW_DISK_MB = 200.0
LOW_DISK_SHARE = 0.1
"""A disk with less than both left is nearly full: deliveries are thinned."""
THINNED_TO = 0.1


class Spool:
    """One worker's samples of one attempt. Safe to use from several threads.

    Raises CannotRunError if another agent is using the folder.
    """

    def __init__(
        self, folder: Path, *, store: Store, layout: RunLayout, attempt: int, worker: str
    ) -> None:
        self.folder = folder
        self._store = store
        self._layout = layout
        self._attempt = attempt
        self._worker = worker
        self._journals: dict[Key, Journal] = {}
        self._backlog = Backlog()
        self._full = self._was_full = ""
        self._draw = random.Random()  # noqa: S311 - which deliveries are kept is no secret
        self._writing = threading.RLock()
        self._sending = threading.Lock()
        for name in ("journal", "ready", "shipped"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / "lock")
        self._numbers = self._numbers_on_disk()
        self._recover()

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        with self._writing:
            for journal in self._journals.values():
                journal.close()
            self._journals.clear()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def append(self, phase: str, kind: str, columns: dict[str, list[Any]]) -> None:
        """Add rows, given as columns; columns that are left out are null.

        A full disk is no error here: the rows wait in memory, and `trouble` says so. Raises
        pyarrow's errors for values that are not of their column's type.
        """
        schema = SCHEMAS[kind]
        rows = len(next(iter(columns.values()), []))
        if rows == 0:
            return
        arrays = [
            pa.array(columns.get(field.name, [None] * rows), type=field.type, from_pandas=False)
            for field in schema
        ]
        batch = pa.record_batch(arrays, schema=schema)
        with self._writing:
            if kind == "deliveries" and self._is_low():
                batch = thinned(batch, THINNED_TO, self._draw)
            if batch.num_rows:
                self._backlog.add((phase, kind), batch)
            self.retry()

    def retry(self) -> bool:
        """Write what waits in memory for room on the disk; return whether nothing waits."""
        with self._writing:
            while self._backlog:
                key, batch = self._backlog.first()
                try:
                    self._write(key, batch)
                except OSError as error:
                    self._full = error.strerror or str(error)
                    self._was_full = self.trouble
                    return False
                self._backlog.drop_first()
            self._full = ""
            return True

    def freeze(self, phase: str | None = None, kind: str | None = None) -> None:
        """Make parts of what the journals hold: of all, or of one phase, or one kind in it."""
        with self._writing:
            for key in list(self._journals):
                if phase in (None, key[0]) and kind in (None, key[1]):
                    self._freeze(key)

    def ship(self) -> int:
        """Send every frozen part; return how many were sent.

        Raises StoreError at the first that could not be; it stays, with those behind it.
        """
        sent = 0
        with self._sending:
            for path in sorted((self.folder / "ready").glob("*/*.arrows")):
                phase, (kind, number) = path.parent.name, _kind_and_number(path)
                self._store.put(self._key(phase, kind, number), _as_parquet(path, kind))
                path.rename(self._place("shipped", phase, kind, number))
                sent += 1
        return sent

    def compact(self, phase: str) -> None:
        """Put one object in the place of each kind's parts of a phase that is over.

        The whole one is written before the small ones are deleted; readers skip covered parts.
        Where the disk has no room for it, the small ones stay.
        """
        with self._sending:
            for kind in SCHEMAS:
                paths = sorted((self.folder / "shipped" / phase).glob(f"{kind}-*.arrows"))
                full = [path for path in paths if path.stat().st_size]
                for run in _unbroken(full):
                    if len(run) > 1:
                        self._compact(phase, kind, run)
                # The last one first: what is left full by a death in between begins where the
                # compacted part does, so that it is covered even with parts that come later.
                for path in reversed(full):
                    _empty(path)

    def make_room(self) -> None:
        """Give up the local copies of what is in the bucket; those parts stay uncompacted."""
        with self._sending:
            for path in (self.folder / "shipped").glob("*/*.arrows"):
                _empty(path)
        self.retry()

    @property
    def trouble(self) -> str:
        """What is wrong with the disk, as a sentence; empty if nothing is."""
        if self._full:
            return (
                f"The disk of the spool {self.folder} takes no more ({self._full}): "
                f"{self._backlog.rows} rows wait in memory."
            )
        if self._is_low():
            return (
                f"The disk of the spool {self.folder} has {self.free_mb():.1f} MiB left: "
                f"one in {1 / THINNED_TO:.0f} deliveries is kept."
            )
        return ""

    def take_full(self) -> str:
        """Return what was wrong if the disk took no more at some time since the last call.

        Room may have been made meanwhile, and that it was needed is to be told all the same.
        """
        with self._writing:
            said, self._was_full = self._was_full, ""
            return said

    @property
    def is_full(self) -> bool:
        """Rows wait in memory, because the disk does not take them."""
        return bool(self._full)

    def take_lost(self) -> dict[str, int]:
        """Return how many rows of each kind found no room since the last call."""
        with self._writing:
            lost = dict(self._backlog.lost)
            self._backlog.lost.clear()
            return lost

    def numbers(self, phase: str) -> dict[str, int]:
        """Return the last part's number for each kind of a phase that has any."""
        with self._writing:
            return {kind: n for (its_phase, kind), n in self._numbers.items() if its_phase == phase}

    def phases(self) -> list[str]:
        """Return every phase that has samples here or had."""
        with self._writing:
            return sorted({phase for phase, _ in [*self._numbers, *self._journals]})

    def unshipped(self) -> dict[str, int]:
        """Return how many parts of each phase wait to be sent, or still grow."""
        waiting: dict[str, int] = {}
        with self._writing:
            growing = {key for key, journal in self._journals.items() if journal.rows}
            phases = [phase for phase, _ in growing | self._backlog.keys()]
        for phase in [
            *phases,
            *(path.parent.name for path in (self.folder / "ready").glob("*/*.arrows")),
        ]:
            waiting[phase] = waiting.get(phase, 0) + 1
        return waiting

    def free_mb(self) -> float:
        """Return the free space of the spool's disk in MiB."""
        return shutil.disk_usage(self.folder).free / 2**20

    def size_mb(self) -> float:
        """Return what the spool holds on its disk in MiB."""
        held = 0
        for path in self.folder.glob("*/*/*.arrows"):
            # It may just have been moved on.
            with contextlib.suppress(FileNotFoundError):
                held += path.stat().st_size
        return held / 2**20

    def _is_low(self) -> bool:
        usage = shutil.disk_usage(self.folder)
        return usage.free < min(LOW_DISK_MB * 2**20, LOW_DISK_SHARE * usage.total)

    def _write(self, key: Key, batch: pa.RecordBatch) -> None:
        if key not in self._journals:
            phase, kind = key
            # The folders that a rename will need are made while there is room for them.
            for state in ("journal", "ready", "shipped"):
                (self.folder / state / phase).mkdir(parents=True, exist_ok=True)
            path = self.folder / "journal" / phase / f"{kind}.arrows"
            self._journals[key] = Journal(path, SCHEMAS[kind])
        self._journals[key].append(batch)
        if self._journals[key].size >= PART_BYTES:
            self._freeze(key)

    def _freeze(self, key: Key) -> None:
        journal = self._journals[key]
        if journal.rows == 0:
            return
        number = self._numbers.get(key, 0) + 1
        try:
            journal.move(self._place("ready", *key, number))
        except OSError as error:
            log.warning("a part grows on: %s", error)
            return
        self._numbers[key] = number
        self._journals.pop(key).close()

    def _compact(self, phase: str, kind: str, run: list[Path]) -> None:
        numbers = [_kind_and_number(path)[1] for path in run]
        whole = self.folder / "shipped" / phase / f"{kind}.whole"
        try:
            with pq.ParquetWriter(whole, SCHEMAS[kind], compression="zstd") as writer:
                for path in run:
                    writer.write_table(_table(path, kind))
            self._store.put_file(self._key(phase, kind, numbers[0], numbers[-1]), whole)
        except OSError as error:
            log.warning("%s of %s stay in %d parts: %s", kind, phase, len(run), error)
        else:
            self._delete_covered(*(self._key(phase, kind, number) for number in numbers))
        finally:
            whole.unlink(missing_ok=True)

    def _delete_covered(self, *keys: str) -> None:
        """Delete what the compacted part holds; a worker that may not leaves it to others."""
        try:
            self._store.delete(*keys)
        except StoreError as error:
            log.info("%d parts stay beside the one that holds them: %s", len(keys), error)

    def _recover(self) -> None:
        """Freeze what an earlier agent of this worker left behind, as it stands."""
        for path in sorted((self.folder / "journal").glob("*/*.arrows")):
            key = path.parent.name, path.stem
            if not read_batches(path):
                path.unlink()
                continue
            number = self._numbers.get(key, 0) + 1
            path.rename(self._place("ready", *key, number))
            self._numbers[key] = number

    def _numbers_on_disk(self) -> dict[Key, int]:
        numbers: dict[Key, int] = {}
        for state in ("ready", "shipped"):
            for path in (self.folder / state).glob("*/*.arrows"):
                kind, number = _kind_and_number(path)
                key = path.parent.name, kind
                numbers[key] = max(number, numbers.get(key, 0))
        return numbers

    def _place(self, state: str, phase: str, kind: str, number: int) -> Path:
        folder = self.folder / state / phase
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{kind}-{number:06d}.arrows"

    def _key(self, phase: str, kind: str, first: int, last: int | None = None) -> str:
        return self._layout.part(
            kind,
            attempt=self._attempt,
            phase=phase,
            worker=self._worker,
            first=first,
            last=last,
        )


def _locked(path: Path) -> int:
    """Return a descriptor of a file that is locked until it is closed, or the process ends."""
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise CannotRunError(
            f"Another agent is using the spool {path.parent}.",
            hint="Give each worker a spool of its own, or end the other agent first.",
        ) from None
    return held


def _kind_and_number(path: Path) -> tuple[str, int]:
    kind, _, number = path.stem.rpartition("-")
    return kind, int(number)


def _unbroken(paths: list[Path]) -> list[list[Path]]:
    """Split sorted parts where a number is left out."""
    numbered = enumerate(paths)
    return [
        [path for _, path in run]
        for _, run in groupby(numbered, lambda one: _kind_and_number(one[1])[1] - one[0])
    ]


def _table(path: Path, kind: str) -> pa.Table:
    return pa.Table.from_batches(read_batches(path), schema=SCHEMAS[kind])


def _as_parquet(path: Path, kind: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(_table(path, kind), sink, compression="zstd")
    return bytes(sink.getvalue())


def _empty(path: Path) -> None:
    """Leave only a part's name, so that its number stays taken."""
    os.truncate(path, 0)
