"""The store: whole shards only, an outcome for every row, and nothing taken for what it is not."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from emolib.config import TELEPHONE
from emolib.errors import Code, SettingsError
from emolib.features.store import FeatureStore, verify, windows_path

_ROWS, _SHARD = 10, 4


def rows(count: int = _ROWS) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "utterance_id": [f"c/{number}" for number in range(count)],
            "window": 0,
            "corpus": "c",
            "speaker": "s",
            "gender": None,
            "emotion": "sad",
            "uri": [f"{number}.wav" for number in range(count)],
            "channel": None,
            "start_s": 0.0,
            "end_s": 4.0,
            "variant": "clean",
            "content_hash": "0",
            "code": "ok",
            "message": None,
        }
    )


def created(path: Path | str) -> FeatureStore:
    return FeatureStore.create(path, profile=TELEPHONE, windows=rows(), shard_windows=_SHARD, chunk_windows=2)


def fill(store: FeatureStore, shard: int, value: float = 1.0) -> None:
    start, stop = store.shards[shard]
    features = np.full((stop - start, *store.shape[1:]), value, np.float32)
    store.write_shard(shard, features, np.full(stop - start, 249), np.full(stop - start, Code.OK.status))


@pytest.mark.parametrize("place", ["local", "memory"])
def test_what_is_written_is_read_by_whoever_opens_it(place: str, tmp_path: Path) -> None:
    path = tmp_path / "S.zarr" if place == "local" else "memory://store/S.zarr"
    store = created(path)
    assert store.shards == [(0, 4), (4, 8), (8, 10)]
    for shard in (2, 0, 1):
        fill(store, shard, value=shard)
    opened = FeatureStore.open(path)
    features, valid_frames = opened.read(0, _ROWS)
    assert features[:, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert valid_frames.tolist() == [249] * _ROWS
    assert opened.profile == TELEPHONE
    pd.testing.assert_frame_equal(opened.windows, opened.windows.assign(**rows()[["utterance_id", "emotion"]]))
    assert [row["utterance_id"] for row in opened.shard_windows(2)] == ["c/8", "c/9"]


def test_a_store_that_cannot_be_asked_for_the_last_bytes_of_a_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's answers to that are no answers, and zarr looks for a shard's index at its end if nothing else is said."""
    read = MemoryFileSystem.cat_file

    def cat_file(self: Any, path: str, start: int | None = None, end: int | None = None, **named: Any) -> bytes:
        assert start is None or start >= 0, f"the last {start} bytes of {path} asked for"
        return bytes(read(self, path, start, end, **named))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    store = created("memory://azure/S.zarr")
    fill(store, 0)
    features, _ = FeatureStore.open("memory://azure/S.zarr").read(
        1, 3
    )  # a part: of a whole shard no index is asked for
    assert features[:, 0, 0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("shard", "shape"),
    [
        (0, (3, 249, 40)),
        (0, (5, 249, 40)),  # would reach into the next shard
        (0, (4, 248, 40)),
        (2, (4, 249, 40)),  # the last shard has two rows
        (3, (4, 249, 40)),
        (-1, (2, 249, 40)),
    ],
)
def test_what_is_not_one_whole_shard_is_not_written(shard: int, shape: tuple[int, int, int], tmp_path: Path) -> None:
    store = created(tmp_path / "S.zarr")
    with pytest.raises(ValueError, match="expected"):
        store.write_shard(shard, np.ones(shape, np.float32), np.ones(shape[0]), np.ones(shape[0]))
    assert not store.status().any()
    assert not store.read(0, _ROWS)[0].any()


def test_a_row_without_an_outcome_is_not_written(tmp_path: Path) -> None:
    store = created(tmp_path / "S.zarr")
    with pytest.raises(ValueError, match="pending"):
        store.write_shard(0, np.ones((4, 249, 40), np.float32), np.ones(4), np.array([1, 1, 0, 1]))
    assert not store.status().any()


