"""Synthetic voices, corpora and calls, through `emolib.sound.synthetic`."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.config import TELEPHONE
from emolib.errors import SettingsError
from emolib.features import mfcc
from emolib.sound.synthetic import (
    EMOTIONS,
    golden_signals,
    utterance,
    voice,
    write_calls,
    write_corpus,
)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.blake2b(path.read_bytes()).hexdigest() for path in files}


def _level_db(signal: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.mean(np.square(signal, dtype=np.float64)) + 1e-12))


def _pitch_hz(signal: NDArray[np.float32]) -> float:
    """Median over loud frames of the strongest peak of the autocorrelation, at 16 kHz."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, 800)[::400]
    frames = frames[(loud := np.sum(frames**2, axis=1)) > np.median(loud)]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)
    shortest, longest = 16_000 // 350, 16_000 // 70
    return 16_000 / float(np.median(correlation[:, shortest:longest].argmax(axis=1) + shortest))


def _brightness_db(signal: NDArray[np.float32]) -> float:
    """Power above 1 kHz against power below, at 16 kHz (the alpha ratio)."""
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequency = np.fft.rfftfreq(len(signal), 1 / 16_000)
    return float(10 * np.log10(power[(frequency > 1000) & (frequency < 5000)].sum() / power[frequency < 1000].sum()))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("calls")
    return folder, write_calls(folder, calls=6, broken=6, seed=5)


class TestUtterance:
    @given(
        speaker=st.integers(0, 2**48),
        emotion=st.sampled_from(EMOTIONS),
        seed=st.integers(0, 2**32),
        sampling_rate=st.sampled_from([8000, 11_025, 16_000, 44_100, 48_000, 7919]),
        duration_s=st.none() | st.floats(0.1, 3),
    )
    def test_is_sound_of_the_length_asked_for(
        self, speaker: int, emotion: str, seed: int, sampling_rate: int, duration_s: float | None
    ) -> None:
        signal = utterance(voice(speaker), emotion, seed=seed, sampling_rate=sampling_rate, duration_s=duration_s)
        assert signal.dtype == np.float32
        assert signal.ndim == 1
        if duration_s is not None:
            assert len(signal) == round(duration_s * sampling_rate)
        assert np.isfinite(signal).all()
        assert np.abs(signal).max() <= 0.95 + 1e-6
        assert -50 < _level_db(signal) < -6

    def test_depends_on_speaker_emotion_and_seed_alone(self) -> None:
        first = utterance(voice(1), "anger", seed=3, duration_s=1.0)
        np.testing.assert_array_equal(first, utterance(voice(1), "anger", seed=3, duration_s=1.0))
        for other in (
            utterance(voice(2), "anger", seed=3, duration_s=1.0),
            utterance(voice(1), "fear", seed=3, duration_s=1.0),
            utterance(voice(1), "anger", seed=4, duration_s=1.0),
        ):
            assert np.abs(first - other).max() > 0.01

    def test_is_the_same_voice_at_every_sampling_rate(self) -> None:
        wide = utterance(voice(1), "neutral", seed=3, duration_s=1.0)
        narrow = utterance(voice(1), "neutral", seed=3, duration_s=1.0, sampling_rate=8000)
        spectra = np.abs(np.fft.rfft(wide))[:3900], np.abs(np.fft.rfft(narrow))[:3900] * 2
        assert np.corrcoef(*spectra)[0, 1] > 0.99

    def test_pitch_follows_the_voice(self) -> None:
        for number in range(6):
            who = voice(number)
            signal = utterance(who, "neutral", seed=0, duration_s=2.0)
            assert _pitch_hz(signal) == pytest.approx(who.f0_hz, rel=0.25)

    def test_anger_is_louder_and_brighter_than_sadness(self) -> None:
        for number in range(6):
            angry, sad = (
                np.concatenate([utterance(voice(number), emotion, seed=take) for take in range(3)])
                for emotion in ("anger", "sadness")
            )
            assert _level_db(angry) > _level_db(sad) + 3
            assert _brightness_db(angry) > _brightness_db(sad) + 3

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({"emotion": "boredom"}, "emotion 'boredom' found, expected one of neutral"),
            ({"emotion": "fear", "sampling_rate": 0}, "a sampling rate of 0 Hz found"),
            ({"emotion": "fear", "duration_s": 0.0}, "a duration of 0.0 s found"),
            ({"emotion": "fear", "duration_s": float("nan")}, "a duration of nan s found"),
        ],
    )
    def test_refuses_what_nobody_can_say(self, arguments: dict, reason: str) -> None:
        with pytest.raises(SettingsError, match=reason):
            utterance(voice(0), seed=0, **arguments)


