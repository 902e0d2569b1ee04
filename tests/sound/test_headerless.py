"""Telephone files without a header: decoded as the settings say, and only where the content says nothing."""

from __future__ import annotations

import io
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from emolib.config import HeaderlessFormat, parse_headerless
from emolib.errors import AudioError, Code, SettingsError
from emolib.sound import audio


def tone(rate: int = 8000, channels: int = 1, seconds: float = 2.0) -> NDArray[np.float32]:
    """Return tones of 300 Hz, 600 Hz, … as ``(sample, channel)``."""
    times = np.arange(round(seconds * rate))[:, None] / rate
    return (0.3 * np.sin(2 * np.pi * 300 * times * np.arange(1, channels + 1))).astype(np.float32)


def raw(signal: NDArray[np.float32], rate: int, encoding: str, endian: str = "FILE") -> bytes:
    target = io.BytesIO()
    soundfile.write(target, signal, rate, format="RAW", subtype=encoding, endian=endian)
    return target.getvalue()


def raw_by_ffmpeg(signal: NDArray[np.float32], rate: int, encoding: str) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format=encoding) as file:
        stream = file.add_stream(encoding, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((signal.T * 2**15).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = rate
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return target.getvalue()


@pytest.mark.parametrize(
    ("encoding", "subtype", "endian", "channels"),
    [
        ("ulaw", "ULAW", "FILE", 1),
        ("ulaw", "ULAW", "FILE", 2),
        ("alaw", "ALAW", "FILE", 2),
        ("u8", "PCM_U8", "FILE", 1),
        ("s16le", "PCM_16", "LITTLE", 2),
        ("s16be", "PCM_16", "BIG", 1),
        ("gsm", "GSM610", "FILE", 1),
        ("vox", "VOX_ADPCM", "FILE", 1),
    ],
)
def test_what_libsndfile_decodes(tmp_path: Path, encoding: str, subtype: str, endian: str, channels: int) -> None:
    signal = tone(channels=channels)
    path = tmp_path / "call.x"
    path.write_bytes(raw(signal, 8000, subtype, endian))
    formats = {".x": HeaderlessFormat(encoding=encoding, channels=channels)}
    decoded = audio.read(path, headerless=formats)
    assert (decoded.code, decoded.message) == (Code.OK, "")
    assert decoded.info == audio.probe(path, headerless=formats)
    assert decoded.info == audio.AudioInfo(f"raw/{subtype.lower()}", 8000, channels, 16_000)
    np.testing.assert_allclose(decoded.signal[:, 1000:], signal.T[:, 1000:], atol=0.05)


@pytest.mark.parametrize(("encoding", "rate"), [("g722", 16_000), ("g726", 8000), ("g726le", 8000)])
def test_what_ffmpeg_decodes(tmp_path: Path, encoding: str, rate: int) -> None:
    signal = tone(rate)
    path = tmp_path / "call.x"
    path.write_bytes(raw_by_ffmpeg(signal, rate, encoding))
    decoded = audio.read(path, headerless={".x": HeaderlessFormat(encoding=encoding)})
    assert (decoded.code, decoded.message) == (Code.OK, "")
    assert decoded.info == audio.AudioInfo(f"raw/{encoding}", rate, 1, 2 * rate)
    middle = decoded.signal[0, rate // 2 : 3 * rate // 2]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 300
    assert np.std(middle) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)


def test_g729_runs(tmp_path: Path) -> None:
    """Whether the sound of a real file is right was not tried: there is no encoder and no file."""
    path = tmp_path / "call.g729"
    path.write_bytes(np.random.default_rng(0).bytes(10 * 100))
    decoded = audio.read(path, headerless=parse_headerless(".g729=g729"))
    assert decoded.info == audio.AudioInfo("raw/g729", 8000, 1, 8000)
    assert (decoded.code, decoded.decoded_s) == (Code.OK, 1.0)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "seconds"),
    [
        ("calls/asterisk_talking-g.g722", "raw/g722", 16_000, 2.57),
        ("calls/asterisk_talking_silence_test.ulaw", "raw/ulaw", 8000, 12.71),
        ("calls/cq_ref.raw", "raw/pcm_16", 16_000, 4.49),
        ("broken/azure_good_morning.pcm", "raw/pcm_16", 16_000, 1.01),
        ("broken/speechbrain_example4.raw", "raw/pcm_16", 16_000, 2.19),
        ("broken/azure_missing_wav_header.wav", "raw/pcm_16", 16_000, 0.63),
    ],
)
def test_real_file(shared: Path, name: str, codec: str, rate: int, seconds: float) -> None:
    formats = parse_headerless(".ulaw=ulaw,.g722=g722,.raw=s16le:16000,.pcm=s16le:16000,.wav=s16le:16000:2")
    decoded = audio.read(shared / name, headerless=formats)
    assert (decoded.code, decoded.message) == (Code.OK, "")
    assert (decoded.info.codec, decoded.sampling_rate) == (codec, rate)
    assert decoded.decoded_s == pytest.approx(seconds, abs=0.01)
    for speech in decoded.signal:
        assert np.corrcoef(speech[1:], speech[:-1])[0, 1] > 0.8  # the wrong format makes noise


