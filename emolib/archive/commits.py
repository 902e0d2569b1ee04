"""How the rows of a block come into the tables: decided once, then published.

    attempt ──▶ _runs/<run_id>/commits/000007.zip ──▶ windows, channels, recordings ──▶ the record is removed
            creates the record                    creates each part

Several attempts at one block may be at work at the same time, with different outcomes: a worker was held for dead, or
the whole job was. Whoever creates the record decides; every other attempt publishes what that one decided. Record and
parts are created where nothing is, never written over. So an attempt that wakes up when a later run has replaced its
rows finds the names taken, and changes nothing. A run that is closed is sealed first: from then on nobody publishes.

No lock is needed for any of this. Two things are weaker. Where a file system or an object store can't create
exclusively, it is looked at a moment before: two attempts in that moment may mix. And retention removes parts, so
whoever was about to create them then brings them back, until the next night's retention. `emolib verify` finds both.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from upath import UPath

from emolib.archive.lock import Lock
from emolib.archive.predictions import Part, committed, files, is_litter, part_of
from emolib.archive.shadow import tables_of_blocks
from emolib.storage import AnyPath, below, create_bytes, exists, read_bytes, read_json, resolve, write_json

_RECORDS = "commits"
# What reading a damaged zip raises: its own error, and what its parts say of wrong numbers and of names.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


class Commits:
    """The commits of the blocks of a run.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    run_id
        Of the run.
    """

    def __init__(self, pred: AnyPath, run_id: str) -> None:
        self._pred, self._run_id = resolve(pred), run_id
        self._folder = self._pred / "_runs" / run_id
        self._seal = self._folder / "sealed.json"

    def commit(self, block: int, parts: Mapping[str, bytes]) -> None:
        """Publish what an attempt made of a block, or what the attempt made that was quicker.

        Parameters
        ----------
        parts
            By their paths below the predictions, in the order in which they are to be created: `recordings` last.
        """
        record = self._record(block)
        is_mine = False
        with suppress(FileExistsError):
            is_mine = create_bytes(record, _packed(parts))
        # Both looked at when there is a record: whoever seals the run, or has published, did so before or sees it.
        if self.is_sealed:
            if exists(self._folder / "summary.json"):  # else it may have been decided before, and is for `settle`
                _remove(record)
        elif exists(below(self._pred, [*parts][-1])):
            _remove(record)
        else:
            self._publish(record, parts if is_mine else None)

    def _publish(self, record: UPath, parts: Mapping[str, bytes] | None = None) -> None:
        """Create the parts of a record, which may be known; then remove it."""
        if parts is None:
            try:
                parts = _unpacked(read_bytes(record))
            except FileNotFoundError:  # another attempt has just done it
                return
        for name, data in parts.items():
            with suppress(FileExistsError):
                create_bytes(below(self._pred, name), data)
        _remove(record)

    @property
    def is_sealed(self) -> bool:
        """Whether no attempt publishes any more."""
        return exists(self._seal)

    def sealed_as(self) -> Mapping[str, Any]:
        """Return what `seal` was told; nothing where the run is not sealed."""
        try:
            return dict(read_json(self._seal))
        except FileNotFoundError:
            return {}

    def seal(self, facts: Mapping[str, Any], *, lock: Lock) -> None:
        """See that no attempt publishes any more but what is decided already: the run is about to be closed."""
        lock.check()
        write_json(self._seal, facts)

    def unseal(self, *, lock: Lock) -> None:
        """Let attempts publish again: the run goes on."""
        lock.check()
        self._seal.unlink(missing_ok=True)

    def settle(self, *, lock: Lock) -> int:
        """Publish what is decided, then remove what the dead left uncommitted or half written.

        A record that a disk damaged decides nothing: its block is scored anew.

        Returns
        -------
        int
            How many files were removed.
        """
        for record in self._records():
            lock.check()
            try:
                self._publish(record)
            except _DAMAGED:
                _remove(record)
        left = [*self._left_in_tables(), *(path for path in self._folder.rglob("*.partial") if is_litter(path))]
        for path in left:
            lock.check()
            _remove(path)
        return len(left)

    def withdraw(self, *, lock: Lock) -> None:
        """Remove what attempts decided after the run was sealed and settled: nobody publishes it."""
        for record in self._records():
            lock.check()
            _remove(record)

    def _left_in_tables(self) -> Iterator[UPath]:
        done = set(committed(self._pred))
        for root, table in tables_of_blocks(self._pred):
            for path in files(root, table):
                part = part_of(path)
                if part is not None and part.run_id == self._run_id and part not in done:
                    if not self._is_decided(part):
                        yield path
                elif is_litter(path) and f"part-{self._run_id}-" in path.name:
                    yield path

    def _is_decided(self, part: Part) -> bool:
        """Return whether an attempt that is at work has made a part: its record is there, or the commit by now."""
        return exists(self._record(part.block)) or exists(part.path(self._pred, "recordings"))

    def _records(self) -> list[UPath]:
        found = files(self._pred, f"_runs/{self._run_id}/{_RECORDS}")
        return sorted((path for path in found if path.suffix == ".zip"), key=str)

    def _record(self, block: int) -> UPath:
        return self._folder / _RECORDS / f"{block:06d}.zip"


def _remove(path: UPath) -> None:
    with suppress(FileNotFoundError):  # in a store it is looked for first, and another may remove it then
        path.unlink(missing_ok=True)


def _packed(parts: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as record:
        for name, data in parts.items():
            record.writestr(name, data)
    return packed.getvalue()


def _unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as record:
        parts = {name: record.read(name) for name in record.namelist()}
    if not parts or not [*parts][-1].startswith("recordings/"):
        raise zipfile.BadZipFile("it ends before the rows of the recordings")
    return parts
