from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from upath import UPath

from emolib.archive import read
from emolib.archive.predictions import Part, parts, write_part
from emolib.archive.schemas import COLUMNS, TABLES, schema
from emolib.archive.verification import verify
from emolib.errors import SettingsError


def test_every_column_is_explained() -> None:
    for columns in COLUMNS.values():
        assert all(column.meaning for column in columns)
        assert all(column.unit for column in columns if column.name.endswith(("_s", "_hz", "_db")))


def test_pandas_and_duckdb_read_the_tables_as_they_lie(stored_predictions: Path) -> None:
    for table in TABLES:
        ours = read(stored_predictions, table=table)
        pandas = pd.read_parquet(stored_predictions / table)
        assert len(pandas) == len(ours)
        assert set(pandas.columns) == set(ours.columns)
        files = f"{stored_predictions}/{table}/*/*.parquet"
        days = duckdb.sql(f"select date, count(*) from read_parquet('{files}', hive_partitioning=true) group by 1")
        assert {str(day): count for day, count in days.fetchall()} == {
            str(day.date()): count for day, count in ours["date"].value_counts().items()
        }


def test_reading_one_date(stored_predictions: Path) -> None:
    rows = read(stored_predictions, table="recordings", date="2024-05-02")
    assert set(rows["date"]) == {pd.Timestamp("2024-05-02")}
    assert len(rows) == 2
    assert read(stored_predictions, table="windows", date="1999-01-01").empty


def test_uncommitted_rows_are_not_read(pred: Path) -> None:
    before = read(pred, table="windows")
    done = parts(pred, "recordings")[0]
    done.path(pred, "recordings").unlink()
    after = read(pred, table="windows")
    lost = pq.read_metadata(done.path(pred, "windows")).num_rows
    assert len(after) == len(before) - lost < len(before)


def test_the_same_rows_give_the_same_bytes_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    classes = ("negative", "positive")
    rows = schema("windows", classes).empty_table()
    one, two = (Part("2024-05-01", "20240501T230000-3f2a", block) for block in (1, 2))
    for part in (one, two):
        write_part(tmp_path, "windows", part, rows, classes=classes)
    assert one.path(tmp_path, "windows").read_bytes() == two.path(tmp_path, "windows").read_bytes()
    assert parts(tmp_path, "windows") == [one, two]
    with pytest.raises(ValueError, match="expected"):
        write_part(tmp_path, "windows", one, rows, classes=("negative",))


def test_an_object_store_holds_predictions_as_a_disk_does(start: Any, finish: Any, stored_predictions: Path) -> None:
    store = UPath("memory://test-predictions/pred")
    finish(start(store))
    for table in TABLES:
        there, here = (read(pred, table=table).drop(columns="run_id") for pred in (store, stored_predictions))
        pd.testing.assert_frame_equal(there, here)
    assert verify(store).ok


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no predictions"):
        read(tmp_path, table="windows")
    with pytest.raises(SettingsError, match="one of recordings"):
        read(tmp_path, table="sentences")