class TestCorpus:
    def test_table_and_sound_agree(self, tmp_path: Path) -> None:
        table = write_corpus(tmp_path / "voices", speakers=2, utterances=2, seed=1, sampling_rate=8000)
        rows = pd.read_csv(table, dtype=str)
        assert list(rows.columns) == ["path", "utterance_id", "speaker", "gender", "emotion"]
        assert rows.groupby(["speaker", "gender", "emotion"]).size().tolist() == [2] * 2 * len(EMOTIONS)
        assert set(rows["gender"]) == {"female", "male"}
        assert rows["utterance_id"].is_unique
        assert set(_digests(tmp_path / "voices")) == {*rows["path"], "corpus.csv"}
        for path in rows["path"]:
            info = soundfile.info(tmp_path / "voices" / path)
            assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 8000, 1)
            assert 0.8 < info.duration < 6

    def test_same_seed_same_bytes(self, tmp_path: Path) -> None:
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            write_corpus(tmp_path / name, speakers=1, utterances=1, seed=seed)
        assert _digests(tmp_path / "a") == _digests(tmp_path / "b")
        assert not set(_digests(tmp_path / "a").values()) & set(_digests(tmp_path / "c").values())

    @pytest.mark.parametrize("counts", [(0, 1), (1, 0), (-1, 1)])
    def test_refuses_to_write_nothing(self, tmp_path: Path, counts: tuple[int, int]) -> None:
        with pytest.raises(SettingsError, match="expected at least 1 of each"):
            write_corpus(tmp_path, speakers=counts[0], utterances=counts[1], seed=0)