def test_shards_of_broken_chunks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 windows in chunks of 3"):
        FeatureStore.create(tmp_path / "S.zarr", profile=TELEPHONE, windows=rows(), shard_windows=4, chunk_windows=3)
    assert list(tmp_path.iterdir()) == []


def test_writers_side_by_side_do_not_harm_each_other(tmp_path: Path) -> None:
    path = tmp_path / "S.zarr"
    shards = created(path).shards

    def write(shard: int) -> None:
        fill(FeatureStore.open(path), shard, value=shard + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, 4 * list(range(len(shards)))))  # each of them four times: a task may run twice
    store = FeatureStore.open(path)
    store.finish()
    for shard, (start, stop) in enumerate(shards):
        np.testing.assert_array_equal(store.read(start, stop)[0], np.float32(shard + 1))
    assert verify(store) == []


def test_it_is_complete_when_no_row_is_pending(tmp_path: Path) -> None:
    store = created(tmp_path / "S.zarr")
    fill(store, 0)
    with pytest.raises(ValueError, match="6 pending"):
        store.finish()
    assert verify(store) == ["6 rows are pending: continue with --resume"]
    fill(store, 1)
    fill(store, 2)
    store.finish()
    assert FeatureStore.open(tmp_path / "S.zarr").complete
    assert verify(store) == []


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    litter = [
        tmp_path / "S.zarr" / "features" / "c" / "0" / "0" / "0.abc.partial",
        tmp_path / "S.zarr" / "zarr.abc.partial",
        tmp_path / ".S.windows.parquet.abc.partial",
    ]
    neighbour = tmp_path / ".T.windows.parquet.abc.partial"
    store = created(tmp_path / "S.zarr")
    for shard in range(3):
        fill(store, shard)
    for left in (*litter, neighbour):
        left.write_bytes(b"the beginning of something")
    assert FeatureStore.open(tmp_path / "S.zarr").read(0, 4)[0].all()
    store.finish()
    assert list(tmp_path.rglob("*.partial")) == [neighbour]
    assert verify(store) == []


