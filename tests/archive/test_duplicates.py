"""Files with the same bytes: one is the original, the others are not listened to."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from hypothesis import given, strategies as st

from emolib.archive.duplicates import hash_files, to_hash, with_originals
from emolib.sound.manifest import list_recordings

_KNOWN = ["recording_id", "uri", "version", "size", "code", "direction", "content_hash"]


def _plan(contents: list[int], prefix: str = "p") -> pd.DataFrame:
    names = [f"{prefix}{number}" for number in range(len(contents))]
    return pd.DataFrame(
        {"recording_id": names, "uri": names, "size": 7, "direction": None, "content": [str(each) for each in contents]}
    )


@given(
    planned=st.lists(st.integers(0, 3), max_size=8),
    before=st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["ok", "corrupt", "duplicate", "missing", "policy"]), st.booleans()
        )
    ),
)
def test_of_each_content_one_recording_is_scored(planned: list[int], before: list[tuple[int, str, bool]]) -> None:
    plan = _plan(planned)
    known = _plan([content for content, _, _ in before], "k").assign(code=[code for _, code, _ in before])
    stored = [is_stored for _, _, is_stored in before]
    known = known.assign(content_hash=known["content"].where(pd.Series(stored, dtype=bool), None))
    hashes = pd.concat([plan, known[known["content_hash"].isna()]]).set_index("recording_id")["content"].to_dict()
    found = with_originals(plan, known, hashes)
    originals = known[known["code"].isin(["ok", "corrupt", "policy"])]
    for content, rows in found.groupby("content"):
        scored = rows[rows["duplicate_of"].isna()]
        there = originals[originals["content"] == content]["uri"]
        assert list(scored["uri"]) == ([] if len(there) else [rows["uri"].min()])
        first = there.min() if len(there) else rows["uri"].min()
        assert set(rows["duplicate_of"].dropna()) <= {first}
    shuffled = plan.sample(frac=1.0, random_state=0)
    pd.testing.assert_frame_equal(with_originals(shuffled, known, hashes).sort_index(), found)


def test_only_what_may_be_the_same_is_read_and_what_changed_has_no_hash(tmp_path: Path) -> None:
    for name, data in (("a", b"12345"), ("b", b"12345"), ("c", b"54321"), ("d", b"1"), ("e", b"12345")):
        (tmp_path / name).write_bytes(data)
    listing = pd.DataFrame(list(list_recordings(tmp_path))).set_index("uri", drop=False).rename_axis(None)
    new = listing.loc[["a", "e"]].assign(direction=None)
    known = listing.loc[["b", "c", "d"]].assign(code="ok", direction=None, content_hash=[None, "stored", None])[_KNOWN]
    files = to_hash(new, listing, known)
    assert list(files["uri"]) == ["a", "b", "e"]
    (tmp_path / "e").write_bytes(b"123456")
    hashes = hash_files(tmp_path, files[["recording_id", "uri", "version"]].itertuples(index=False, name=None))
    a, b = (listing.loc[name, "recording_id"] for name in "ab")
    assert hashes[a] == hashes[b]
    assert len(hashes) == 2
    assert with_originals(new, known, hashes)["duplicate_of"].tolist() == [b, None]


def test_empty_files_are_no_duplicates() -> None:
    plan = _plan([1, 1]).assign(size=0)
    known = pd.DataFrame(columns=_KNOWN)
    found = with_originals(plan, known, {"p0": "same", "p1": "same"})
    assert found["duplicate_of"].isna().all()
