"""What is known of calls against what was found, through `emolib.archive.truth`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from emolib.archive import truth as truths
from emolib.errors import SettingsError
from emolib.sound.speech import FRAME_S

CLASSES = ("fear", "joy")


@st.composite
def spoken(draw: st.DrawFn) -> pd.DataFrame:
    """Draw stretches of two channels in tenths of a second."""
    rows = []
    for channel in (0, 1):
        now = 0
        for gap, length, label in draw(
            st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60), st.integers(-1, 1)), max_size=8)
        ):
            now += gap
            rows.append((channel, now / 10, (now + length) / 10, label))
            now += length
    table = pd.DataFrame(rows, columns=["channel", "start_s", "end_s", "label"])
    return table.assign(uri="a", voice=[f"v{channel}" for channel in table["channel"]])


@given(spoken())
def test_a_window_counts_if_half_of_it_is_speech_of_one_class(truth: pd.DataFrame) -> None:
    windows = pd.DataFrame(
        [("a", channel, float(start), start + 4.0) for channel in (0, 1) for start in range(0, 30, 2)],
        columns=["uri", "channel", "start_s", "end_s"],
    )
    found = truths.window_truth(windows, truth, CLASSES)
    for window, judged in zip(windows.itertuples(), found.itertuples(), strict=True):
        # Tenth by tenth: which class is spoken.
        own = truth[truth["channel"] == window.channel]
        middles = np.arange(round(10 * window.start_s), round(10 * window.end_s))[:, np.newaxis] + 0.5
        inside = (10 * own["start_s"].to_numpy() <= middles) & (middles <= 10 * own["end_s"].to_numpy())
        tenths = own["label"].to_numpy()[np.nonzero(inside)[1]].tolist()
        assert judged.speech_s == pytest.approx(len(tenths) / 10, abs=1e-6)
        if not tenths:
            expected = "no_speech"
        elif len(set(tenths)) > 1:
            expected = "several_emotions"
        elif len(tenths) < 20:
            expected = "little_speech"
        else:
            expected = "no_class" if tenths[0] < 0 else "counted"
        if len(tenths) != 20:  # where it is just a half, rounding decides
            assert judged.verdict == expected
        if judged.verdict == truths.COUNTED:
            assert (judged.true, judged.voice) == (CLASSES[tenths[0]], f"v{window.channel}")


@given(spoken(), st.integers(0, 400))
def test_frames_are_speech_where_half_of_them_is(truth: pd.DataFrame, count: int) -> None:
    own = truth[truth["channel"] == 0]
    found = truths.frames(own["start_s"].to_numpy(), own["end_s"].to_numpy(), count)
    assert found.shape == (count,)
    middles = (np.arange(3 * count) + 0.5) * FRAME_S / 3
    inside = np.zeros(len(middles), bool)
    for start, end in zip(own["start_s"], own["end_s"], strict=True):
        inside |= (start <= middles) & (middles < end)
    thirds = inside.reshape(count, 3).sum(axis=1)
    assert found[thirds == 3].all()
    assert not found[thirds == 0].any()


def test_the_table_is_read_as_it_was_written_and_refused_where_it_is_none(tmp_path: Path) -> None:
    row = dict.fromkeys(truths.COLUMNS.names, "x") | {"channel": 0, "start_s": 0.0, "end_s": 1.0, "gender": None}
    table = pd.DataFrame([row])
    truths.write(tmp_path / "truth.parquet", table)
    found = truths.read(tmp_path / "truth.parquet")
    assert found.columns.tolist() == truths.COLUMNS.names
    assert found["end_s"].tolist() == [1.0]
    table.drop(columns="emotion").to_parquet(tmp_path / "lacking.parquet")
    with pytest.raises(SettingsError, match="no column emotion"):
        truths.read(tmp_path / "lacking.parquet")
    truths.write(tmp_path / "still.parquet", table.assign(end_s=0.0))
    with pytest.raises(SettingsError, match="ends after it begins"):
        truths.read(tmp_path / "still.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    for name in ("text.parquet", "nowhere.parquet"):
        with pytest.raises(SettingsError, match="expected a Parquet table"):
            truths.read(tmp_path / name)
