import errno
import math
import tracemalloc
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolib.archive import blocks, read
from emolib.archive.plan import PlannedRecording
from emolib.archive.run_settings import scoring_fingerprint
from emolib.archive.scoring import RecordingRows, score_recordings
from emolib.archive.verification import verify
from emolib.config import KnownAudioFile, ScoringConfig
from emolib.errors import Code, Outcome, SettingsError
from emolib.features.windows import windowed_features
from emolib.sound import audio
from emolib.sound.fingerprints import ChannelFingerprints
from emolib.sound.known_audio import KnownAudio, Stretch
from emolib.sound.manifest import recording_id, version_of
from emolib.storage import resolve
from tests.archive.conftest import RATE, voice, write_call
from tests.sound.channel_pairs import parties
from tests.sound.containers import Track, mux
from tests.sound.hold_music import hold_music
from tests.sound.real_files import DECODED, scored


@pytest.fixture
def score(archive: Path, bundle: Any) -> Any:
    """Score one file of the archive under some settings."""

    def score(uri: str, *, version: str | None = None, batch: int = 64, **settings: Any) -> RecordingRows:
        if version is None:
            version = version_of(archive / uri)[0]
        planned = PlannedRecording(0, recording_id(uri), uri, version, 1, "2024-05-01", "path", recording_id(uri), 1.0)
        (rows,) = score_recordings(archive, [planned], bundle=bundle, config=ScoringConfig(**settings), batch=batch)
        return rows

    return score


def _codes(rows: RecordingRows) -> tuple[str, list[str]]:
    return rows.recording["code"], [channel["code"] for channel in rows.channels]


STEREO = {0: "agent", 1: "customer"}


@pytest.mark.parametrize(
    ("uri", "settings", "code", "channels"),
    [
        ("2024-05-01/0.wav", {}, "ok", ["ok", "ok"]),
        ("2024-05-01/0.wav", {"channels": STEREO}, "ok", ["policy", "ok"]),
        ("2024-05-01/0.wav", {"channels": STEREO, "roles": ("agent", "customer")}, "ok", ["ok", "ok"]),
        ("2024-05-01/0.wav", {"channels": {0: "customer"}}, "ok", ["ok", "policy"]),
        ("2024-05-01/0.wav", {"channels": STEREO, "roles": ("mixed",)}, "policy", ["policy", "policy"]),
        ("2024-05-01/0.wav", {"min_level_dbfs": 0}, "no_speech", ["no_speech", "no_speech"]),
        ("2024-05-02/silent-agent.wav", {}, "ok", ["no_speech", "ok"]),
        (
            "2024-05-02/silent-agent.wav",
            {"channels": {0: "customer", 1: "agent"}},
            "no_speech",
            ["no_speech", "policy"],
        ),
        ("2024-05-02/mono.wav", {}, "ok", ["ok"]),
        ("2024-05-02/mono.wav", {"channels": STEREO}, "policy", ["policy"]),
        ("2024-05-02/mono.wav", {"channels": STEREO, "roles": ("mixed",)}, "ok", ["ok"]),
        ("2024-05-03/short.wav", {}, "too_short", ["too_short", "too_short"]),
        ("2024-05-03/short.wav", {"channels": STEREO}, "too_short", ["policy", "too_short"]),
        ("2024-05-03/empty.wav", {}, "empty", []),
    ],
)
def test_every_recording_and_channel_has_its_reason(
    score: Any, uri: str, settings: dict[str, Any], code: str, channels: list[str]
) -> None:
    rows = score(uri, **settings)
    assert _codes(rows) == (code, channels)
    message = rows.recording["message"]
    assert code == "ok" or (message and "\n" not in message)


def test_of_a_channel_that_policy_forbids_only_its_sound_is_described(score: Any, bundle: Any) -> None:
    rows = score("2024-05-01/0.wav", channels=STEREO)
    assert len(bundle.asked) == 1
    assert {"windows_total": None, "windows_scored": 0}.items() <= rows.channels[0].items()
    assert rows.channels[0]["speech_s"] > 1
    assert not any(name.startswith(("mean_", "polarity_")) for name in rows.channels[0])
    assert set(rows.windows["channel"].to_pylist()) == {1}