class TestCalls:
    def test_truth_describes_the_sound(self, archive: tuple[Path, pd.DataFrame]) -> None:
        folder, truth = archive
        assert list(truth.columns) == ["uri", "channel", "role", "speaker", "emotion", "start_s", "end_s"]
        assert truth["uri"].nunique() == 6
        assert set(truth["emotion"]) <= set(EMOTIONS)
        assert (truth["role"] == truth["channel"].map({0: "agent", 1: "customer"})).all()
        for uri, turns in truth.groupby("uri"):
            info = soundfile.info(folder / uri)
            assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "ULAW", 8000, 2)
            assert 25 < info.duration < 45
            assert turns["end_s"].max() < info.duration
            signal, _ = soundfile.read(folder / uri, dtype="float32")
            for channel, spoken in turns.groupby("channel"):
                voiced = np.zeros(len(signal), dtype=bool)
                for start_s, end_s in zip(spoken["start_s"], spoken["end_s"], strict=True):
                    turn = slice(round(start_s * 8000), round(end_s * 8000))
                    assert not voiced[turn].any()
                    voiced[turn] = True
                    assert _level_db(signal[turn, channel]) > -50
                assert _level_db(signal[~voiced, channel]) < -60

    def test_a_customer_has_one_emotion_in_most_turns(self, archive: tuple[Path, pd.DataFrame]) -> None:
        _, truth = archive
        customers = truth[truth["role"] == "customer"]
        shares = customers.groupby("uri")["emotion"].agg(lambda words: words.value_counts(normalize=True).max())
        moods = customers.groupby("uri")["emotion"].agg(lambda words: words.mode()[0])
        assert (shares > 0.5).all()
        assert sorted(moods) == sorted(EMOTIONS)
        assert set(truth.loc[truth["role"] == "agent", "emotion"]) <= {"neutral", "happiness"}

    def test_files_lie_in_folders_by_date_and_bear_it(self, archive: tuple[Path, pd.DataFrame]) -> None:
        folder, _ = archive
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        assert [path.name for path in files] == [f"call-{number:04d}.wav" for number in range(1, 13)]
        assert [path.parent.name for path in files] == [
            date for date in ("2024-05-01", "2024-05-02", "2024-05-03") for _ in range(4)
        ]
        for path in files:
            assert f"{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%d}" == path.parent.name

    def test_broken_files_cycle_through_five_kinds(self, archive: tuple[Path, pd.DataFrame]) -> None:
        folder, truth = archive
        whole = {folder / uri for uri in truth["uri"]}
        empty, truncated, page, silent, short, another = sorted(set(folder.rglob("*.wav")) - whole)
        assert empty.read_bytes() == another.read_bytes() == b""
        assert int.from_bytes(truncated.read_bytes()[4:8], "little") + 8 > truncated.stat().st_size > 100_000
        assert page.read_bytes().startswith(b"<!DOCTYPE html>")
        signal, _ = soundfile.read(silent)
        assert len(signal) > 8000
        assert not signal.any()
        assert 0 < soundfile.info(short).duration < 0.4

    def test_bytes_are_g711(self, archive: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
        folder, truth = archive
        path = folder / truth["uri"].iloc[0]
        signal, _ = soundfile.read(path, dtype="int16")
        soundfile.write(tmp_path / "again.wav", signal, 8000, subtype="ULAW")
        coded, expected = (
            np.frombuffer(data, np.uint8, signal.size, data.index(b"data") + 8)
            for data in (path.read_bytes(), (tmp_path / "again.wav").read_bytes())
        )
        zero = signal.ravel() == 0  # has two codes
        np.testing.assert_array_equal(coded[~zero], expected[~zero])
        assert set(coded[zero]) <= {0x7F, 0xFF}

    def test_same_seed_same_bytes(self, tmp_path: Path) -> None:
        first, second = (write_calls(tmp_path / name, calls=1, broken=4, seed=7) for name in ("a", "b"))
        third = write_calls(tmp_path / "c", calls=1, broken=0, seed=8)
        pd.testing.assert_frame_equal(first, second)
        assert _digests(tmp_path / "a") == _digests(tmp_path / "b")
        assert set(first["speaker"]).isdisjoint(third["speaker"])

    def test_no_speaker_of_a_corpus_calls(self, archive: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
        _, truth = archive
        # Whatever the seeds: the populations differ in a bit of every speaker's seed.
        assert all(int(speaker[1:], 16) & 2 for speaker in truth["speaker"])
        for seed in (5, 6):
            rows = pd.read_csv(write_corpus(tmp_path / str(seed), speakers=4, utterances=1, seed=seed))
            assert not any(int(speaker[1:], 16) & 2 for speaker in rows["speaker"])

    def test_an_archive_may_be_empty(self, tmp_path: Path) -> None:
        truth = write_calls(tmp_path, calls=0, broken=0, seed=0)
        assert truth.empty
        assert "uri" in truth
        with pytest.raises(SettingsError, match="expected 0 or more"):
            write_calls(tmp_path, calls=-1, broken=0, seed=0)


class TestGoldenSignals:
    @pytest.mark.parametrize(("sampling_rate", "duration_s"), [(8000, 4.0), (16_000, 0.5), (44_100, 120_772 / 44_100)])
    def test_are_eight_reproducible_signals(self, sampling_rate: int, duration_s: float) -> None:
        signals = golden_signals(sampling_rate=sampling_rate, duration_s=duration_s)
        assert signals.shape == (8, round(sampling_rate * duration_s))
        assert signals.dtype == np.float32
        assert np.abs(signals).max() < 1
        assert [bool(signal.any()) for signal in signals] == [True] * 5 + [False] + [True] * 2
        np.testing.assert_array_equal(signals, golden_signals(sampling_rate=sampling_rate, duration_s=duration_s))


@pytest.mark.slow
def test_emotions_of_unknown_speakers_are_learnable_but_not_given_away() -> None:
    from sklearn.metrics import recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    def functionals(signal: NDArray[np.float32]) -> NDArray[np.float32]:
        coefficients = mfcc(signal, config=TELEPHONE.features)[:, :20]
        return np.concatenate([coefficients.mean(axis=0), coefficients.std(axis=0)])

    def takes(speakers: range, count: int) -> tuple[NDArray[np.float32], list[str]]:
        spoken = [(number, word, take) for number in speakers for word in EMOTIONS for take in range(count)]
        signals = [utterance(voice(number), word, seed=take, sampling_rate=8000) for number, word, take in spoken]
        return np.stack([functionals(signal) for signal in signals]), [word for _, word, _ in spoken]

    known, words = takes(range(100, 110), 3)
    model = make_pipeline(StandardScaler(), SVC(C=3)).fit(known, words)
    unknown, truth = takes(range(200, 206), 2)
    recall = recall_score(truth, model.predict(unknown), average="macro")
    assert 0.6 < recall < 0.98
