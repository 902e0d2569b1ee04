"""Known audio as a job: an archive -> a file -> labels without hold music."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emolib import archive
from emolib.sound.known_audio import KnownAudio
from emolib.sound.synthetic import utterance, voice
from emolib.sound.telephone import through
from tests.jobs.conftest import assert_same_rows, run_emolib
from tests.jobs.test_refusals import refused
from tests.sound.hold_music import hold_music

RATE, WAITS_S = 8000, 16.0


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five stereo calls: a customer speaks, waits with music, and speaks again; a copy, and a file that is no sound."""
    root, music = tmp_path_factory.mktemp("waiting") / "archive", np.tile(hold_music(1, duration_s=20), 2)
    for number in range(5):
        start = 9000 * number
        said = [
            utterance(voice(10 * number + part), "anger", seed=part, sampling_rate=RATE, duration_s=7.0)
            for part in range(4)
        ]
        customer = np.concatenate([said[0], music[start : start + round(WAITS_S * RATE)], said[1]])
        agent = np.concatenate([np.zeros_like(said[0]), said[2], said[3], np.zeros_like(said[1])])
        sides = [np.pad(each, (0, 31 * RATE - len(each))) for each in (agent, customer)]
        call = np.stack([through("ulaw", each, sampling_rate=RATE, seed=number) for each in sides], axis=1)
        path = root / f"2024-05-0{1 + number % 2}/{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, call, RATE, subtype="ULAW")
    shutil.copy(root / "2024-05-01/0.wav", root / "2024-05-01/copy.wav")
    (root / "2024-05-01/no-sound.wav").write_bytes(b"no sound " * 99)
    return root


@pytest.fixture(scope="module")
def made(waiting: Path, cluster: tuple[str, str]) -> Path:
    place = waiting.parent / "known.npz"
    ended = run_emolib("known-audio", waiting, "--out", place, "--recordings", "3", *cluster)
    assert ended.exit_code == 0, ended.summary
    assert ended.summary["codes"] == {"ok": 6, "unsupported": 1}
    assert ended.summary["known_audio_id"] == KnownAudio.load(place).known_audio_id
    assert ended.summary["stretches"] >= 1
    return place


def test_what_repeats_is_in_a_file_and_where_to_listen_in_a_table(waiting: Path, made: Path) -> None:
    with made.with_suffix(".csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stretches = KnownAudio.load(made).stretches
    assert [int(row["number"]) for row in rows] == list(range(1, len(stretches) + 1))
    assert max(each.recordings for each in stretches) == 5  # the copy counts once
    for row, each in zip(rows, stretches, strict=True):
        assert (row["uri"], int(row["channel"]), int(row["recordings"])) == (each.uri, 1, each.recordings)
        assert (waiting / each.uri).exists()
        assert 6 < float(row["start_s"]) < float(row["end_s"]) < 7 + WAITS_S + 1


@pytest.mark.slow
def test_the_same_file_however_the_work_is_cut(waiting: Path, made: Path, tmp_path: Path) -> None:
    one = run_emolib("known-audio", waiting, "--out", tmp_path / "one.npz", "--recordings", "3", "--workers", "1")
    assert one.exit_code == 0
    assert KnownAudio.load(tmp_path / "one.npz").known_audio_id == KnownAudio.load(made).known_audio_id
    assert (tmp_path / "one.csv").read_bytes() == made.with_suffix(".csv").read_bytes()


@pytest.mark.slow
def test_hold_music_gets_no_label(
    waiting: Path, made: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    common = ("score", waiting, "--model", model, "--failure-budget", "1")
    found = {}
    for name, more in {"plain": (), "without": ("--known-audio", made)}.items():
        assert run_emolib(*common, "--out", tmp_path / name, *more, *cluster).exit_code == 0
        assert run_emolib("verify", tmp_path / name).exit_code == 0
        rows = archive.read(tmp_path / name, table="channels")
        found[name] = rows[rows["channel"] == 1].reset_index(drop=True)
    plain, without = found["plain"], found["without"]
    assert plain["known_audio_s"].isna().all()
    assert without["known_audio_s"].between(WAITS_S - 2, WAITS_S + 2).all()
    assert (without["speech_s"] < plain["speech_s"] - WAITS_S / 2).all()
    assert (without["windows_scored"] <= plain["windows_scored"] - 4).all()
    windows = archive.read(tmp_path / "without", table="windows")
    windows = windows[windows["channel"] == 1]
    assert not windows["start_s"].between(8.5, 16).any()
    assert set(without["scoring_fingerprint"]).isdisjoint(plain["scoring_fingerprint"])
    # The same rows however the work is cut, and other known audio is refused.
    more = ("--known-audio", made, "--workers", "1", "--block-s", "30", "--batch", "5")
    assert run_emolib(*common, "--out", tmp_path / "cut", *more).exit_code == 0
    assert_same_rows(tmp_path / "cut", tmp_path / "without")
    refused(run_emolib(*common, "--out", tmp_path / "without"), "known_audio is", "expected absent", "another --out")
    moved = shutil.copy(made, tmp_path / "moved.npz")
    again = run_emolib(*common, "--out", tmp_path / "without", "--known-audio", moved)
    assert (again.exit_code, again.summary["recordings"]) == (0, 0)


def test_what_is_none_is_left_out(made: Path, tmp_path: Path) -> None:
    kept, whole = tmp_path / "kept.npz", KnownAudio.load(made)
    ended = run_emolib("known-audio", made, "--leave-out", "1", "--out", kept)
    assert (ended.exit_code, ended.summary["stretches"]) == (0, len(whole.stretches) - 1)
    assert KnownAudio.load(kept).known_audio_id == whole.without([1]).known_audio_id
    for numbers, word in (("0", "stretch 0"), ("99", "stretch 99"), ("one", "such as 3,7")):
        refused(run_emolib("known-audio", made, "--leave-out", numbers, "--out", tmp_path / "K.npz"), word)


def test_bad_input_is_refused_before_any_work(waiting: Path, made: Path, model: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "K.npz"
    refused(run_emolib("known-audio", waiting, "--out", made), "exists", "--out")
    refused(run_emolib("known-audio", waiting, "--out", tmp_path / "K.txt"), "ends in .npz")
    refused(run_emolib("known-audio", made, "--out", wanted), "--leave-out")
    refused(run_emolib("known-audio", waiting, "--leave-out", "1", "--out", wanted), "--leave-out")
    refused(run_emolib("known-audio", tmp_path / "nowhere", "--out", wanted), "nowhere")
    refused(run_emolib("known-audio", tmp_path, "--out", wanted), "no recordings found")
    (tmp_path / "text.npz").write_text("no arrays", encoding="utf-8")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("text.npz", "other.npz", "nowhere.npz"):
        place = tmp_path / name
        ended = run_emolib("score", waiting, "--model", model, "--out", tmp_path / "P", "--known-audio", place)
        refused(ended, name, "emolib known-audio")
    assert not wanted.exists()
    assert not (tmp_path / "P").exists()
