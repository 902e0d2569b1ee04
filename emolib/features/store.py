"""The feature store: the only module that knows Zarr.

A store ``S.zarr`` is a Zarr v3 group with one row per window; ``S.windows.parquet`` beside it says what each row is.
The rows are fixed when the store is created. A shard of rows is then filled by one task that nobody else shares, its
``status`` last, so ``status`` is at once validity mask, failure record and journal of what is done.
"""

from __future__ import annotations

import glob
import hashlib
import io
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from numpy.typing import NDArray
from upath import UPath
from zarr.codecs import ZstdCodec

from emolib.config import CLEAN, DECODING_VERSION, Profile, parse
from emolib.errors import Code, SettingsError
from emolib.features.windows import window_shape
from emolib.storage import (
    AnyPath,
    bucket_expected,
    is_local,
    names_in,
    new_folder,
    remove_folder,
    resolve,
    sync,
    write_bytes,
)
from emolib.stores import is_the_stores

# Only whoever plans or looks at a whole store needs pandas: its import takes a worker half a second.
if TYPE_CHECKING:
    import pandas as pd

KIND = "emolib.features"
_NEW = "a new path, or --resume to continue what was begun"
_REMEDY = "expected a store as `emolib extract` writes it: put it back from a copy, or extract it anew"
SCHEMA_VERSION = 1
_DTYPES = {"features": "float32", "valid_frames": "int32", "status": "uint8"}

# What stands beside each row; `window` counts the windows of an utterance, `code` is what the plan knows already.
WINDOWS_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("gender", pa.string()),
        pa.field("emotion", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("channel", pa.int8()),  # null: the channels mixed to one
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        pa.field("content_hash", pa.string()),
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string()),
    ]
)

# Rows of a shard, the unit of writing (5 MB of features at 4 s), and of a chunk, the unit of reading. Measured
# (tests/benchmarks/store.py): shards of 64 to 1024 rows in chunks of 32 to 256 are read within a factor of 2.5 of each
# other, all of them tens of times faster than the default network takes them; fewer rows leave no worker idle.
_SHARD_WINDOWS = 256
_CHUNK_WINDOWS = 32