def test_real_g722_is_the_sound_of_its_wav(shared: Path) -> None:
    path = shared / "calls" / "asterisk_talking-g.g722"
    decoded = audio.read(path, sampling_rate=8000, headerless=parse_headerless(".g722=g722")).signal[0]
    expected = audio.read(shared / "calls" / "asterisk_talking.wav").signal[0, : len(decoded) - 11]
    assert np.corrcoef(decoded[11:], expected)[0, 1] > 0.999  # the filters of G.722 delay by 22 samples


ANY = ["ulaw", "alaw", "gsm", "s16le", "s16be", "u8", "vox", "g722", "g726", "g726le", "g729"]


@pytest.mark.parametrize("encoding", ANY)
def test_content_decides_where_it_says_something(tmp_path: Path, encoding: str) -> None:
    formats = {".x": HeaderlessFormat(encoding=encoding)}
    path = tmp_path / "call.x"
    for container in ("WAV", "FLAC", "OGG", "MP3", "AIFF"):
        target = io.BytesIO()
        soundfile.write(target, tone(), 8000, format=container)
        path.write_bytes(target.getvalue())
        assert audio.read(path, headerless=formats).info == audio.probe(path)
    for content, code in (
        (b"", Code.EMPTY),
        (b"RIFF\xff\0\0\0WAVEfmt \x10\0\0\0", Code.CORRUPT),
        (b"<html>503 Service Unavailable</html>\n" * 40, Code.UNSUPPORTED),
        (("<p>Dienst nicht verfügbar, bitte später</p>\n" * 40).encode(), Code.UNSUPPORTED),
    ):
        path.write_bytes(content)
        with pytest.raises(AudioError) as caught:
            audio.read(path, headerless=formats)
        assert caught.value.code is code


def test_other_suffixes_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "call.raw"
    path.write_bytes(raw(tone(), 8000, "ULAW"))
    for formats in (None, {}, parse_headerless(".ulaw=ulaw,=ulaw")):
        with pytest.raises(AudioError, match="the setting headerless must say its format") as caught:
            audio.probe(path, headerless=formats)
        assert caught.value.code is Code.UNSUPPORTED
        assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["a/call.RAW", "a.b/call.tar.raw", "memory://test-headerless/call.raw"])
def test_suffix_is_that_of_the_name(tmp_path: Path, name: str) -> None:
    place = name if "://" in name else str(tmp_path / name)
    with fsspec.open(place, "wb", auto_mkdir=True) as file:
        file.write(raw(tone(), 8000, "ULAW"))
    assert audio.probe(place, headerless=parse_headerless(".raw=ulaw")).codec == "raw/ulaw"


def test_name_without_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "call").write_bytes(raw(tone(), 8000, "ALAW"))
    assert audio.probe(tmp_path / "call", headerless=parse_headerless("=alaw:8000")).codec == "raw/alaw"


