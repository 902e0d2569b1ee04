"""`emolib explore`: pictures of a recording and of a store, and what can't be drawn."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from emolib.sound.synthetic import utterance, voice
from tests.jobs.conftest import Ended, in_process, run_emolib

RATE = 8000
OF_SOUND = {"waveform", "spectrogram_linear", "spectrogram_log", "spectrum", "envelope", "mfcc"}
OF_STORE = {"classes", "durations", "pca_classes", "pca_clusters", "cluster_table"}


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voices in turn, one on each channel; the second is quieter."""
    first, second = (utterance(voice(seed), "neutral", seed=0, sampling_rate=RATE) for seed in (1, 2))
    left = np.concatenate([first, np.zeros_like(second)])
    right = np.concatenate([np.zeros_like(first), 0.1 * second])
    path = tmp_path_factory.mktemp("explore") / "call.wav"
    soundfile.write(path, np.stack([left, right], axis=1), RATE)
    return path


def drawn(ended: Ended, out: Path, pictures: set[str]) -> dict[str, Any]:
    """Check that a page holds every picture, each in its own file too, and return summary.json."""
    assert ended.exit_code == 0, ended.summary
    assert {path.name for path in out.iterdir()} == {f"{name}.svg" for name in pictures} | {
        "index.html",
        "summary.json",
    }
    page = (out / "index.html").read_text()
    assert page.count("<svg") == len(pictures)
    assert not re.search(r"<script|<link|src=|@import", page)
    for name in pictures:
        text = (out / f"{name}.svg").read_text()
        ElementTree.fromstring(text)
        assert text in page
        assert len(text) < 500_000
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert summary.items() <= ended.summary.items()
    return summary


def test_a_recording(call: Path, tmp_path: Path) -> None:
    ended = run_emolib("explore", call, "--out", tmp_path / "page", "--profile", "article")
    summary = drawn(ended, tmp_path / "page", OF_SOUND)
    assert (summary["channel"], summary["channels"], summary["sampling_rate"]) == (0, 2, RATE)
    assert summary["duration_s"] == pytest.approx(summary["recording_s"], abs=0.001)
    assert 75 < summary["pitch_hz"] < 500
    page = (tmp_path / "page" / "index.html").read_text()
    assert "channel 0 of 2" in page
    for frequency in summary["formants_hz"]:
        assert f'<td class="right">{frequency}</td>' in page


@pytest.mark.slow
def test_another_channel_and_an_excerpt(call: Path, tmp_path: Path) -> None:
    loud = run_emolib("explore", call, "--out", tmp_path / "0").summary
    quiet = run_emolib("explore", call, "--out", tmp_path / "1", "--channel", "1").summary
    assert quiet["peak_dbfs"] < loud["peak_dbfs"] - 10
    assert quiet["moment_s"] > loud["moment_s"]
    start_s = round(quiet["moment_s"] - 0.3, 2)
    place = ("--start-s", str(start_s), "--duration-s", "0.4")
    ended = run_emolib("explore", call, "--out", tmp_path / "part", "--channel", "1", *place)
    part = drawn(ended, tmp_path / "part", OF_SOUND)
    assert (part["start_s"], part["duration_s"]) == (start_s, pytest.approx(0.35, abs=0.06))
    assert start_s < part["moment_s"] < start_s + 0.4


@pytest.mark.slow
def test_a_file_without_a_header(call: Path, tmp_path: Path) -> None:
    raw = tmp_path / "call.raw"
    raw.write_bytes(soundfile.read(call, dtype="int16")[0].tobytes())
    ended = run_emolib("explore", raw, "--out", tmp_path / "page", "--headerless", ".raw=s16le:8000:2")
    with_header = run_emolib("explore", call, "--out", tmp_path / "wav").summary
    assert ended.summary["formants_hz"] == with_header["formants_hz"]