def test_tones_and_dead_channels(archive: Path, score: Any) -> None:
    time = np.arange(8 * RATE) / RATE
    ring = (0.1 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 480 * time)).astype(np.float32)
    said, hum = voice(8, seed=3), 1e-5 * np.ones(8 * RATE, np.float32)
    write_call(archive / "2024-05-04/ring.wav", ring, said)
    write_call(archive / "2024-05-04/dead.wav", hum, said, subtype="PCM_16")
    rows = score("2024-05-04/ring.wav")
    assert _codes(rows) == ("ok", ["no_speech", "ok"])
    assert rows.channels[0]["tone_s"] > 7
    assert [channel["flags"] for channel in rows.channels] == [[], []]
    assert [channel["flags"] for channel in score("2024-05-04/dead.wav").channels] == [["dead_channel"], []]


@pytest.mark.parametrize(
    "other",
    [lambda sound: sound, lambda sound: -sound, lambda sound: np.roll(sound, 8), lambda sound: 0.3 * sound],
    ids=["the same", "inverted", "late", "lower"],
)
def test_both_parties_on_both_channels_are_scored_once(archive: Path, score: Any, other: Any) -> None:
    both = parties(0).sum(axis=0)[: 15 * RATE]
    write_call(archive / "2024-05-04/dual.wav", both, other(both))
    rows = score("2024-05-04/dual.wav")
    assert _codes(rows) == ("ok", ["ok", "duplicate"])
    assert [channel["flags"] for channel in rows.channels] == [["dual_mono"], ["dual_mono"]]
    assert [channel["role"] for channel in rows.channels] == [None, None]
    assert set(rows.windows["channel"].to_pylist()) == {0}
    named = score("2024-05-04/dual.wav", channels=STEREO)
    assert _codes(named) == ("policy", ["policy", "policy"])
    assert [channel["role"] for channel in named.channels] == ["mixed", "mixed"]
    assert named.recording["message"] == "a channel of role mixed (dual mono) found, expected customer"
    assert (len(named.windows), named.recording["customer_talk_s"]) == (0, None)


def test_sums_and_calls_hold_where_both_parties_are_on_both_channels(
    archive: Path, start: Any, finish: Any, tmp_path: Path
) -> None:
    both = parties(0).sum(axis=0)[: 15 * RATE]
    write_call(archive / "2024-05-04/dual.wav", 0.3 * both, -both)
    finish(start(tmp_path / "pred"))
    assert verify(tmp_path / "pred").problems == []
    calls = read(tmp_path / "pred", table="calls")
    assert calls.set_index("call_id").loc[recording_id("2024-05-04/dual.wav"), "worst_channel"] == 0


def test_of_both_parties_on_both_channels_nobody_listens_to_one_that_policy_forbids(archive: Path, score: Any) -> None:
    both = parties(0).sum(axis=0)[: 15 * RATE]
    write_call(archive / "2024-05-04/dual.wav", both, -both)
    rows = score("2024-05-04/dual.wav", channels=STEREO, roles=("customer", "mixed"))
    assert _codes(rows) == ("ok", ["policy", "ok"])
    assert [channel["role"] for channel in rows.channels] == ["mixed", "mixed"]
    assert _codes(score("2024-05-04/dual.wav", channels=STEREO, roles=("mixed",))) == ("policy", ["policy", "policy"])


def test_of_one_sound_on_two_channels_the_one_with_more_speech_is_scored(archive: Path, score: Any) -> None:
    both = parties(0).sum(axis=0)[: 15 * RATE]
    write_call(archive / "2024-05-04/dual.wav", 0.3 * both, both)
    loud, faint = (score("2024-05-04/dual.wav", min_level_dbfs=level) for level in (-60, -35))
    assert _codes(loud) == ("ok", ["ok", "duplicate"])
    assert _codes(faint) == ("ok", ["duplicate", "ok"])
    assert faint.channels[0]["windows_scored"] == 0
    assert _codes(score("2024-05-04/dual.wav", min_level_dbfs=0)) == ("no_speech", ["no_speech", "no_speech"])


