import errno
import math
import os
import signal
import threading
import unicodedata
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from emolib.archive import database
from emolib.archive.calls import UNKNOWN_DATE, call_date
from emolib.archive.duplicates import orphans
from emolib.archive.listing import described, store
from emolib.archive.plan import KNOWN, PLAN_SCHEMA, Choice
from emolib.archive.planning import Planner, plan
from emolib.errors import Code
from emolib.sound.manifest import Recording, recording_id

NAMES = st.builds(
    "{}/{}{}".format,
    st.sampled_from(["2024-05-01", "2024-05-02", "20240503", "undated"]),
    st.text("abcäé", min_size=1, max_size=4),
    st.sampled_from([".wav", ".gsm", ".MP3", ""]),
)
_COLUMNS = ["recording_id", "uri", "version", "size", "modified_s"]
FILES = st.dictionaries(NAMES, st.tuples(st.integers(0, 10**7), st.floats(0, 2e9)), max_size=40)


def _listing(files: dict[str, tuple[int, float]]) -> pd.DataFrame:
    rows = [(recording_id(uri), uri, f"{size}-1", size, modified_s) for uri, (size, modified_s) in files.items()]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _known(listing: pd.DataFrame) -> pd.DataFrame:
    return listing[["recording_id", "version"]].assign(code="ok", attempts=1)


@given(FILES, st.floats(1, 2000), st.integers(1, 10), st.data())
def test_a_plan_holds_each_unknown_recording_once_in_blocks_of_one_date(
    files: dict[str, tuple[int, float]], block_s: float, most: int, data: st.DataObject
) -> None:
    listing = _listing(files)
    is_known = data.draw(st.lists(st.booleans(), min_size=len(listing), max_size=len(listing)))
    known = _known(listing[np.array(is_known, bool)])
    planned = plan(listing.itertuples(index=False), known, block_s=block_s, max_recordings=most)

    assert list(planned.columns) == PLAN_SCHEMA.names
    assert sorted(planned["recording_id"]) == sorted(set(listing["recording_id"]) - set(known["recording_id"]))
    assert sorted(set(planned["block"])) == list(range(planned["block"].nunique()))
    for _, block in planned.groupby("block"):
        assert len(set(block["date"])) == 1
        assert len(block) <= most
        assert len(block) == 1 or block["estimated_s"].sum() <= block_s * (1 + 1e-9)

    order = data.draw(st.permutations(range(len(listing))))
    shuffled = plan(listing.iloc[order].itertuples(index=False), known, block_s=block_s, max_recordings=most)
    pd.testing.assert_frame_equal(planned, shuffled)


_SPELLINGS = st.tuples(
    st.text("aé", min_size=1, max_size=2),
    st.lists(st.sampled_from(["NFC", "NFD"]), min_size=1, max_size=2, unique=True),
    st.lists(st.sampled_from(["1", "2", "missing", "unreadable"]), min_size=2, max_size=2),
    st.sampled_from([None, "1", "2", "ambiguous"]),
)


@given(st.lists(_SPELLINGS, max_size=6, unique_by=lambda each: each[0]), st.randoms(use_true_random=False))
def test_files_whose_names_differ_in_their_unicode_form_are_one_recording(
    drawn: list[tuple[str, list[str], list[str], str | None]], random: Any
) -> None:
    """It is due, as ambiguous, unless its row tells of one of them as it is, or one can't be looked at."""
    listed, known, expected = [], [], []
    for name, forms, versions, before in drawn:
        uris = sorted({unicodedata.normalize(form, f"2024-05-01/{name}.wav") for form in forms})
        files = [(recording_id(uri), uri, version, 9, 0.0) for uri, version in zip(uris, versions, strict=False)]
        listed += files
        there, looked_at = {file[2] for file in files}, not {"missing", "unreadable"} & {file[2] for file in files}
        if before is not None:
            known.append((files[0][0], before, "ambiguous" if before == "ambiguous" else "ok", 1))
        version = "ambiguous" if len(files) > 1 else files[0][2]
        if before is None or (looked_at and before not in {version, *there}):
            names = " and ".join(map(ascii, uris)) if len(files) > 1 else None
            expected.append((uris[0], version, names, before is not None))
    random.shuffle(listed)
    rows = pd.DataFrame(known, columns=["recording_id", "version", "code", "attempts"])
    planned = plan([Recording(*each) for each in listed], rows, block_s=60)
    named = planned["ambiguous"].astype(object).where(planned["ambiguous"].notna(), None)
    found = zip(planned["uri"], planned["version"], named, planned["replaces"], strict=True)
    assert list(found) == sorted(expected)


