"""Runs of one emotion, made from windows that overlap."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, strategies as st

from emolib.archive.segments import COLUMNS, segments

# Of one channel: for each window how far behind the last one it begins (s), how long it is, and its emotion.
_WINDOWS = st.lists(
    st.tuples(
        st.sampled_from([0.5, 2.0, 4.0, 9.0]), st.sampled_from([4.0, 4.0, 2.5]), st.sampled_from(["a", "b", None])
    ),
    max_size=12,
)


def _table(channels: list[list[tuple[float, float, str | None]]]) -> pd.DataFrame:
    rows = []
    for channel, windows in enumerate(channels):
        start = end = 0.0
        for step, length, emotion in windows:
            start = start + step
            end = max(end + 0.25, start + length)  # as in a recording: no window ends before the one before it
            rows.append(("r", channel, start, end, emotion, 0.5, 0.25, 0.25, 0.5))
    names = [name for name in COLUMNS if name != "windows"]
    return pd.DataFrame(rows, columns=names).astype({"confidence": np.float32})


@given(st.lists(_WINDOWS, max_size=3))
def test_each_moment_is_in_one_segment_at_most_and_no_labelled_window_is_lost(
    channels: list[list[tuple[float, float, str | None]]],
) -> None:
    windows = _table(channels)
    found = segments(windows)
    assert list(found.columns) == list(COLUMNS)
    assert found["windows"].sum() == windows["emotion"].notna().sum()
    assert (found["end_s"] > found["start_s"]).all()
    for (_, channel), group in found.groupby(["recording_id", "channel"]):
        assert (group["start_s"].to_numpy()[1:] >= group["end_s"].to_numpy()[:-1]).all()
        own = windows[windows["channel"] == channel]
        for segment in group.itertuples():  # its sound is that of windows with its emotion
            inside = own[(own["start_s"] < segment.end_s) & (own["end_s"] > segment.start_s)]
            assert segment.emotion in set(inside["emotion"])
            assert segment.start_s >= inside["start_s"].min()
            assert segment.end_s <= inside["end_s"].max()
        # Two that touch differ, or a silent window or a gap would be between them.
        touching = np.isclose(group["start_s"].to_numpy()[1:], group["end_s"].to_numpy()[:-1])
        assert (group["emotion"].to_numpy()[1:][touching] != group["emotion"].to_numpy()[:-1][touching]).all()


def test_types_do_not_depend_on_what_was_labelled() -> None:
    means = dict.fromkeys((f"polarity_{name}" for name in ("negative", "neutral", "positive")), np.float32)
    windows = _table([[(0.0, 4.0, "a"), (2.0, 4.0, None)]]).astype(means)
    expected = list(segments(windows).dtypes.items())
    for others in (windows[:0], windows[1:]):
        assert list(segments(others.reset_index(drop=True)).dtypes.items()) == expected


def test_means_are_over_time() -> None:
    windows = _table([[(0.0, 4.0, "a"), (2.0, 4.0, "a"), (2.0, 4.0, "a")]]).assign(confidence=[0.5, 0.25, 0.75])
    (segment,) = segments(windows).itertuples()
    # The first and the last speak for 3 s, the one between them for 2.
    assert (segment.start_s, segment.end_s, segment.windows) == (0.0, 8.0, 3)
    assert segment.confidence == (3 * 0.5 + 2 * 0.25 + 3 * 0.75) / 8


def test_an_abstention_ends_a_segment_and_is_in_none() -> None:
    found = segments(_table([[(0.0, 4.0, "a"), (4.0, 4.0, None), (4.0, 4.0, "a")]]))
    assert found[["start_s", "end_s"]].to_numpy().tolist() == [[0.0, 4.0], [8.0, 12.0]]
