"""Scoring: one outcome per recording, and the same rows however the work was cut, killed and run again."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import soundfile

from emolib import archive
from tests.jobs.conftest import assert_same_rows, run_emolib, struck, tables
from tests.sound.real_files import DECODED, scored


def test_one_outcome_per_recording(calls: Path, undisturbed: Path) -> None:
    rows = archive.read(undisturbed, table="recordings").sort_values("uri")
    assert list(rows["uri"]) == sorted(str(path.relative_to(calls)) for path in calls.rglob("*.wav"))
    assert len(rows) == 13
    # In turn (see `emolib.sound.synthetic.write_calls`); all others are calls.
    defects = ["empty", "truncated", "unsupported", "no_speech", "too_short"]
    assert [code for code in rows["code"] if code != "ok"] == defects
    assert all("\n" not in message for message in rows["message"].dropna())
    bad = rows[rows["outcome"] != "scored"]
    assert bad["message"].str.len().gt(10).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "cut",
    [("--workers", "1"), ("--workers", "3", "--block-s", "30", "--batch", "5")],
    ids=["one worker", "three workers, small blocks and batches"],
)
def test_how_the_work_is_cut_changes_no_row(
    calls: Path, model: Path, undisturbed: Path, tmp_path: Path, cut: tuple[str, ...]
) -> None:
    ended = run_emolib("score", calls, "--model", model, "--out", tmp_path / "P", *cut, "--failure-budget", "1")
    assert ended.exit_code == 0
    assert_same_rows(tmp_path / "P", undisturbed)


@pytest.mark.slow
def test_priors_correct_every_window_and_are_no_part_of_other_predictions(
    calls: Path, model: Path, undisturbed: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    classes = [name.removeprefix("p_") for name in archive.read(undisturbed, table="windows").filter(regex="^p_")]
    wanted = np.array([0.9 if name == "neutral" else 0.1 / (len(classes) - 1) for name in classes])
    priors = ",".join(f"{name}={share}" for name, share in zip(classes, wanted, strict=True))
    common = ("score", calls, "--model", model, "--priors", priors, "--failure-budget", "1", *cluster)
    assert run_emolib(*common, "--out", tmp_path / "P").exit_code == 0
    keys = ["recording_id", "channel", "start_s"]
    plain, corrected = (
        archive.read(pred, table="windows").sort_values(keys).filter(regex="^p_").to_numpy(np.float64)
        for pred in (undisturbed, tmp_path / "P")
    )
    expected = plain * wanted
    np.testing.assert_allclose(corrected, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    assert run_emolib(*common, "--out", undisturbed).exit_code == 2


def test_killed_in_the_middle_and_run_again(
    calls: Path, model: Path, undisturbed: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    """SIGKILL between two commits: the second run keeps what is done, adds the rest, and nothing stands twice."""
    place = tmp_path / "P"
    arguments = ("score", calls, "--model", model, "--out", place, "--block-s", "1")
    assert struck(*arguments, "--workers", "1", after="jobs.fanout._outcome", times=3) == -signal.SIGKILL
    done = len(archive.read(place, table="recordings"))
    assert 3 <= done < 13
    assert run_emolib("verify", place).exit_code == 6  # the run is open
    ended = run_emolib(*arguments, *cluster, "--failure-budget", "1")
    assert ended.exit_code == 0
    assert len(ended.summary["runs"]) == 1
    assert_same_rows(place, undisturbed)
    assert run_emolib("verify", place).exit_code == 0


@pytest.mark.slow
def test_sigterm_ends_with_5_and_the_next_run_goes_on(
    calls: Path, model: Path, undisturbed: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    place = tmp_path / "P"
    arguments = ("score", calls, "--model", model, "--out", place, "--block-s", "1")
    assert struck(*arguments, "--workers", "1", after="jobs.fanout._outcome", by=signal.SIGTERM) == 5
    assert run_emolib(*arguments, *cluster, "--failure-budget", "1").exit_code == 0
    assert_same_rows(place, undisturbed)


@pytest.mark.slow
def test_a_second_run_scores_only_what_is_new(
    calls: Path, model: Path, undisturbed: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    folder, place = tmp_path / "calls", tmp_path / "P"
    shutil.copytree(calls, folder)
    late = sorted(folder.rglob("*.wav"))[:2]
    for path in late:
        shutil.move(path, tmp_path / path.name)
    common = ("score", folder, "--model", model, "--out", place, *cluster, "--failure-budget", "1")
    assert run_emolib(*common).summary["recordings"] == 11
    for path in late:
        shutil.move(tmp_path / path.name, path)
    assert run_emolib(*common).summary["recordings"] == 2
    again = run_emolib(*common)
    assert (again.exit_code, again.summary["recordings"]) == (0, 0)
    assert_same_rows(place, undisturbed)


def test_only_customers_once_roles_are_known(
    calls: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    """And whose channel is whose may depend on the direction of the call."""
    numbers = sorted(int(path.stem[-4:]) for path in calls.rglob("*.wav"))
    table = ["call_id,direction", *(f"{number:04d},{('inbound', 'outbound')[number % 2]}" for number in numbers)]
    (tmp_path / "calls.csv").write_text("\n".join(table))
    common = ("score", calls, "--model", model, *cluster, "--failure-budget", "1", "--out", tmp_path / "P")
    known = ("--pattern", r"call-(?P<call_id>\d+)", "--calls-table", tmp_path / "calls.csv")
    roles = ("--channels", "inbound:0=customer,1=agent", "--channels", "0=agent,1=customer")
    assert run_emolib(*common, *known, *roles).exit_code == 0
    channels = archive.read(tmp_path / "P", table="channels")
    assert set(channels.loc[channels["role"] == "agent", "code"]) == {"policy"}
    windows = archive.read(tmp_path / "P", table="windows").merge(archive.read(tmp_path / "P", table="recordings"))
    assert set(zip(windows["channel"], windows["direction"], strict=True)) == {(0, "inbound"), (1, "outbound")}
    assert sorted(archive.read(tmp_path / "P", table="calls")["call_id"]) == [row[:4] for row in table[1:]]
    assert run_emolib("verify", tmp_path / "P").exit_code == 0


@pytest.mark.slow
def test_both_parties_on_both_channels_are_scored_once_or_not_at_all(
    calls: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    """A recorder wrote the mix of both twice: inverted, late, lower."""
    call = max(calls.rglob("*.wav"), key=lambda path: path.stat().st_size)  # none of the broken ones
    both = soundfile.read(call, dtype="float32")[0].sum(axis=1)
    (tmp_path / "calls").mkdir()
    for name, other in {"inverted": -both, "late": np.roll(both, 8), "lower": 0.5 * both}.items():
        soundfile.write(tmp_path / f"calls/{name}.wav", np.stack([both, other], axis=1), 8000, subtype="ULAW")
    common = ("score", tmp_path / "calls", "--model", model, *cluster)
    assert run_emolib(*common, "--out", tmp_path / "P").summary["codes"] == {"ok": 3}
    channels = archive.read(tmp_path / "P", table="channels")
    assert channels.groupby("channel")["code"].unique().map(list).to_dict() == {0: ["ok"], 1: ["duplicate"]}
    assert set(channels["flags"].map(tuple)) == {("dual_mono",)}
    assert run_emolib("verify", tmp_path / "P").exit_code == 0
    ended = run_emolib(*common, "--channels", "0=agent,1=customer", "--out", tmp_path / "Q")
    assert (ended.exit_code, ended.summary["codes"]) == (0, {"policy": 3})
    assert run_emolib("verify", tmp_path / "Q").exit_code == 0


def test_pandas_and_duckdb_read_the_predictions_as_they_lie(undisturbed: Path) -> None:
    by_pandas = pd.read_parquet(undisturbed / "windows")
    (by_duckdb,) = duckdb.sql(
        f"select count(*) from read_parquet('{undisturbed}/windows/**/*.parquet', hive_partitioning=true) "
        "where date >= '2000-01-01' and p_neutral between 0 and 1"
    ).fetchall()
    assert len(by_pandas) == by_duckdb[0] == len(tables(undisturbed)["windows"])


def test_the_plan_starts_nothing(calls: Path, model: Path, tmp_path: Path) -> None:
    ended = run_emolib("score", calls, "--model", model, "--out", tmp_path / "P", "--plan")
    assert (ended.exit_code, ended.summary["to_score"]) == (0, 13)
    assert not (tmp_path / "P").exists()
    assert ended.summary["core_hours"] == pytest.approx(ended.summary["estimated_hours"] / 1000, rel=0.1)


@pytest.mark.slow
def test_a_plan_takes_as_long_as_earlier_runs_took(
    calls: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    shutil.copytree(calls, tmp_path / "calls", copy_function=shutil.copy2)
    common = ("score", tmp_path / "calls", "--model", model, "--out", tmp_path / "P")
    assert run_emolib(*common, *cluster, "--failure-budget", "1").exit_code == 0
    with (tmp_path / "calls" / "2024-06-01.wav").open("wb") as file:  # no sound, but it could be much
        file.truncate(400_000_000)
    planned = run_emolib(*common, "--plan").summary
    assert planned["to_score"] == 1
    measured = json.loads(next((tmp_path / "P" / "_runs").glob("*/summary.json")).read_text())["times_real_time"]
    assert measured > 1
    assert planned["core_hours"] == pytest.approx(planned["estimated_hours"] / measured, rel=1e-2)


@pytest.mark.slow
def test_a_short_night_after_a_long_one_is_cut_for_every_core(
    model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    """What is scored already says nothing about how the rest is cut."""
    folder, common = tmp_path / "calls", ("--model", model, "--out", tmp_path / "P", *cluster, "--failure-budget", "1")
    folder.mkdir()

    def put(name: str, size: int) -> None:  # no sound, but its size says how much there could be
        with (folder / name).open("wb") as file:
            file.truncate(size)

    put("2024-05-01.wav", 400_000_000)
    assert run_emolib("score", folder, *common).summary["recordings"] == 1
    for number in range(12):
        put(f"2024-05-02-{number}.wav", 1_000_000)
    planned = run_emolib("score", folder, *common, "--plan").summary
    assert (planned["to_score"], planned["blocks"]) == (12, 2)


def test_real_calls_and_broken_files(shared: Path, model: Path, cluster: tuple[str, str], tmp_path: Path) -> None:
    for name in DECODED:
        shutil.copytree(shared / name, tmp_path / "archive" / name)
    ended = run_emolib("score", tmp_path / "archive", "--model", model, "--out", tmp_path / "P", *cluster)
    rows = archive.read(tmp_path / "P", table="recordings")
    assert rows["recording_id"].is_unique
    expected = {f"{folder}/{name}": code.value for folder in DECODED for name, code in scored(folder).items()}
    assert dict(zip(rows["uri"], rows["code"], strict=True)) == expected
    assert len(rows) == len(expected)
    assert ended.summary["codes"] == dict(sorted(Counter(expected.values()).items()))
    assert ended.exit_code == 1  # a quarter failed, and a twentieth may
    bad = rows[rows["outcome"] != "scored"]
    assert bad["message"].str.fullmatch(r".{10,300}").all()
    assert run_emolib("verify", tmp_path / "P").exit_code == 0


@pytest.mark.slow
def test_copies_of_what_policy_forbids_are_done_with_at_once(
    calls: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "calls").mkdir()
    mono = np.zeros(16_000, np.float32)
    for number in range(3):
        soundfile.write(tmp_path / f"calls/{number}.wav", mono, 8000)
    asked = ("score", tmp_path / "calls", "--model", model, "--out", tmp_path / "P", *cluster, "--find-duplicates")
    asked = (*asked, "--channels", "0=agent,1=customer")
    assert run_emolib(*asked).summary["codes"] == {"duplicate": 2, "policy": 1}
    assert run_emolib(*asked).summary["recordings"] == 0


@pytest.mark.slow
def test_what_is_delivered_twice_is_scored_once(
    calls: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    archive_of = tmp_path / "calls"
    shutil.copytree(calls, archive_of)
    good = sorted(path for path in archive_of.rglob("*.wav") if path.stat().st_size > 100_000)[:2]
    (archive_of / "2024-07-01").mkdir()
    shutil.copy(good[0], archive_of / "2024-07-01" / "again.wav")  # before anything is scored
    common = ("score", archive_of, "--model", model, "--out", tmp_path / "P", "--failure-budget", "1", *cluster)
    assert run_emolib(*common, "--find-duplicates").summary["codes"]["duplicate"] == 1
    shutil.copy(good[1], archive_of / "2024-07-01" / "late.wav")  # of what has its rows
    assert run_emolib(*common, "--find-duplicates").summary["codes"] == {"duplicate": 1}
    rows = archive.read(tmp_path / "P", table="recordings").set_index("uri")
    for copy, original in (("again", good[0]), ("late", good[1])):
        found = rows.loc[f"2024-07-01/{copy}.wav"]
        kept = rows.loc[str(original.relative_to(archive_of))]
        assert (found["code"], found["outcome"]) == ("duplicate", "skipped")
        assert found["duplicate_of"] == kept["recording_id"]
        assert found["content_hash"] == kept["content_hash"]
        assert kept["outcome"] == "scored"
    assert run_emolib("verify", tmp_path / "P").exit_code == 0

    # An original that holds something else by now explains its duplicate no longer.
    good[0].write_bytes((calls / good[1].relative_to(archive_of)).read_bytes()[:90_000])
    assert run_emolib(*common, "--find-duplicates").summary["recordings"] == 1
    assert run_emolib(*common, "--find-duplicates").summary["recordings"] == 1
    assert archive.read(tmp_path / "P", table="recordings").set_index("uri")["code"]["2024-07-01/again.wav"] == "ok"
    # An original that is erased is named by nobody, and what is delivered of its call is not scored.
    kept = rows.loc[str(good[1].relative_to(archive_of))]
    copies = rows.loc[["2024-07-01/late.wav"], "call_id"].tolist()
    erased = run_emolib("erase", tmp_path / "P", "--call-id", kept["call_id"])
    assert (erased.exit_code, erased.summary["same_sound"]) == (0, copies)
    left = archive.read(tmp_path / "P", table="recordings")
    assert kept["recording_id"] not in set(left["duplicate_of"]) | set(left["recording_id"])
    assert not left["message"].str.contains(kept["recording_id"]).any()
    assert run_emolib(*common, "--find-duplicates").summary["codes"] == {"ok": 1}
    assert run_emolib("verify", tmp_path / "P").exit_code == 0