def test_an_ambiguous_recording_is_tried_again_as_one_alone() -> None:
    listing = _listing({"caf\u00e9.wav": (1, 0.0), "cafe\u0301.wav": (2, 5.0), "b.wav": (1, 0.0)})
    known = _known(listing).drop_duplicates("recording_id").assign(code=["unreadable", "ok"])

    def due(**choice: Any) -> list[tuple[str, str, int]]:
        chosen = Choice(now_s=1000.0, **choice)
        planned = plan(listing.itertuples(index=False), known, block_s=60, choice=chosen)
        return list(planned[["uri", "version", "attempts"]].itertuples(index=False, name=None))

    assert due() == [("cafe\u0301.wav", "ambiguous", 2)]
    assert due(settle_s=996.0) == []  # the younger of the two may still be written to
    known["code"] = ["ambiguous", "ok"]
    known["version"] = ["ambiguous", "1-1"]
    assert due() == []
    assert due(retry=frozenset([Code.AMBIGUOUS])) == [("cafe\u0301.wav", "ambiguous", 2)]


@pytest.mark.parametrize(
    "choice", [Choice(), Choice(date="2024-05-01"), Choice(since="2024-05-01"), Choice(limit_s=60.0, backfill_s=30.0)]
)
def test_where_nothing_is_new_nothing_is_chosen(choice: Choice) -> None:
    listing = pd.DataFrame([("a", "2024-05-01/a.wav", "1", 960_000, 0.0)], columns=_COLUMNS)
    assert plan(listing.itertuples(index=False), _known(listing), block_s=600.0, choice=choice).empty


def test_of_two_rows_of_a_recording_the_one_that_was_tried_most_often_counts() -> None:
    recordings = [Recording("a", "2024-05-01/a.wav", "1", 960_000, 0.0)]
    for attempts in ((1, 3), (3, 1)):
        known = pd.DataFrame([("a", "1", "ok", each) for each in attempts], columns=KNOWN.names[:4])
        assert plan(recordings, known, block_s=600.0)["attempts"].tolist() == [4]


def test_a_folder_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database._SETTINGS, "memory_limit", "30MB")
    uris = map("2024-05-01/{}.wav".format, range(10**5))
    listing = pa.concat_tables(described(Recording(recording_id(uri), uri, "1", 1, 0.0) for uri in uris))
    (folder := tmp_path / "folder").touch()  # nothing can be written below a file
    planner = Planner(listing, KNOWN.empty_table(), folder=folder)
    with pytest.raises(OSError, match=r"no room to plan in.*TMPDIR") as raised:
        planner.taken(Choice(limit_s=0.5, backfill_s=0.25))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(folder))


def test_who_stops_a_job_while_it_plans_interrupts_it(tmp_path: Path) -> None:
    uris = map("2024-05-01/{}.wav".format, range(10**5))
    recordings = (Recording(recording_id(uri), uri, "1", 1, 0.0) for uri in uris)
    listing = store(described(recordings), tmp_path / "listing.parquet").place
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        for seconds in (0.1, 0.3, 0.5):
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                _plan_for_ever(Planner(listing, KNOWN.empty_table(), folder=tmp_path))
    finally:
        signal.signal(signal.SIGUSR1, before)


def _plan_for_ever(planner: Planner) -> None:
    while True:
        planner.taken(Choice(limit_s=1.0))
        for _ in planner.plan(Choice(), block_s=1.0):
            pass


_DAYS = ["2024-05-01", "2024-05-02", "2024-05-03", "undated"]
_CODES = [code.value for code in Code]
RECORDINGS = st.lists(
    st.tuples(
        st.sampled_from(_DAYS),
        st.sampled_from(["1", "2", "missing"]),  # its version
        st.integers(0, 10**7),
        st.sampled_from([0.0, 1.7e9, math.nan]),
        # What is known of it: version, code, attempts, content_hash, of which it is a copy, fingerprint; how often.
        st.none()
        | st.tuples(
            st.sampled_from(["1", "2"]),
            st.sampled_from([*_CODES, *["duplicate"] * len(_CODES)]),
            st.integers(1, 4),
            st.sampled_from([None, "h1", "h2"]),
            st.integers(0, 20),
            st.sampled_from(["f", "g"]),
            st.sampled_from([1, 1, 1, 2]),
        ),
    ),
    max_size=20,
)
CHOICES = st.builds(
    Choice,
    retry=st.frozensets(st.sampled_from(list(Code)), max_size=2),
    rescore=st.sampled_from([None, "f"]),
    keep_since=st.sampled_from([None, "2024-05-02"]),
    date=st.sampled_from([None, None, "2024-05-03"]),
    since=st.sampled_from([None, "2024-05-03"]),
    limit_s=st.sampled_from([math.inf, 0.0, 700.0, 2000.0]),
    backfill_s=st.sampled_from([0.0, 500.0, math.inf]),
    now_s=st.just(1.7e9),
    settle_s=st.sampled_from([0.0, 300.0, math.inf]),
)


