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


@pytest.mark.parametrize("table", [*TABLES, "segments"])
def test_columns_and_their_types_do_not_depend_on_which_rows_are_read(stored_predictions: Path, table: str) -> None:
    """Of the days of this archive one has whole numbers everywhere, one lacks some, one has nothing that was scored."""
    whole = read(stored_predictions, table=table)
    days: list[dict[str, Any]] = [{"date": day} for day in ("2024-05-01", "2024-05-02", "2024-05-03", "1999-01-01")]
    for asked in [*days, {"runs": ["none"]}]:
        some = read(stored_predictions, table=table, **asked)
        assert list(some.dtypes.items()) == list(whole.dtypes.items()), asked


def test_whole_numbers_stay_whole_beside_what_is_not_known(stored_predictions: Path) -> None:
    """A number that may be missing has pandas' nullable type of its width, and a key NumPy's."""
    recordings = read(stored_predictions, table="recordings").set_index("uri")
    assert recordings["sampling_rate"].dtype == "Int32"
    assert recordings["size"].dtype == "Int64"
    assert recordings.loc["2024-05-01/0.wav", "sampling_rate"] == 8000
    assert recordings.loc["2024-05-03/empty.wav", "sampling_rate"] is pd.NA
    assert recordings["agent_interruptions"].dtype == "Int32"  # of all of them nobody knows it
    assert read(stored_predictions, table="windows")["channel"].dtype == "int32"
    assert read(stored_predictions, table="calls")["recordings"].dtype == "Int32"


def test_parts_of_an_older_version_have_all_columns(pred: Path) -> None:
    """Whether or not a newer one is read with them."""
    whole = read(pred, table="recordings")
    for part in parts(pred, "recordings"):
        place = part.path(pred, "recordings")
        old = schema("recordings", (), version=1)
        pq.write_table(pq.read_table(place, partitioning=None).select(old.names).cast(old), place)
    old_rows = read(pred, table="recordings")
    assert list(old_rows.dtypes.items()) == list(whole.dtypes.items())
    assert old_rows["content_hash"].isna().all()


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