def test_known_audio_is_no_speech(archive: Path, score: Any, bundle: Any, tmp_path: Path) -> None:
    stream, music = ChannelFingerprints(RATE, min_level_dbfs=-60.0), hold_music(1, duration_s=12)
    stream.push(music)
    known = KnownAudio((Stretch(stream.finish(), 5, "a.wav", 0, 0.0),))
    known.save(tmp_path / "known.npz")
    file = {"path": str(tmp_path / "known.npz"), "known_audio_id": known.known_audio_id}
    write_call(archive / "2024-05-04/waits.wav", 0.5 * music, voice(12, seed=3))
    plain, rows = score("2024-05-04/waits.wav"), score("2024-05-04/waits.wav", known_audio=file)
    assert [channel["known_audio_s"] for channel in plain.channels] == [None, None]
    assert _codes(rows) == ("ok", ["no_speech", "ok"])
    assert rows.channels[0]["known_audio_s"] > 10
    assert rows.channels[1]["known_audio_s"] == 0
    assert rows.channels[1] | {"known_audio_s": None} == plain.channels[1]
    with pytest.raises(SettingsError, match="put that file back"):
        score("2024-05-04/waits.wav", known_audio=file | {"known_audio_id": "another"})
    moved = [ScoringConfig(known_audio=KnownAudioFile(**file | {"path": path})) for path in ("a.npz", "b.npz")]
    fingerprints = [scoring_fingerprint(bundle, config) for config in (*moved, ScoringConfig())]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_the_shortest_recording_is_scored_if_it_is_speech(archive: Path, score: Any) -> None:
    write_call(archive / "2024-05-04/word.wav", voice(6, seed=8)[3200:6480])
    write_call(archive / "2024-05-04/rest.wav", np.full(3280, 1e-5, np.float32), subtype="PCM_16")
    assert score("2024-05-04/word.wav").recording["code"] == "ok"
    assert score("2024-05-04/rest.wav").recording["code"] == "no_speech"


def test_more_speech_may_be_asked_of_a_window(score: Any) -> None:
    some, more = (score("2024-05-01/0.wav", min_speech_s=least).channels[0] for least in (0.4, 3.9))
    assert some["windows_total"] == more["windows_total"]
    assert some["windows_scored"] > more["windows_scored"]
    assert some["speech_s"] == more["speech_s"]


def test_a_recording_that_is_gone_or_changed_is_a_row(score: Any) -> None:
    assert score("2024-05-01/nothing.wav", version="1-1").recording["code"] == "missing"
    assert score("2024-05-01/0.wav", version="1-1").recording["code"] == "changed"


def test_wrong_settings_are_no_fault_of_the_recording(score: Any) -> None:
    with pytest.raises(SettingsError, match="hop"):
        score("2024-05-01/0.wav", hop_s=1.0)


def test_the_batch_changes_nothing(score: Any) -> None:
    one, many = score("2024-05-01/2.wav", batch=1), score("2024-05-01/2.wav", batch=64)
    assert one.windows.equals(many.windows)
    assert (one.recording, one.channels) == (many.recording, many.channels)


def test_gender_is_summed_out_unless_it_is_asked_for(score: Any) -> None:
    public, exposed = (
        score("2024-05-01/0.wav", expose_gender=expose).windows.to_pandas().filter(regex="^(p|polarity)_")
        for expose in (False, True)
    )
    assert list(public.columns[:3]) == ["p_negative", "p_neutral", "p_positive"]
    assert len(exposed.columns) == 9
    for polarity in ("negative", "neutral", "positive"):
        both = exposed[f"p_female_{polarity}"] + exposed[f"p_male_{polarity}"]
        np.testing.assert_allclose(public[f"p_{polarity}"], both, atol=1e-6)
        np.testing.assert_allclose(public[f"polarity_{polarity}"], exposed[f"polarity_{polarity}"], atol=1e-6)


