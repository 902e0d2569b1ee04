"""Damage within a file: decoding goes on behind it, what is lost is silent, and the verdict says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from emolib.errors import AudioError, Code
from emolib.sound import audio
from tests.sound.containers import Track, encode, mux, noise

RATE = 8000
SECONDS = 20
SIGNAL = noise(SECONDS, RATE)
FORMATS = {
    "flac": encode(SIGNAL, RATE, "FLAC"),
    "mp3": encode(SIGNAL, RATE, "MP3"),
    "vorbis": encode(SIGNAL, RATE, "OGG", "VORBIS"),
    "opus": encode(SIGNAL, RATE, "OGG", "OPUS"),
    "adts": mux("adts", Track("aac", RATE, [(0.0, SIGNAL)])),
    "mp4": mux("mp4", Track("aac", RATE, [(0.0, SIGNAL)])),
    "webm": mux("webm", Track("libopus", 48_000, [(0.0, noise(SECONDS, 48_000))])),
    "mpegts": mux("mpegts", Track("aac", RATE, [(0.0, SIGNAL)])),
    "wma": mux("asf", Track("wmav2", 16_000, [(0.0, noise(SECONDS, 16_000))])),
    "flv": mux("flv", Track("aac", 16_000, [(0.0, noise(SECONDS, 16_000))])),
}


def read(folder: Path, data: bytes) -> audio.Audio:
    path = folder / "x"
    path.write_bytes(data)
    return audio.read(path)


def overwritten(data: bytes, share: float, what: bytes) -> bytes:
    place = round(share * len(data))
    return data[:place] + what + data[place + len(what) :]


@pytest.mark.parametrize("name", ["flac", "mp3", "vorbis", "opus", "adts"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
@pytest.mark.parametrize(
    "what",
    [
        np.random.default_rng(1).bytes(500),
        pytest.param(bytes(500), marks=pytest.mark.slow),
        pytest.param(b"\xff" * 500, marks=pytest.mark.slow),
    ],
    ids=["noise", "zeros", "ones"],
)
def test_decoding_goes_on_behind_damage(tmp_path: Path, name: str, share: float, what: bytes) -> None:
    whole = read(tmp_path, FORMATS[name])
    assert whole.code is Code.OK
    found = read(tmp_path, overwritten(FORMATS[name], share, what))
    assert found.code is Code.TRUNCATED, found.message
    # What is behind it lies where it lay; or nearly, where nothing in the file says when a frame begins.
    rate = whole.sampling_rate
    about = {"flac": 0, "opus": 0.01, "vorbis": 0.02, "mp3": 0.5, "adts": 1.5}[name]
    if share > 0.1 or name == "flac":
        assert found.decoded_s == pytest.approx(whole.decoded_s, abs=about + 1e-3)
        last = slice(round(18 * rate), round(18.5 * rate))
        length = 2 ** int(np.ceil(np.log2(whole.signal.shape[1])))
        spectrum = np.fft.rfft(whole.signal[0], length) * np.fft.rfft(found.signal[0, last], length).conj()
        lag = int(np.argmax(np.fft.irfft(spectrum)))
        assert abs(lag - last.start) <= about * rate


@pytest.mark.parametrize("name", ["mp3", "adts"])
@pytest.mark.parametrize("size", [300, 5000])
def test_junk_between_frames_is_skipped(tmp_path: Path, name: str, size: int) -> None:
    data, whole = FORMATS[name], read(tmp_path, FORMATS[name])
    half = len(data) // 2
    found = read(tmp_path, data[:half] + np.random.default_rng(2).bytes(size) + data[half:])
    assert found.decoded_s == pytest.approx(whole.decoded_s, abs=0.5)
    assert found.code is Code.TRUNCATED  # the frame that it was put into is lost


def test_a_damaged_frame_of_flac_is_no_sound(tmp_path: Path) -> None:
    """One bit is enough for a burst at full scale, and FFmpeg plays it where nobody asks for the checksum."""
    data = bytearray(FORMATS["flac"])
    data[len(data) // 2] ^= 0x10
    found = read(tmp_path, bytes(data))
    assert found.code is Code.TRUNCATED
    whole = read(tmp_path, FORMATS["flac"])
    # Neighbours that came in one packet with it may lie a frame late, but nothing is heard that was not there.
    same = (found.signal[0] == whole.signal[0]).reshape(-1, 100).all(axis=1)
    assert same[: 80_000 // 100 - 164].all()
    assert same[80_000 // 100 + 164 :].all()
    assert np.isin(found.signal[0], np.append(whole.signal[0], 0)).all()


@pytest.mark.parametrize(
    ("container", "codec"), [("wv", "wavpack"), ("matroska", "wavpack"), ("matroska", "flac"), ("mp4", "flac")]
)
@pytest.mark.parametrize("what", [None, bytes(500), np.random.default_rng(1).bytes(500)], ids=["bit", "zeros", "noise"])
def test_what_fails_its_checksum_is_no_sound(tmp_path: Path, container: str, codec: str, what: bytes | None) -> None:
    data = mux(container, Track(codec, RATE, [(0.0, SIGNAL)]))
    whole = read(tmp_path, data)
    assert whole.code is Code.OK
    found = read(tmp_path, overwritten(data, 0.5, bytes([data[len(data) // 2] ^ 0x10]) if what is None else what))
    assert found.code is Code.TRUNCATED, found.message
    assert found.signal.shape == whole.signal.shape
    np.testing.assert_array_equal(found.signal[found.signal != 0], whole.signal[found.signal != 0])
    assert (found.signal == whole.signal).mean() > 0.4  # blocks of WavPack take seconds


def test_damage_in_a_container_with_gaps_is_no_gap(tmp_path: Path) -> None:
    """Where nobody speaks there may be no packets; but there are no bytes then either."""
    found = read(tmp_path, overwritten(FORMATS["webm"], 0.5, bytes(3000)))
    assert found.code is Code.TRUNCATED
    assert "s of sound are lost in 1 place(s)" in found.message


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_any_damage_ends_in_a_verdict(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder, data = tmp_path_factory.mktemp(name), FORMATS[name]

    @given(st.floats(0, 1), st.integers(1, 3000), st.sampled_from([0, 0xFF, None]), st.floats(0.5, 1))
    def check(share: float, size: int, value: int | None, kept: float) -> None:
        what = np.random.default_rng(size).bytes(size) if value is None else bytes([value]) * size
        damaged = overwritten(data, share, what)
        message = ""
        try:
            found = read(folder, damaged[: round(kept * len(damaged))])
            message, finite = found.message, bool(np.isfinite(found.signal).all())
        except AudioError as error:
            message, finite = error.message, error.code in (Code.CORRUPT, Code.UNSUPPORTED, Code.EMPTY)
        assert finite
        assert "\n" not in message

    check()


@pytest.mark.parametrize("name", ["flac", "mp3", "vorbis", "opus", "adts", "webm", "mpegts", "wma", "flv"])
@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("what", [bytes(2000), bytes(20_000), np.random.default_rng(1).bytes(20_000)])
def test_what_is_lost_is_never_ok(tmp_path: Path, name: str, share: float, what: bytes) -> None:
    """What damage leaves may be silence: then it would be a skip, and nobody would look."""
    found = read(tmp_path, overwritten(FORMATS[name], share, what))
    assert found.code is Code.TRUNCATED, found.message


@pytest.mark.parametrize("name", ["flac", "vorbis", "opus", "webm", "wma", "mp3"])
def test_a_tail_of_zeros_is_what_a_power_cut_leaves(tmp_path: Path, name: str) -> None:
    data = FORMATS[name]
    whole = read(tmp_path, data)
    found = read(tmp_path, data[: len(data) * 2 // 3] + bytes(len(data) // 3))
    assert found.code is Code.TRUNCATED, found.message
    assert found.decoded_s < whole.decoded_s + 0.2


@pytest.mark.parametrize("name", ["vorbis", "opus"])
def test_an_ogg_file_that_was_cut_between_two_pages(tmp_path: Path, name: str) -> None:
    data = FORMATS[name]
    found = read(tmp_path, data[: data.rindex(b"OggS", 0, len(data) * 2 // 3)])
    assert found.code is Code.TRUNCATED
    assert "the last page of the Ogg file is missing" in found.message


def test_a_hole_in_an_ogg_file_is_not_its_end(tmp_path: Path) -> None:
    """FFmpeg gives up where it finds no page within 64 KiB."""
    data = encode(noise(60, 48_000), 48_000, "OGG", "VORBIS")
    assert len(data) > 500_000
    found = read(tmp_path, overwritten(data, 0.3, bytes(150_000)))
    assert (found.code, found.decoded_s) == (Code.TRUNCATED, pytest.approx(60, abs=0.2))
    assert np.abs(found.signal[0, -48_000:]).max() > 0.1


@pytest.mark.parametrize("name", ["flac", "mp3", "vorbis", "opus", "wma", "mp4"])
@pytest.mark.parametrize("padding", [bytes(512), b"TAG" + bytes(125)], ids=["zeros", "tag"])
def test_padding_and_tags_are_no_damage(tmp_path: Path, name: str, padding: bytes) -> None:
    found = read(tmp_path, FORMATS[name] + padding)
    assert found.code is Code.OK, found.message
