"""Law 3: a recording that is extracted, as if to learn from it, and one that is scored have the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray

from emolib.archive.plan import PlannedRecording
from emolib.archive.scoring import RecordingRows, score_recordings
from emolib.config import PROFILES, Profile, ScoringConfig
from emolib.errors import Code
from emolib.features.extraction import extract_shard, plan_windows, probe_clips
from emolib.features.store import FeatureStore
from emolib.learning.bundle import ModelBundle
from emolib.sound.manifest import version_of
from emolib.sound.synthetic import utterance, voice
from tests.archive.conftest import FakeBundle
from tests.faults.world import untrained_model

# Every window is scored in which anybody breathes.
_SCORING = ScoringConfig(min_speech_s=0.1, min_level_dbfs=-90)


class Listening:
    """A bundle that keeps what it is asked."""

    def __init__(self, bundle: Any, profile: Profile) -> None:
        self._bundle, self.profile = bundle, profile
        self.asked: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bundle, name)

    def predict(self, features: Any, valid_frames: Any, *, batch: int = 64) -> Any:
        self.asked.append((features, valid_frames))
        return self._bundle.predict(features, valid_frames, batch=batch)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return ModelBundle.load(untrained_model(tmp_path_factory.mktemp("law 3") / "model"))


def _write(place: Path, seconds: float, rate: int, container: str, subtype: str, *, channels: int = 1) -> Path:
    said = utterance(voice(3), "anger", seed=1, sampling_rate=rate, duration_s=max(1.0, min(seconds, 20.0)))
    sound = np.tile(said, 1 + round(seconds * rate) // len(said))[: round(seconds * rate)]
    with soundfile.SoundFile(place, "w", rate, channels, format=container, subtype=subtype) as file:
        for start in range(0, len(sound), rate):  # of minutes at once libsndfile's encoder of Vorbis dies
            file.write(np.stack([sound[start : start + rate]] * channels, axis=1))
    return place


def _extracted(place: Path, profile: Profile, folder: Path) -> tuple[pd.DataFrame, NDArray[np.float32], Any, Any]:
    """Return the windows of a clip as a feature store has them: what they are, features, valid frames, codes."""
    one = {"utterance_id": "c/1", "corpus": "c", "speaker": "s", "gender": None, "emotion": "sad", "code": "ok"}
    planned = plan_windows(pd.DataFrame([{**one, "uri": str(place)}]), probe_clips([str(place)]), profile=profile)
    store = FeatureStore.create(folder / "S.zarr", profile=profile, windows=planned)
    for shard in range(len(store.shards)):
        extract_shard(store.path, shard)
    return (store.windows, *store.read(0, store.shape[0]), [Code.from_status(each) for each in store.status().tolist()])


def _scored(place: Path, bundle: Any) -> RecordingRows:
    version, size = version_of(place)
    planned = PlannedRecording(0, "id", place.name, version, size, "2024-05-01", "path", "id", 1.0)
    (rows,) = score_recordings(place.parent, [planned], bundle=bundle, config=_SCORING)
    return rows


def _assert_one_way(place: Path, bundle: Any, profile: Profile, folder: Path) -> RecordingRows:
    """Both ways, bit for bit: spans, features, valid frames, probabilities."""
    windows, features, valid_frames, codes = _extracted(place, profile, folder)
    listening = Listening(bundle, profile)
    rows = _scored(place, listening)
    scored = rows.windows.to_pandas()
    assert codes == [Code(rows.recording["code"])] * len(scored)
    assert len(scored)
    np.testing.assert_array_equal(scored[["start_s", "end_s"]], windows[["start_s", "end_s"]])
    if len(rows.channels) == 1:  # else the model was asked of each, before it was known that both are one sound
        seen, frames = (np.concatenate(each) for each in zip(*listening.asked, strict=True))
        np.testing.assert_array_equal(seen, features)
        np.testing.assert_array_equal(frames, valid_frames)
    if bundle.scheme.name == "emotion3":  # of emotion2 the genders are summed up
        probabilities = scored[[f"p_{name}" for name in bundle.classes]]
        np.testing.assert_array_equal(probabilities, bundle.predict(features, valid_frames))
    return rows


@pytest.mark.parametrize(
    ("seconds", "rate", "container", "subtype", "channels"),
    [
        (0.41, 8000, "WAV", "ULAW", 1),
        (4.0, 16_000, "WAV", "PCM_16", 1),
        (5.3, 44_100, "FLAC", "PCM_16", 1),
        (9.7, 48_000, "OGG", "OPUS", 1),
        (11.0, 22_050, "WAV", "FLOAT", 2),
        pytest.param(190.0, 48_000, "OGG", "VORBIS", 1, marks=pytest.mark.slow),  # scored in pieces of a minute
    ],
)
def test_what_is_learnt_from_is_what_is_scored(
    seconds: float, rate: int, container: str, subtype: str, channels: int, model: ModelBundle, tmp_path: Path
) -> None:
    place = _write(tmp_path / "clip", seconds, rate, container, subtype, channels=channels)
    rows = _assert_one_way(place, model, model.profile, tmp_path)
    assert rows.recording["decoded_s"] == pytest.approx(seconds, abs=0.05)


@pytest.mark.parametrize(("name", "seconds"), [("wideband", 6.3), ("article", 2.5)])
def test_the_other_front_ends_are_one_way_too(name: str, seconds: float, tmp_path: Path) -> None:
    """Frames that are shared between windows, or are not; padding by zeros, or by the median; windows, or a clip."""
    place = _write(tmp_path / "clip", seconds, 44_100, "WAV", "PCM_16")
    _assert_one_way(place, FakeBundle(), PROFILES[name], tmp_path)


def test_of_a_clip_that_is_cut_the_same_is_left(model: ModelBundle, tmp_path: Path) -> None:
    place = _write(tmp_path / "clip", 8.0, 16_000, "WAV", "PCM_16")
    place.write_bytes(place.read_bytes()[: 44 + 2 * 16_000 * 4])
    _, features, valid_frames, codes = _extracted(place, model.profile, tmp_path)
    listening = Listening(model, model.profile)
    rows = _scored(place, listening)
    left = np.array([code is Code.TRUNCATED for code in codes])
    assert rows.recording["code"] == "truncated"
    assert left.sum() == len(rows.windows) == 1
    np.testing.assert_array_equal(listening.asked[0][0], features[left])
    np.testing.assert_array_equal(listening.asked[0][1], valid_frames[left])


@pytest.mark.slow
def test_real_recordings_of_one_channel(shared: Path, model: ModelBundle, tmp_path: Path) -> None:
    places = [*sorted((shared / "corpora/original").rglob("*.wav")), *sorted((shared / "calls").iterdir())]
    found = []
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        folder.mkdir()
        listening = Listening(model, model.profile)
        rows = _scored(place, listening)
        if rows.recording["code"] != "ok" or len(rows.channels) > 1:
            continue
        windows, features, valid_frames, codes = _extracted(place, model.profile, folder)
        assert set(codes) == {Code.OK}
        scored = rows.windows.to_pandas()  # those in which somebody speaks
        same = windows.reset_index().merge(scored, on=["start_s", "end_s"], suffixes=("", "_scored"))
        assert len(same) == len(scored), place.name
        at = same["index"].to_numpy()
        np.testing.assert_array_equal(np.concatenate([each[0] for each in listening.asked]), features[at])
        expected = model.predict(features, valid_frames)[at]
        np.testing.assert_array_equal(same[[f"p_{name}" for name in model.classes]], expected)
        found.append(place.name)
    assert len(found) >= 20, found