def test_the_model_abstains_below_its_threshold(score: Any, bundle: Any) -> None:
    confidence = score("2024-05-01/2.wav").windows.to_pandas()["confidence"]
    bundle.abstention_threshold = float(confidence.median())
    rows = score("2024-05-01/2.wav")
    windows = rows.windows.to_pandas()
    abstained = windows["confidence"] < bundle.abstention_threshold
    assert abstained.any()
    pd.testing.assert_series_equal(windows["emotion"].isna(), abstained, check_names=False)
    assert sum(channel["windows_abstained"] for channel in rows.channels) == abstained.sum()
    bundle.abstention_threshold = None
    assert score("2024-05-01/2.wav").windows["emotion"].null_count == 0


def test_channel_figures_are_those_of_its_windows(score: Any, archive: Path, bundle: Any) -> None:
    """Recompute the aggregates of a channel from what the model said about it, the plain way."""
    rows = score("2024-05-01/2.wav")
    channel, windows = rows.channels[1], rows.windows.to_pandas().query("channel == 1").reset_index(drop=True)
    duration_s = rows.recording["decoded_s"]
    weight = windowed_features(
        audio.read(archive / "2024-05-01/2.wav", sampling_rate=8000).signal[1],
        features=bundle.profile.features,
        windows=bundle.profile.windows,
    ).valid_frames
    assert len(weight) == len(windows) == channel["windows_scored"] == channel["windows_total"]

    negative = windows["polarity_negative"]
    centre_s = (windows["start_s"] + windows["end_s"]) / 2
    first, last = centre_s < duration_s / 4, centre_s >= duration_s * 3 / 4
    expected = {
        "mean_neutral": np.average(windows["p_neutral"], weights=weight),
        "share_positive": np.average(windows["emotion"] == "positive", weights=weight),
        "polarity_negative": np.average(negative, weights=weight),
        "first_quarter_negative": np.average(negative[first], weights=weight[first]),
        "last_quarter_negative": np.average(negative[last], weights=weight[last]),
        "worst_negative": negative.max(),
        "worst_start_s": windows["start_s"][negative.argmax()],
    }
    assert {name: channel[name] for name in expected} == pytest.approx(expected)
    assert channel["trend_negative"] == pytest.approx(
        expected["last_quarter_negative"] - expected["first_quarter_negative"]
    )


def test_clipping_is_seen_in_telephone_codecs(archive: Path, write: Any, score: Any) -> None:
    tone = 0.5 * np.sin(np.arange(8000 * 5) / 5)
    write(archive / "clipped.wav", (4 * tone).clip(-1, 1), tone)
    loud, fine = score("clipped.wav").channels
    assert loud["clipped_share"] == pytest.approx(2 / 3, abs=0.02)
    assert fine["clipped_share"] == 0


def test_a_file_without_a_header_is_scored_as_the_settings_say(archive: Path, score: Any) -> None:
    soundfile.write(archive / "a.ul", voice(6, seed=1), 8000, format="RAW", subtype="ULAW")
    assert _codes(score("a.ul")) == ("unsupported", [])
    rows = score("a.ul", headerless={".ul": {"encoding": "ulaw"}})
    assert _codes(rows) == ("ok", ["ok"])
    assert (rows.recording["codec"], rows.recording["decoded_s"]) == ("raw/ulaw", 6.0)


@pytest.mark.parametrize(
    ("channels", "settings", "code"),
    [
        ([np.zeros(8 * RATE)], {}, "corrupt"),
        ([np.zeros(8 * RATE)] * 2, {"channels": STEREO}, "corrupt"),
        ([voice(8, seed=3)] * 2, {"channels": STEREO, "roles": ("mixed",)}, "policy"),
        ([voice(8, seed=3), np.zeros(8 * RATE)], {}, "truncated"),
    ],
)
def test_damage_is_no_silence(
    archive: Path, score: Any, channels: list[np.ndarray], settings: dict[str, Any], code: str
) -> None:
    channels = [channel + 1e-5 * (number + 1) for number, channel in enumerate(channels)]
    path = write_call(archive / "whole.wav", *channels)
    (archive / "cut.wav").write_bytes(path.read_bytes()[: -RATE * len(channels)])
    (archive / "left.wav").write_bytes(path.read_bytes()[: 58 + 400 * len(channels)])
    rows = score("cut.wav", **settings)
    assert rows.recording["code"] == code
    assert "decoded 7.00 s of the 8.00 s that the header claims" in rows.recording["message"]
    left = score("left.wav", **settings)
    assert left.recording["code"] == ("policy" if code == "policy" else "corrupt")
    if code == "corrupt":
        assert rows.recording["outcome"] == "failed"
        assert "of what is left: 0.0 s of speech" in rows.recording["message"]
        assert (rows.channels, len(rows.windows)) == ([], 0)
        assert rows.recording["decoded_s"] == 7.0