@pytest.mark.parametrize("encoding", ["ULAW", "ALAW", "PCM_16"])
def test_telephone_sound_that_looks_like_something_else(tmp_path: Path, encoding: str) -> None:
    """Quiet telephone sound holds the sync words of MP3, and the four bits by which GSM is told."""
    rng = np.random.default_rng(2)
    path = tmp_path / "call.x"
    formats = parse_headerless(".x=" + {"ULAW": "ulaw", "ALAW": "alaw", "PCM_16": "s16le"}[encoding])
    for trial in range(60):
        level = 10 ** rng.uniform(-4, -1)
        data = bytearray(raw((level * rng.standard_normal((9000, 1))).astype(np.float32), 8000, encoding))
        data[:2] = bytes([0xFF, 0xE0 + trial % 32])
        path.write_bytes(data)
        decoded = audio.read(path, headerless=formats)
        assert (decoded.info.codec, decoded.signal.shape) == (f"raw/{encoding.lower()}", (1, 9000))
    for silence in (b"\xd5", b"U"):
        path.write_bytes(silence * 33_000)
        assert audio.read(path, headerless=formats).info.codec == f"raw/{encoding.lower()}"


def test_part_of_a_sample_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "call.x"
    path.write_bytes(raw(tone(channels=2), 8000, "PCM_16") + b"abc")
    decoded = audio.read(path, headerless=parse_headerless(".x=s16le:8000:2"))
    assert (decoded.code, decoded.signal.shape) == (Code.OK, (2, 16_000))
    path.write_bytes(b"\xa1\xa2\xa3")
    with pytest.raises(AudioError, match="the raw/pcm_16 file holds no samples") as caught:
        audio.read(path, headerless=parse_headerless(".x=s16le:8000:2"))
    assert caught.value.code is Code.EMPTY


def test_spelling() -> None:
    assert parse_headerless(".ULAW=ulaw:8000, .g722=g722:16000,.raw=s16le:16000:2,=gsm,.wav=vox:6000") == {
        ".ulaw": HeaderlessFormat(encoding="ulaw"),
        ".g722": HeaderlessFormat(encoding="g722", sampling_rate=16_000),
        ".raw": HeaderlessFormat(encoding="s16le", sampling_rate=16_000, channels=2),
        "": HeaderlessFormat(encoding="gsm", sampling_rate=8000),
        ".wav": HeaderlessFormat(encoding="vox", sampling_rate=6000),
    }
    assert HeaderlessFormat(encoding="g722").sampling_rate == 16_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' found, expected suffix=encoding"),
        ("ulaw", "'ulaw' found, expected suffix=encoding"),
        ("ulaw=ulaw", "'ulaw=ulaw' found, expected suffix=encoding"),
        (".raw=ulaw:", "expected suffix=encoding"),
        (".raw=ulaw:8000:1:1", "expected suffix=encoding"),
        (".raw=ulaw:fast", "expected suffix=encoding"),
        (".raw=ulaw,", "'' found, expected suffix=encoding"),
        (".tar.raw=ulaw", "expected suffix=encoding"),
        (".raw=ulaw,.RAW=alaw", "two headerless formats for the suffix '.raw' found"),
        (".raw=mp3", r"'\.raw=mp3': .*encoding.*'ulaw'"),
        (".raw=ulaw:1", "sampling_rate"),
        (".raw=ulaw:8000:0", "channels"),
        (".raw=gsm:16000", "gsm at 16000 Hz found, expected 8000"),
        (".raw=g722:8000", "g722 at 8000 Hz found, expected 16000"),
        (".raw=vox:8000:2", "vox with 2 channels found, expected 1"),
    ],
)
def test_misspelt(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        parse_headerless(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("container", "encoding"), [("asf", "wmav2"), ("flv", "aac"), ("mpegts", "aac")])
def test_a_damaged_container_is_not_taken_for_samples(tmp_path: Path, container: str, encoding: str) -> None:
    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream(encoding, rate=16_000, layout="mono", bit_rate=32_000)
        sound = np.ascontiguousarray(tone(16_000, seconds=5.0).T)
        for start in range(0, sound.shape[1], 1024):
            part = np.ascontiguousarray(sound[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    path = tmp_path / "cut"
    path.write_bytes(target.getvalue()[: len(target.getvalue()) // 2])
    plain, told = audio.read(path), audio.read(path, headerless=parse_headerless("=ulaw"))
    assert told.info.codec == plain.info.codec != "raw/ulaw"
    assert (told.code, told.decoded_s) == (plain.code, plain.decoded_s)