class FeatureStore:
    """A store of features, opened.

    Attributes
    ----------
    path
        The Zarr group.
    profile
        The settings that its rows were computed with.

    Examples
    --------
    >>> import pandas as pd
    >>> from emolib.config import TELEPHONE
    >>> rows = pd.DataFrame([dict(
    ...     utterance_id="a", window=0, corpus="c", speaker="s", gender=None, emotion="sad", uri="a.wav", channel=None,
    ...     start_s=0.0, end_s=4.0, variant="clean", content_hash="0", code="ok", message=None)])
    >>> store = FeatureStore.create("memory://doctest/S.zarr", profile=TELEPHONE, windows=rows)
    >>> store.write_shard(0, np.ones((1, 249, 40), np.float32), np.array([249]), np.array([1]))
    >>> FeatureStore.open("memory://doctest/S.zarr").status().tolist()
    [1]
    """

    def __init__(self, path: UPath, group: zarr.Group, profile: Profile) -> None:
        self.path = path
        self.profile = profile
        self._group = group
        self._arrays: dict[str, zarr.Array] = {}

    @classmethod
    def create(
        cls,
        path: AnyPath,
        *,
        profile: Profile,
        windows: pd.DataFrame,
        source: Mapping[str, Any] | None = None,
        shard_windows: int = _SHARD_WINDOWS,
        chunk_windows: int = _CHUNK_WINDOWS,
    ) -> FeatureStore:
        """Lay out a store for planned windows, every row pending.

        What an interrupted `create` left behind is replaced.

        Parameters
        ----------
        windows
            One row per window, with the columns of `WINDOWS_SCHEMA`.
        source
            What the plan was made from, so that a run that continues it can tell.
        shard_windows, chunk_windows
            Rows of a shard, and of a chunk in it.

        Raises
        ------
        SettingsError
            If something else lies at the path.
        ValueError
            If a shard is not a whole number of chunks.
        """
        if shard_windows % chunk_windows:
            raise ValueError(
                f"shards of {shard_windows} windows in chunks of {chunk_windows} found, expected whole chunks"
            )
        path = resolve(path)
        cls.refuse_existing(path)
        rows, (frames, coefficients) = len(windows), window_shape(profile.features, profile.windows)
        # The index of a shard lies at its beginning: Azure can't be asked for the last bytes of a blob.
        shards: Any = {"shape": (shard_windows, frames, coefficients), "index_location": "start"}
        # All attributes in one write: whoever dies after it has left something that is known as emolib's own.
        attributes = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "settings": profile.model_dump(mode="json"),
            "fingerprint": profile.fingerprint,
            "decoding_version": DECODING_VERSION,
            "versions": {name: version(name) for name in ("emolib", "numpy", "scipy", "soxr", "soundfile", "zarr")},
            "shard_windows": shard_windows,
            "source": dict(source or {}),
            "planned": False,
            "complete": False,
        }
        with bucket_expected(path):
            for name in names_in(path):  # not the folder itself: file systems have folders of their own at their top
                remove_folder(path / name)
            group = zarr.create_group(_zarr_store(path), zarr_format=3, attributes=attributes)
        group.create_array(
            "features",
            shape=(rows, frames, coefficients),
            shards=shards,
            chunks=(chunk_windows, frames, coefficients),
            dtype="float32",
            fill_value=0.0,
            # zarr's own choice, with a checksum: what rots on disk is found. Measured (tests/benchmarks/store.py): it
            # saves a fifth to a half; blosc lz4 is read up to twice as fast, where speed is no matter, and finds no
            # rot; float16 would halve it again, and err by up to 0.25.
            compressors=ZstdCodec(level=0, checksum=True),
            dimension_names=("window", "frame", "coefficient"),
        )
        for name, dtype in (("valid_frames", "int32"), ("status", "uint8")):
            group.create_array(
                name,
                shape=(rows,),
                chunks=(shard_windows,),
                dtype=dtype,
                fill_value=0,
                dimension_names=("window",),
            )
        table = pa.Table.from_pandas(windows, schema=WINDOWS_SCHEMA, preserve_index=False)
        group.attrs.update({"windows_hash": _write_windows(path, table, shard_windows), "planned": True})
        return cls(path, group, profile)

    @staticmethod
    def refuse_existing(path: AnyPath) -> None:
        """Check that a store can be created at a path.

        Raises
        ------
        SettingsError
            If anything but an interrupted `create` lies there.
        """
        path = resolve(path)
        left = _read_group(path)
        begun = left is not None and left.attrs.get("kind") == KIND and not left.attrs.get("planned")
        if begun or ((names := names_in(path)) and all(name.endswith(".partial") for name in names)):
            return
        new_folder(path, option="--store", expected=_NEW)
        if (table := windows_path(path)).exists():
            raise SettingsError(
                f"{table} exists without its store, expected a new path: remove it, or name another --store"
            )

    @staticmethod
    def is_planned(path: AnyPath) -> bool:
        """Return whether a store lies at a path and its rows are fixed, so that a run can continue it."""
        group = _read_group(resolve(path))
        return group is not None and group.attrs.get("kind") == KIND and bool(group.attrs.get("planned"))

    @classmethod
    def open(cls, path: AnyPath) -> FeatureStore:
        """Open a store that `create` has laid out.

        Raises
        ------
        SettingsError
            If there is none, or it is of another schema.
        """
        path = resolve(path)
        group = _read_group(path)
        if group is None:
            raise SettingsError(f"no feature store found at {path}, expected one that `emolib extract` wrote")
        found: dict[str, Any] = group.attrs.asdict()
        if found.get("kind") != KIND:
            raise SettingsError(f"{path} is a Zarr group, but no feature store of emolib; expected kind {KIND!r}")
        if found.get("schema_version") != SCHEMA_VERSION:
            raise SettingsError(
                f"{path} has schema version {found.get('schema_version')}, expected {SCHEMA_VERSION}: extract it anew"
            )
        if not found.get("planned"):
            raise SettingsError(f"{path} was interrupted while it was planned: run the same `emolib extract` again")
        return cls(path, group, parse(Profile, found["settings"]))

    @property
    def windows_hash(self) -> str:
        """Hash of the table of rows: what the store holds, and in which order."""
        return str(self._group.attrs["windows_hash"])

    @property
    def fingerprint(self) -> str:
        """The feature fingerprint of its settings."""
        return str(self._group.attrs["fingerprint"])

    @property
    def decoding_version(self) -> int:
        """Of what filled it, see `emolib.config.DECODING_VERSION`; 1 for stores from before there was one."""
        found = self._group.attrs.get("decoding_version", 1)
        return found if isinstance(found, int) else 1

    @property
    def source(self) -> dict[str, Any]:
        """What its plan was made from, as `create` was told."""
        return dict(self._attribute("source"))

    @property
    def complete(self) -> bool:
        """Whether every row has its outcome."""
        return bool(self._group.attrs["complete"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Its ``(window, frame, coefficient)``."""
        window, frame, coefficient = self._array("features").shape
        return window, frame, coefficient

    @property
    def shards(self) -> list[tuple[int, int]]:
        """First row, and row after the last, of each shard."""
        rows, size = self.shape[0], int(self._attribute("shard_windows"))
        return [(start, min(start + size, rows)) for start in range(0, rows, size)]

    @property
    def windows(self) -> pd.DataFrame:
        """What each row is: the columns of `WINDOWS_SCHEMA`; read when it is first asked for.

        Raises
        ------
        SettingsError
            If the table beside the store is missing or not the one that the store was made with.
        """
        return self._windows.copy(deep=False)

    @cached_property
    def _windows(self) -> pd.DataFrame:
        import pandas as pd

        table = windows_path(self.path)
        if not table.exists():
            raise SettingsError(f"{table} is missing, expected it beside {self.path}: copy both together")
        data = table.read_bytes()
        if _hash(data) != self._attribute("windows_hash"):
            raise SettingsError(f"{table} is not the table that {self.path} was made with: copy both together")
        # NumPy's integers know no missing one, and the type would depend on the rows.
        return pq.read_table(io.BytesIO(data)).to_pandas(types_mapper={pa.int8(): pd.Int8Dtype()}.get)

    def shard_windows(self, shard: int) -> list[dict[str, Any]]:
        """Return what the rows of one shard are, by the names of `WINDOWS_SCHEMA`, without reading the whole table."""
        with windows_path(self.path).open("rb") as handle:
            rows: list[dict[str, Any]] = pq.ParquetFile(handle).read_row_group(shard).to_pylist()
        return rows

    def status(self, shard: int | None = None) -> NDArray[np.uint8]:
        """Return the outcome of each row (of a shard), shape ``(window,)``: 0 pending, else a `Code.status`."""
        start, stop = (0, self.shape[0]) if shard is None else self.shards[shard]
        return np.asarray(self._array("status")[start:stop], dtype=np.uint8)

    def utterance_codes(self) -> pd.Series:
        """Return what became of each utterance, by utterance_id: the code of its first clean window, or "pending"."""
        import pandas as pd

        rows, status = self.windows, self.status()
        first = ((rows["window"] == 0) & (rows["variant"] == CLEAN)).to_numpy()
        codes = [Code.from_status(number).value if number else "pending" for number in status[first].tolist()]
        return pd.Series(codes, index=rows.loc[first, "utterance_id"], name="code")

    def read(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return features ``(window, frame, coefficient)`` and valid frames ``(window,)`` of a range of rows."""
        features = np.asarray(self._array("features")[start:stop], dtype=np.float32)
        return features, np.asarray(self._array("valid_frames")[start:stop], dtype=np.int32)

    def write_shard(
        self,
        shard: int,
        features: NDArray[np.float32],
        valid_frames: NDArray[Any],
        status: NDArray[Any],
        *,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Write all rows of one shard, their status last.

        Parameters
        ----------
        shard
            Its number.
        features, valid_frames, status
            Of its rows, ``(window, frame, coefficient)`` and ``(window,)``.
        goes_on
            Asked before each array is written; the rest is left where it returns False.

        Raises
        ------
        ValueError
            If there is no such shard, or the arrays are not exactly its rows, each with its outcome. Nothing else can
            be written: two writes that share a shard damage each other silently.
        """
        if not 0 <= shard < len(self.shards):
            raise ValueError(f"shard {shard} found, expected 0 to {len(self.shards) - 1}")
        start, stop = self.shards[shard]
        expected = (stop - start, *self.shape[1:])
        if features.shape != expected or not len(valid_frames) == len(status) == stop - start:
            raise ValueError(
                f"features {features.shape}, {len(valid_frames)} valid frames and {len(status)} statuses found for "
                f"shard {shard}, expected {expected}"
            )
        if not np.all(status):
            raise ValueError(f"pending rows found for shard {shard}, expected an outcome for each")
        for name, rows in (("features", features), ("valid_frames", valid_frames), ("status", status)):
            if not goes_on():
                return
            array = self._array(name)
            array[start:stop] = np.asarray(rows, _DTYPES[name])
            # Zarr leaves that to the system, which after a power cut may have the status and not the features.
            with suppress(FileNotFoundError):  # it keeps no chunk of zeros
                chunk = array.metadata.encode_chunk_key((shard, *[0] * (array.ndim - 1)))
                sync(self.path / name / chunk, below=self.path)

    def reopen(self) -> None:
        """Mark a store as not complete: some of its rows are filled anew."""
        self._group.attrs["complete"] = False

    def finish(self) -> None:
        """Mark the store complete, and sweep what killed writers and attempts left.

        Raises
        ------
        ValueError
            If a row is still pending.
        """
        pending = int(np.count_nonzero(self.status() == 0))
        if pending:
            raise ValueError(f"{pending} pending rows found in {self.path}, expected none")
        # An object store takes a whole object or none: only a local disk keeps the beginning of one. Every row has its
        # outcome, so a writer that is still at it does what is done already, and may fail.
        if is_local(self.path):
            table = windows_path(self.path)
            beside = table.parent.glob(f".{glob.escape(table.name)}.*.partial")
            for litter in itertools.chain(self.path.rglob("*.partial"), beside):
                litter.unlink(missing_ok=True)
        remove_folder(self.path / "commits")  # see `emolib.features.commits`
        self._group.attrs["complete"] = True

    def _array(self, name: str) -> zarr.Array:
        # An array's shape and codecs never change; looking them up anew took a fifth of the time of reading a shard.
        if name not in self._arrays:
            try:
                array = self._group[name]
            except (KeyError, ValueError, TypeError) as error:  # also what asks for a codec that zarr 3 has not: pickle
                raise SettingsError(f"{self.path} has no readable array {name} ({error}); {_REMEDY}") from error
            if not isinstance(array, zarr.Array) or array.dtype != _DTYPES[name]:
                raise SettingsError(f"{self.path} has no array {name} of {_DTYPES[name]}; {_REMEDY}")
            self._arrays[name] = array
        return self._arrays[name]

    def _attribute(self, name: str) -> Any:
        return self._group.attrs[name]


def verify(store: FeatureStore) -> list[str]:
    """Return what is wrong with a store, one line each: nothing where every row has its outcome and its numbers."""
    problems, status, rows = [], store.status(), store.windows
    if len(rows) != store.shape[0]:
        problems.append(f"{len(rows)} rows described, {store.shape[0]} stored")
    if pending := int(np.count_nonzero(status == 0)):
        problems.append(f"{pending} rows are pending: continue with --resume")
    elif not store.complete:
        problems.append("every row has its outcome, but the store is not marked complete: continue with --resume")
    twice = rows[rows.duplicated(["utterance_id", "window", "variant"])]
    if len(twice):
        problems.append(f"{len(twice)} rows stand twice, the first {twice['utterance_id'].iloc[0]}")
    for start, stop in store.shards:
        try:
            features, valid_frames = store.read(start, stop)
        except (OSError, RuntimeError, ValueError) as error:
            if is_the_stores(error):
                raise
            problems.append(f"rows {start} to {stop - 1} can't be read: {' '.join(str(error).split())}")
            continue
        good = np.isin(status[start:stop], [Code.OK.status, Code.TRUNCATED.status])
        if not np.isfinite(features).all():
            problems.append(f"rows {start} to {stop - 1} hold numbers that are not finite")
        if not features[good].any(axis=(1, 2)).all():
            problems.append(f"rows {start} to {stop - 1} hold zeros where there should be features: a shard is lost")
        if (valid_frames[good] < 1).any() or (valid_frames[~good] != 0).any():
            problems.append(f"rows {start} to {stop - 1} have valid frames that do not fit their status")
    return problems


def windows_path(path: AnyPath) -> UPath:
    """Return where the table of a store lies: ``S.windows.parquet`` beside ``S.zarr``."""
    path = resolve(path)
    return path.with_name(path.name.removesuffix(".zarr") + ".windows.parquet")


def _write_windows(path: UPath, table: pa.Table, rows_per_group: int) -> str:
    """Write the table, one row group per shard so that a task reads only its own, and return its hash."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=rows_per_group, compression="zstd")
    write_bytes(windows_path(path), buffer.getvalue())
    return _hash(buffer.getvalue())


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _zarr_store(path: UPath) -> Any:
    if is_local(path):
        return zarr.storage.LocalStore(path.path)
    if path.protocol in ("az", "abfs", "abfss"):
        # Zarr's own loop would run adlfs: then each process ends with a traceback, as that can't take leave of it.
        return zarr.storage.FsspecStore(AsyncFileSystemWrapper(path.fs, asynchronous=True), path=path.path)
    if path.protocol in ("s3", "s3a"):  # the class of `emolib.storage.resolve`; by the URL, fsspec would take its own
        return zarr.storage.FsspecStore(type(path.fs)(**path.storage_options, asynchronous=True), path=path.path)
    return zarr.storage.FsspecStore.from_url(str(path))


def _read_group(path: UPath) -> zarr.Group | None:
    """Return the group at a path, opened for reading and writing, or None where there is none."""
    if not (path / "zarr.json").exists():  # zarr would make the folder before it finds nothing in it
        return None
    try:
        return zarr.open_group(_zarr_store(path), mode="r+", zarr_format=3)
    except ValueError as error:
        raise SettingsError(f"{path} can't be read as a Zarr group ({error}); {_REMEDY}") from error
