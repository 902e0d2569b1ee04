"""Drift: a night like those before says nothing, a recorder that changed is told apart from callers who did."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from emolib.archive.drift import (
    Drift,
    by_chance,
    compare,
    drift,
    jensen_shannon_distance,
    population_stability_index,
)
from emolib.archive.ledger import Run
from emolib.archive.predictions import Part, write_part
from emolib.archive.run_settings import run_config
from emolib.archive.schemas import schema
from emolib.config import ScoringConfig
from emolib.report.site import write_site
from tests.archive.conftest import FakeBundle

CLASSES = ("negative", "neutral", "positive")
MIX = (0.08, 0.85, 0.05, 0.02)
MONTH = 1500

counts = st.integers(2, 12).flatmap(
    lambda bins: st.tuples(*[st.lists(st.integers(0, 1000), min_size=bins, max_size=bins).filter(any)] * 2)
)


@given(counts)
def test_the_measures_are_symmetric_and_never_below_zero(pair: tuple[list[int], list[int]]) -> None:
    first, second = (np.array(each, float) for each in pair)
    for measure in (population_stability_index, jensen_shannon_distance, by_chance):
        assert 0 <= measure(first, second) == pytest.approx(measure(second, first), rel=1e-9, abs=1e-12)
    assert max(jensen_shannon_distance(first, second), by_chance(first, second)) <= 1


@given(counts, st.integers(1, 100))
def test_equal_shares_are_no_distance(pair: tuple[list[int], list[int]], times: int) -> None:
    first = np.array(pair[0], float)
    assert population_stability_index(first, times * first) == pytest.approx(0, abs=1e-9)
    assert jensen_shannon_distance(first, times * first) == pytest.approx(0, abs=1e-6)
    assert by_chance(first, times * first) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize(("tonight", "before"), [(50, 50), (60, MONTH), (400, 4000)])
def test_a_night_like_those_before_says_nothing(tonight: int, before: int) -> None:
    spoke = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        (found,) = compare(recordings(generator, tonight), recordings(generator, before))
        assert (found.recordings, found.reference, len(found.shifts)) == (tonight, before, 8)
        spoke += found.verdict != "steady"
    assert spoke <= 1  # one in a thousand does: of 6,500 other seeds 6


@pytest.mark.parametrize(
    ("changed", "moved"),
    [
        ({"codec": "1-channel GSM610 at 8000 Hz"}, {"codec"}),
        ({"level_dbfs": -31.0}, {"level_dbfs"}),
        ({"snr_db": 12.0}, {"snr_db"}),
        ({"bandwidth_hz": 2500.0}, {"bandwidth_hz"}),
        ({"code": "no_speech"}, {"code"}),
        ({"codec": "1-channel GSM610 at 8000 Hz", "mix": (0.5, 0.4, 0.05, 0.05)}, {"codec", "emotion"}),
    ],
)
def test_another_recorder_is_told_whatever_the_labels_do(changed: dict[str, Any], moved: set[str]) -> None:
    found = against_a_month(100, **changed)
    assert found.verdict == "recorder"
    assert {each.measure for each in found.moved} == moved
    assert {each.size for each in found.moved} == {"large"}
    assert "nothing is known of the callers" in found.sentence


@pytest.mark.parametrize(
    ("changed", "moved"),
    [
        ({"mix": (0.5, 0.4, 0.05, 0.05)}, {"emotion"}),
        ({"mix": (0.08, 0.55, 0.05, 0.32)}, {"emotion"}),  # more abstentions
        ({"confidence": 0.55}, {"confidence"}),
        ({"decoded_s": 500.0}, {"decoded_s"}),
    ],
)
def test_other_callers_are_told_if_the_recorder_is_as_it_was(changed: dict[str, Any], moved: set[str]) -> None:
    found = against_a_month(100, **changed)
    assert (found.verdict, {each.measure for each in found.moved}) == ("callers", moved)
    assert "nothing shows that the recorder did" in found.sentence


def test_a_change_too_small_to_matter_is_not_told_however_sure_it_is() -> None:
    generator = np.random.default_rng(0)
    (found,) = compare(recordings(generator, 20_000, snr_db=25.6), recordings(generator, 40_000))
    snr = next(each for each in found.shifts if each.measure == "snr_db")
    assert snr.chance < 1e-9
    assert snr.psi < 0.1
    assert found.verdict == "steady"


def test_what_was_and_is_are_said() -> None:
    found = against_a_month(100, codec="1-channel GSM610 at 8000 Hz", snr_db=12.0)
    assert "codec: 1-channel GSM610 at 8000 Hz 0%, now 1-channel GSM610 at 8000 Hz 100% (psi " in found.sentence
    codec, snr = found.moved
    assert (codec.measure, snr.measure) == ("codec", "snr_db")
    assert float(snr.was.removeprefix("median ")) == pytest.approx(25, abs=1)
    assert float(snr.now.removeprefix("median ")) == pytest.approx(12, abs=1)


@pytest.mark.parametrize(("usual", "new"), [(3400.0, 7000.0), (3400.0, 3300.0)])
def test_a_value_that_was_always_the_same_may_leave_in_either_direction(usual: float, new: float) -> None:
    generator = np.random.default_rng(0)
    now, was = (recordings(generator, number).assign(bandwidth_hz=hz) for number, hz in ((60, new), (300, usual)))
    (found,) = compare(now, was)
    assert [each.measure for each in found.moved] == ["bandwidth_hz"]


@pytest.mark.parametrize(("tonight", "before"), [(49, 1000), (1000, 49), (100, 0)])
def test_too_few_recordings_say_nothing(tonight: int, before: int) -> None:
    generator = np.random.default_rng(0)
    (found,) = compare(recordings(generator, tonight, codec="other"), recordings(generator, before))
    assert (found.verdict, found.shifts, found.moved) == ("too few", (), [])


def test_a_measure_that_few_recordings_have_is_left_out() -> None:
    generator = np.random.default_rng(0)
    now = recordings(generator, 100, snr_db=3.0)
    now.loc[40:, "snr_db"] = np.nan
    (found,) = compare(now, recordings(generator, 500))
    assert found.verdict == "steady"
    assert "snr_db" not in {each.measure for each in found.shifts}


def test_groups_are_kept_apart() -> None:
    generator = np.random.default_rng(0)
    usual = {("a", "x"): 300, ("a", "y"): 300, ("b", None): 300}
    was = pd.concat([group(recordings(generator, number), *names) for names, number in usual.items()])
    now = pd.concat(
        [
            group(recordings(generator, 80, codec="other"), "a", "x"),
            group(recordings(generator, 80), "a", "y"),
            group(recordings(generator, 80, mix=(0.6, 0.3, 0.05, 0.05)), "b", None),
            group(recordings(generator, 80), "c", "x"),
        ]
    )
    found = {(each.site, each.queue): each.verdict for each in compare(now, was)}
    assert found == {("a", "x"): "recorder", ("a", "y"): "steady", ("b", None): "callers", ("c", "x"): "too few"}


def test_a_night_is_compared_with_other_runs_of_the_four_weeks_before(bundle: FakeBundle, tmp_path: Path) -> None:
    night, generator = date(2024, 5, 31), np.random.default_rng(0)

    def wrote(days: dict[int, int], **how: Any) -> str:
        run = Run.create(tmp_path, config=config, plan=[])
        for block, (ago, number) in enumerate(days.items()):
            write(tmp_path, Part(f"{night - timedelta(days=ago)}", run.run_id, block), generator, number, **how)
        return run.run_id

    config = run_config(bundle, model="m", archive="a", scoring=ScoringConfig())
    first = wrote(dict.fromkeys(range(1, 29), 30))
    assert [each.verdict for each in drift(tmp_path, {first})] == ["too few"]
    wrote({29: 500}, codec="GSM610")  # older than the reference
    wrote({-400: 500}, codec="GSM610")  # a clock of the future, no part of it either
    like = wrote({0: 60, 100: 500, -30: 20})  # what is caught up, and what has a wrong date
    (found,) = drift(tmp_path, {like})
    assert (found.verdict, found.recordings, found.reference) == ("steady", 80, 28 * 30), found.sentence
    assert [each.recordings for each in found.shifts] == [80] * 8
    other = wrote({0: 60}, codec="GSM610", snr_db=10.0)
    (found,) = drift(tmp_path, {other})
    assert (found.verdict, found.reference) == ("recorder", 28 * 30 + 60)
    assert {each.measure for each in found.moved} == {"codec", "snr_db"}
    assert found.moved[0].now == "2-channel GSM610 at 8000 Hz 100%"
    assert drift(tmp_path, {wrote({0: 49})}) == []


def test_the_page_says_what_changed(stored_predictions: Path, tmp_path: Path) -> None:
    found = [against_a_month(100, codec="1-channel GSM610 at 8000 Hz"), Drift("<b>", None, 3, 0, ())]
    page = Path(write_site(stored_predictions, tmp_path / "page", drifts=found)).read_text()
    assert "<td>the recorder</td><td>codec: 1-channel GSM610 at 8000 Hz 0%, now " in page
    assert "<td>&lt;b&gt;</td>" in page
    assert "<td>not known: too few</td>" in page
    plain = Path(write_site(stored_predictions, tmp_path / "plain")).read_text()
    assert "four weeks" not in plain


def recordings(
    generator: np.random.Generator,
    number: int,
    *,
    code: str = "",
    codec: str = "",
    level_dbfs: float = -24.0,
    snr_db: float = 25.0,
    bandwidth_hz: float = 3400.0,
    mix: tuple[float, ...] = MIX,
    confidence: float = 0.7,
    decoded_s: float = 180.0,
) -> pd.DataFrame:
    """Return recordings of one recorder and its callers, as `compare` takes them."""
    shares = generator.multinomial(1, mix, number)  # one label each: as uneven as they can be
    rows = {
        "site": pd.Series([None] * number, dtype="str"),
        "queue": pd.Series([None] * number, dtype="str"),
        "code": code or generator.choice(["ok", "no_speech", "corrupt"], number, p=[0.96, 0.03, 0.01]),
        "codec": codec or generator.choice(["ULAW", "ALAW"], number, p=[0.9, 0.1]),
        "level_dbfs": generator.normal(level_dbfs, 4, number),
        "snr_db": generator.normal(snr_db, 6, number),
        "bandwidth_hz": (generator.normal(bandwidth_hz, 150, number) / 31.25).round() * 31.25,
        "confidence": generator.normal(confidence, 0.1, number),
        "decoded_s": generator.lognormal(np.log(decoded_s), 0.8, number),
    }
    names = [*CLASSES, "no label"]
    return pd.DataFrame(rows | {f"share_{name}": shares[:, index] for index, name in enumerate(names)})


def against_a_month(number: int, **changed: Any) -> Drift:
    generator = np.random.default_rng(0)
    (found,) = compare(recordings(generator, number, **changed), recordings(generator, MONTH))
    return found


def group(rows: pd.DataFrame, site: str | None, queue: str | None) -> pd.DataFrame:
    return rows.assign(
        site=pd.Series([site] * len(rows), dtype="str"), queue=pd.Series([queue] * len(rows), dtype="str")
    )


def write(
    pred: Path, part: Part, generator: np.random.Generator, number: int, *, codec: str = "ULAW", **how: Any
) -> None:
    """Write such recordings, with two channels each, as scoring does."""
    rows = recordings(generator, number, code="ok", codec=codec, **how)
    rows["recording_id"] = [f"{part}{index}" for index in range(number)]
    rows[["sampling_rate", "channels"]] = 8000, 2
    both = pd.concat([rows.assign(channel=channel) for channel in (0, 1)])
    both["mean_neutral"], both["mean_negative"], both["mean_positive"] = both["confidence"], 0.1, 0.05
    for table, each in (("channels", both), ("recordings", rows)):
        listed = each.drop(columns=["site", "queue"]).to_dict("records")
        write_part(pred, table, part, pa.Table.from_pylist(listed, schema=schema(table, CLASSES)), classes=CLASSES)