def test_a_track_each_and_a_gap_in_one_of_them(archive: Path, score: Any) -> None:
    """A party each, as Amazon Connect writes them; the customer was muted from the 8th second to the 20th."""
    agent, customer = (voice(16, seed=seed).astype(np.float32)[:, None] for seed in (3, 4))
    tracks = (
        Track("pcm_s16le", RATE, [(0.0, agent)]),
        Track("pcm_s16le", RATE, [(0.0, customer[: 8 * RATE]), (20.0, customer[8 * RATE :])]),
    )
    (archive / "call.mka").write_bytes(mux("matroska", *tracks))
    rows = score("call.mka", channels=STEREO, roles=("agent", "customer"))
    assert _codes(rows) == ("ok", ["ok", "ok"])
    assert "12.00 s have no sound in 1 place(s), the first at 8.00 s" in rows.recording["message"]
    windows = rows.windows.to_pandas()
    starts = windows.groupby("channel")["start_s"].agg(list)
    assert max(starts[0]) == 14.0
    assert [start for start in starts[1] if not start <= 6 or start >= 18] == [18.0, 20.0, 22.0, 24.0]
    # The sound behind the gap is the one that was before: nothing of it has moved within its track.
    alone = archive / "alone.wav"
    write_call(alone, customer[8 * RATE :, 0], subtype="PCM_16")
    ours = windows[(windows["channel"] == 1) & (windows["start_s"] >= 20)].reset_index(drop=True)
    theirs = score("alone.wav").windows.to_pandas()
    classes = [name for name in ours if name.startswith("p_")]
    np.testing.assert_allclose(ours[classes], theirs[classes][: len(ours)], atol=5e-3)  # other 16 bits


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(archive: Path, score: Any, bundle: Any) -> None:
    """Twenty minutes of two channels are 77 MB when they are decoded whole, and 24 MB of features."""
    peaks = []
    bundle.predict = lambda features, valid_frames, batch: np.full((len(features), len(bundle.classes)), 1 / 6, "f4")
    for minutes in (1, 20):
        sound = np.tile(voice(60, seed=1), minutes)
        soundfile.write(archive / "long.wav", np.stack([sound, sound], axis=1), 8000, subtype="ULAW")
        del sound
        tracemalloc.start()
        rows = score("long.wav")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rows.channels[0]["windows_scored"] == 30 * minutes - 1
    assert peaks[1] < peaks[0] + 3e6


def test_a_model_of_whole_clips_scores_whole_recordings(score: Any, bundle: Any) -> None:
    windows = bundle.profile.windows.model_copy(update={"hop_s": None})
    bundle.profile = bundle.profile.model_copy(update={"windows": windows})
    assert score("2024-05-02/mono.wav").windows["start_s"].to_pylist() == [0.0, 4.0]


def test_a_worker_loads_and_checks_the_planned_model_once(monkeypatch: pytest.MonkeyPatch, bundle: Any) -> None:
    calls = []
    monkeypatch.setattr(blocks.ModelBundle, "load", lambda path: calls.append(path) or bundle)
    monkeypatch.setattr(bundle, "check_golden", lambda: calls.append("golden"))
    blocks.load_bundle.cache_clear()
    for _ in range(2):
        assert blocks.load_bundle("model", "fake") is bundle
    assert calls == ["model", "golden"]
    with pytest.raises(SettingsError, match="model fake found at model, expected another"):
        blocks.load_bundle("model", "another")
    blocks.load_bundle.cache_clear()