def test_an_object_store_is_finished_without_litter() -> None:
    store = created("memory://litter/S.zarr")
    for shard in range(3):
        fill(store, shard)
    store.finish()
    assert not [name for name in store.path.fs.find("/litter") if name.endswith(".partial")]
    assert FeatureStore.open("memory://litter/S.zarr").complete


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "S.zarr"
    created(path)
    with pytest.raises(SettingsError, match="--resume"):
        created(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("keep me")
    with pytest.raises(SettingsError, match="exists"):
        created(tmp_path / "folder")


def test_what_an_interrupted_creation_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "S.zarr"
    created(path)
    zarr.open_group(path, mode="r+").attrs["planned"] = False
    assert not FeatureStore.is_planned(path)
    with pytest.raises(SettingsError, match="interrupted"):
        FeatureStore.open(path)
    assert created(path).shape == (_ROWS, 249, 40)


def test_a_table_that_belongs_to_another_store_is_refused(tmp_path: Path) -> None:
    store = created(tmp_path / "S.zarr")
    rows().assign(emotion="happy").to_parquet(windows_path(store.path))
    with pytest.raises(SettingsError, match="copy both"):
        _ = store.windows
    windows_path(store.path).unlink()
    with pytest.raises(SettingsError, match="missing"):
        _ = store.windows


def test_the_table_is_read_once_and_its_reader_may_change_what_it_got(tmp_path: Path) -> None:
    created(tmp_path / "S.zarr")
    opened = FeatureStore.open(tmp_path / "S.zarr")
    found = opened.windows
    assert found["channel"].dtype == "Int8"
    windows_path(opened.path).unlink()
    found["emotion"] = "happy"
    assert opened.windows["emotion"].tolist() == ["sad"] * _ROWS
    assert opened.utterance_codes().tolist() == ["pending"] * _ROWS
    with pytest.raises(SettingsError, match="missing"):
        _ = FeatureStore.open(tmp_path / "S.zarr").windows


def test_another_zarr_group_is_no_store(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "S.zarr", mode="w")
    with pytest.raises(SettingsError, match="no feature store"):
        FeatureStore.open(tmp_path / "S.zarr")


def test_numbers_that_are_not_finite_are_found(tmp_path: Path) -> None:
    store = created(tmp_path / "S.zarr")
    for shard in range(3):
        fill(store, shard, value=np.nan if shard == 1 else 1.0)
    store.finish()
    assert verify(store) == ["rows 4 to 7 hold numbers that are not finite"]


def test_a_store_that_is_away_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = created(tmp_path / "S.zarr")

    def fails(*arguments: Any) -> None:
        raise RuntimeError("Failed to read") from ConnectionResetError("away")  # as adlfs has it

    monkeypatch.setattr(FeatureStore, "read", fails)
    with pytest.raises(RuntimeError, match="Failed to read"):
        verify(store)


def test_a_shard_that_is_lost_or_rotten_is_found(tmp_path: Path) -> None:
    store = created(tmp_path / "S.zarr")
    for shard in range(3):
        fill(store, shard)
    store.finish()
    shards = tmp_path / "S.zarr" / "features" / "c"
    (shards / "0" / "0" / "0").unlink()
    rotten = bytearray((shards / "1" / "0" / "0").read_bytes())
    rotten[len(rotten) // 4] ^= 0xFF
    (shards / "1" / "0" / "0").write_bytes(rotten)
    lost, unreadable = verify(FeatureStore.open(tmp_path / "S.zarr"))
    assert "rows 0 to 3 hold zeros" in lost
    assert "rows 4 to 7 can't be read" in unreadable


class _Code:
    """What runs as soon as somebody unpickles it."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return _run, ("unpickled",)


def _run(said: str) -> None:
    raise AssertionError(said)


def _of_version_2(array: Path) -> None:
    """Objects in a pickle, as zarr 2 kept them."""
    filters = [{"id": "pickle", "protocol": 5}]
    of_array = {"zarr_format": 2, "shape": [10], "chunks": [10], "dtype": "|O", "order": "C", "filters": filters}
    (array / "zarr.json").unlink()
    (array / ".zarray").write_text(json.dumps(of_array | {"compressor": None, "fill_value": None}))
    (array / "0").write_bytes(pickle.dumps(_Code()))


def _changed(**values: object) -> Callable[[Path], None]:
    def change(array: Path) -> None:
        stored = json.loads((array / "zarr.json").read_text())
        (array / "zarr.json").write_text(json.dumps(stored | values))
        (array / "c").mkdir(exist_ok=True)
        for chunk in ("0", "1", "2"):
            (array / "c" / chunk).write_bytes(pickle.dumps(_Code()))

    return change


@pytest.mark.parametrize(
    "changes",
    [
        _of_version_2,
        _changed(codecs=[{"name": "bytes"}, {"name": "numcodecs.pickle", "configuration": {}}]),
        _changed(codecs=[{"name": "numcodecs.pickle", "configuration": {"protocol": 5}}]),
        _changed(data_type="object"),
        _changed(data_type="int64"),
        lambda array: (array / "zarr.json").write_text("{"),
    ],
)
def test_a_store_holds_numbers_and_no_objects(changes: Callable[[Path], None], tmp_path: Path) -> None:
    """Nothing that lies there is unpickled: one line says what was found."""
    created(tmp_path / "S.zarr")
    changes(tmp_path / "S.zarr/status")
    store = FeatureStore.open(tmp_path / "S.zarr")
    with pytest.raises(
        SettingsError, match=r"array status.* expected a store as `emolib extract` writes it"
    ) as refused:
        store.status()
    assert "\n" not in str(refused.value)


def test_a_damaged_group_is_said_in_one_line(tmp_path: Path) -> None:
    created(tmp_path / "S.zarr")
    (tmp_path / "S.zarr/zarr.json").write_text("{")
    with pytest.raises(SettingsError, match="can't be read as a Zarr group"):
        FeatureStore.open(tmp_path / "S.zarr")
