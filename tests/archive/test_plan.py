import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from emolib.archive.plan import LISTING_COLUMNS, PLAN_SCHEMA, Choice, plan
from emolib.errors import SettingsError
from emolib.sound.manifest import recording_id

NAMES = st.builds(
    "{}/{}{}".format,
    st.sampled_from(["2024-05-01", "2024-05-02", "20240503", "undated"]),
    st.text("abcäé", min_size=1, max_size=4),
    st.sampled_from([".wav", ".gsm", ".MP3", ""]),
)
FILES = st.dictionaries(NAMES, st.tuples(st.integers(0, 10**7), st.floats(0, 2e9)), max_size=40)


def _listing(files: dict[str, tuple[int, float]]) -> pd.DataFrame:
    rows = [(recording_id(uri), uri, f"{size}-1", size, modified_s) for uri, (size, modified_s) in files.items()]
    return pd.DataFrame(rows, columns=LISTING_COLUMNS)


def _known(listing: pd.DataFrame) -> pd.DataFrame:
    return listing[["recording_id", "version"]].assign(code="ok", attempts=1)


@settings(max_examples=30, deadline=None)
@given(FILES, st.floats(1, 2000), st.integers(1, 10), st.data())
def test_a_plan_holds_each_unknown_recording_once_in_blocks_of_one_date(
    files: dict[str, tuple[int, float]], block_s: float, most: int, data: st.DataObject
) -> None:
    listing = _listing(files)
    is_known = data.draw(st.lists(st.booleans(), min_size=len(listing), max_size=len(listing)))
    known = _known(listing[np.array(is_known, bool)])
    planned = plan(listing, known, block_s=block_s, max_recordings=most)

    assert list(planned.columns) == PLAN_SCHEMA.names
    assert sorted(planned["recording_id"]) == sorted(set(listing["recording_id"]) - set(known["recording_id"]))
    assert sorted(set(planned["block"])) == list(range(planned["block"].nunique()))
    for _, block in planned.groupby("block"):
        assert len(set(block["date"])) == 1
        assert len(block) <= most
        assert len(block) == 1 or block["estimated_s"].sum() <= block_s * (1 + 1e-9)

    order = data.draw(st.permutations(range(len(listing))))
    shuffled = plan(listing.iloc[order], known, block_s=block_s, max_recordings=most)
    pd.testing.assert_frame_equal(planned, shuffled)


def test_two_spellings_of_one_name_are_refused() -> None:
    listing = _listing({"caf\u00e9.wav": (1, 0.0), "cafe\u0301.wav": (1, 0.0)})
    with pytest.raises(SettingsError, match="NFC"):
        plan(listing, _known(listing[:0]), block_s=60)


@pytest.mark.parametrize(
    "choice", [Choice(), Choice(date="2024-05-01"), Choice(since="2024-05-01"), Choice(limit_s=60.0, backfill_s=30.0)]
)
def test_where_nothing_is_new_nothing_is_chosen(choice: Choice) -> None:
    listing = pd.DataFrame([("a", "2024-05-01/a.wav", "1", 960_000, 0.0)], columns=LISTING_COLUMNS)
    assert plan(listing, _known(listing), block_s=600.0, choice=choice).empty