@given(RECORDINGS, CHOICES)
def test_what_is_due_and_taken_is_what_the_words_say(rows: list[Any], choice: Choice) -> None:
    recordings, known = [], []
    for number, (day, version, size, modified_s, row) in enumerate(rows):
        name = f"id{number:02d}"
        recordings.append(Recording(name, f"{day}/{number:02d}.wav", version, size, modified_s))
        if row is not None:
            was, code, attempts, content, copied, made, times = row
            of = f"id{copied:02d}" if code == "duplicate" else None
            known += [(name, was, code, attempts, content, of, made)] * times
    table = pd.DataFrame(known, columns=KNOWN.names)
    planned = plan(recordings, table, block_s=1000.0, choice=choice)
    found = list(zip(planned["recording_id"], planned["attempts"], planned["replaces"], strict=True))
    assert found == _by_hand(recordings, table, choice)


def test_a_row_keeps_its_date_where_another_one_is_read_now() -> None:
    """Scored under the day of modification, before its path was read: it is not planned, so neither moved nor twice."""
    rows = [Recording(recording_id(uri), uri, "2", 16_000, 1e9) for uri in ("2024.05.01/a.wav", "20240501080000.wav")]
    known = _known(pd.DataFrame(rows))
    assert plan(rows, known, block_s=600).empty
    assert plan(rows, known, block_s=600, choice=Choice(keep_since="2010-01-01", date="2024-05-01")).empty
    assert plan(rows, known[:1], block_s=600)["date"].tolist() == ["2024-05-01"]
    # Only what is scored again for another reason gets it: the one row of the recording is replaced.
    again = plan([row._replace(version="3") for row in rows], known, block_s=600)
    assert again[["date", "replaces"]].to_numpy().tolist() == [["2024-05-01", True]] * 2


def _by_hand(recordings: list[Recording], known: pd.DataFrame, choice: Choice) -> list[tuple[str, int, bool]]:
    last, lost, due = {row.recording_id: row for row in known.itertuples()}, orphans(known), []
    twice = set(known.loc[known["recording_id"].duplicated(), "recording_id"])
    for each in recordings:
        row, readable = last.get(each.recording_id), each.version not in ("missing", "unreadable")
        changed = row is None or (row.version != each.version and readable)
        is_due = changed or each.recording_id in twice | lost
        if row is not None:
            passing = row.code in ("unreadable", "timeout", "missing", "changed") and row.attempts < 3
            otherwise = choice.rescore not in (None, row.scoring_fingerprint) and readable
            is_due = is_due or passing or otherwise or Code(row.code) in choice.retry
        date, _ = call_date(each.uri, each.modified_s)
        if is_due and not abs(each.modified_s - choice.now_s) < choice.settle_s:
            if date != UNKNOWN_DATE and choice.keep_since is not None and date < choice.keep_since:
                continue
            if choice.date in (None, date):
                attempts = 1 if changed else row.attempts + 1
                due.append((date, each.uri, each.size / 16_000, (each.recording_id, attempts, row is not None)))
    backfill_s = min(choice.backfill_s, choice.limit_s)
    new = [each for each in due if choice.since is None or each[0] >= choice.since]
    newest_first = sorted(sorted(new, key=itemgetter(1)), key=itemgetter(0), reverse=True)
    taken = _first(newest_first, math.inf if math.isinf(choice.limit_s) else choice.limit_s - backfill_s)
    taken += _first(sorted(each for each in due if each not in taken), backfill_s)
    return [each[-1] for each in sorted(taken)]


def _first(rows: list[Any], seconds: float) -> list[Any]:
    so_far = list(accumulate(row[2] for row in rows))
    return (
        [row for row, until in zip(rows, so_far, strict=True) if until <= seconds or row is rows[0]] if seconds else []
    )