@pytest.mark.slow
def test_a_recording_without_a_voice(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    summary = drawn(
        run_emolib("explore", tmp_path / "silence.wav", "--out", tmp_path / "page"), tmp_path / "page", OF_SOUND
    )
    assert (summary["pitch_hz"], summary["formants_hz"]) == (None, [])
    assert "No voiced moment" in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.slow
def test_a_store(store: Path, tmp_path: Path) -> None:
    ended = run_emolib("explore", store, "--out", tmp_path / "page", "--task", "emotion3")
    summary = drawn(ended, tmp_path / "page", OF_STORE)
    assert (summary["utterances"], summary["left_out"]) == (72, 0)
    assert set(summary["classes"].values()) == {12}
    assert np.sum(summary["cluster_table"], axis=0).tolist() == list(summary["classes"].values())
    assert -0.1 < summary["adjusted_rand_index"] <= 1
    again = run_emolib("explore", store, "--out", tmp_path / "again", "--task", "emotion3")
    assert again.summary["cluster_table"] == summary["cluster_table"]


def refused(ended: Ended, out: Path, *words: str) -> None:
    assert ended.exit_code == 2, ended.summary
    for word in words:
        assert word in ended.summary["error"]
    assert not out.exists()


def test_what_is_no_recording(call: Path, tmp_path: Path) -> None:
    out = tmp_path / "page"
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("<html>not found</html>" * 20)
    soundfile.write(tmp_path / "short.wav", np.zeros(400), RATE)
    refused(run_emolib("explore", tmp_path / "empty.wav", "--out", out), out, "empty.wav", "empty:")
    refused(run_emolib("explore", tmp_path / "text.wav", "--out", out), out, "unsupported:")
    refused(run_emolib("explore", tmp_path / "short.wav", "--out", out), out, "short.wav", "too_short:", "0.050 s")
    refused(run_emolib("explore", tmp_path / "nowhere.wav", "--out", out), out, "missing:")
    refused(run_emolib("explore", tmp_path, "--out", out), out, "folder")
    refused(run_emolib("explore", tmp_path / "S.zarr", "--out", out), out, "no feature store")
    refused(run_emolib("explore", call, "--out", out, "--channel", "2"), out, "channel 2", "0 to 1")
    refused(run_emolib("explore", call, "--out", out, "--start-s", "3600"), out, "3600", "expected")
    refused(run_emolib("explore", call, "--out", out, "--duration-s", "3600"), out, "60")


@pytest.mark.slow
def test_one_line_about_broken_audio(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    ended, stderr = in_process("explore", tmp_path / "empty.wav", "--out", tmp_path / "page")
    refused(ended, tmp_path / "page", "empty:")
    assert stderr.strip() == f"emolib: {ended.summary['error']}"


def test_a_folder_that_holds_something_stays_as_it_is(call: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ended = run_emolib("explore", call, "--out", tmp_path)
    assert (ended.exit_code, [path.name for path in tmp_path.iterdir()]) == (2, ["notes.txt"])
    assert "not empty" in ended.summary["error"]


@pytest.mark.slow
def test_real_recordings(shared: Path, tmp_path: Path) -> None:
    """A stereo call of minutes: only the excerpt is decoded, and every picture stays small."""
    ended = run_emolib("explore", shared / "calls/call40_agentL_callerR_ulaw.wav", "--out", tmp_path / "call")
    assert drawn(ended, tmp_path / "call", OF_SOUND)["duration_s"] == 30


@pytest.mark.slow
def test_memory_holds_the_excerpt_alone(tmp_path: Path) -> None:
    path, minute = tmp_path / "long.wav", np.zeros((60 * RATE, 2), np.int16)
    with soundfile.SoundFile(path, "w", RATE, 2, subtype="ULAW") as file:
        for _ in range(30):
            file.write(minute)
    excerpt = ("--start-s", "1795", "--duration-s", "1")
    run_emolib("explore", path, "--out", tmp_path / "first", *excerpt)  # what is imported and cached is not counted
    tracemalloc.start()
    try:
        ended = run_emolib("explore", path, "--out", tmp_path / "page", *excerpt)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ended.exit_code == 0
    assert peak < 50e6, peak  # the whole recording is 115 MB as it is decoded