@pytest.mark.parametrize("folder", DECODED)
def test_every_real_file_has_its_code(folder: str, shared: Path, bundle: Any) -> None:
    found = {}
    for place in (shared / folder).iterdir():
        version, size = version_of(place)
        planned = PlannedRecording(0, "id", place.name, version, size, "2024-05-01", "path", "id", 1.0)
        (rows,) = score_recordings(place.parent, [planned], bundle=bundle, config=ScoringConfig())
        found[place.name] = Code(rows.recording["code"])
        assert rows.recording["outcome"] == found[place.name].outcome
        assert (found[place.name].outcome is Outcome.SCORED) == (len(rows.windows) > 0)
        assert np.isfinite(rows.windows["confidence"].to_numpy()).all()
    assert found == scored(folder)


def test_a_name_that_reads_as_a_url_is_a_row(archive: Path, bundle: Any) -> None:
    """One such file stopped the run, every night."""
    uri = "zip::q.wav"
    planned = PlannedRecording(0, recording_id(uri), uri, "1-1", 1, "2024-05-01", "path", recording_id(uri), 1.0)
    (found,) = score_recordings(archive, [planned], bundle=bundle, config=ScoringConfig())
    assert (found.recording["outcome"], found.recording["code"]) == ("failed", "missing")


def test_who_talks_when_is_told_of_each_recording(archive: Path, score: Any) -> None:
    rest = np.zeros(4 * RATE, np.float32)
    agent, customer = np.concatenate([voice(4, seed=1), rest, rest]), np.concatenate([rest, voice(4, seed=2), rest])
    write_call(archive / "2024-05-04/turns.wav", agent, customer)
    found = score("2024-05-04/turns.wav", channels=STEREO).recording
    assert all(2 < found[f"{party}_talk_s"] <= 4.1 for party in ("agent", "customer"))
    assert found["overlap_s"] < 0.3
    assert 3 < found["non_talk_s"] < 5
    assert len(found["customer_latencies_s"]) <= 1
    assert found["agent_latencies_s"] == []
    assert "agent_talk_s" not in score("2024-05-03/empty.wav").recording


def test_calls_say_how_long_nobody_talks(stored_predictions: Path) -> None:
    calls = read(stored_predictions, table="calls")
    heard = calls["duration_s"].notna()
    assert calls.loc[heard, "non_talk_s"].notna().all()
    assert calls.loc[~heard, "non_talk_s"].isna().all()
    assert calls["agent_talk_s"].isna().all()  # no roles were named


@pytest.mark.parametrize(
    ("error", "reads", "code"),
    [
        (OSError(errno.EIO, "the disk said no"), 3, "unreadable"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), 3, "unreadable"),
        (PermissionError(errno.EACCES, "denied"), 1, "unreadable"),
        (FileNotFoundError(errno.ENOENT, "gone"), 1, "missing"),
    ],
)
def test_what_may_pass_in_a_moment_is_read_again(
    score: Any, monkeypatch: pytest.MonkeyPatch, error: OSError, reads: int, code: str
) -> None:
    expected, tried = score("2024-05-02/mono.wav"), []

    def refuses(self: Path, *arguments: Any, times: float = math.inf, **named: Any) -> Any:
        tried.append(self)
        if len(tried) <= times:
            raise error
        return opens(self, *arguments, **named)

    opens = type(resolve("/a")).open
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    monkeypatch.setattr(type(resolve("/a")), "open", refuses)
    assert score("2024-05-02/mono.wav").recording["code"] == code
    assert len(tried) == reads
    tried.clear()
    monkeypatch.setattr(type(resolve("/a")), "open", partialmethod(refuses, times=reads - 1))
    assert score("2024-05-02/mono.wav") == expected


def test_a_channel_in_which_another_is_heard_is_flagged(archive: Path, score: Any) -> None:
    said = np.concatenate([voice(5, seed=3)] * 3)
    noise = 0.001 * np.random.default_rng(0).standard_normal(said.size).astype(np.float32)
    write_call(archive / "2024-05-04/leak.wav", said, noise + 0.1 * said, subtype="PCM_16")
    write_call(archive / "2024-05-04/apart.wav", said, noise, subtype="PCM_16")
    assert [channel["flags"] for channel in score("2024-05-04/leak.wav").channels] == [[], ["cross_talk"]]
    assert [channel["flags"] for channel in score("2024-05-04/apart.wav").channels] == [[], []]
