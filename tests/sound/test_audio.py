"""Decoding: every real file by a table of what a data engineer would want, and every trap by a synthetic one."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFile
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.errors import AudioError, Code
from emolib.sound import audio
from tests.sound.real_files import DECODED, decoded

RATE = 16_000

EXPECTED = [(folder, name, code) for folder in DECODED for name, code in decoded(folder).items()]


def outcome(source: str | Path) -> tuple[Code, str]:
    try:
        decoded = audio.read(source)
    except AudioError as error:
        return error.code, error.message
    assert decoded.signal.dtype == np.float32
    assert decoded.signal.shape[0] == decoded.info.channels
    assert decoded.signal.shape[1] > 0
    assert np.isfinite(decoded.signal).all()
    assert np.abs(decoded.signal).max() <= 1
    return decoded.code, decoded.message


@pytest.mark.parametrize(("folder", "name", "code"), EXPECTED, ids=[f"{folder}/{name}" for folder, name, _ in EXPECTED])
def test_real_file(shared: Path, folder: str, name: str, code: Code) -> None:
    found, message = outcome(shared / folder / name)
    assert found == code, message
    assert message or code is Code.OK
    assert len(message) < 200
    assert "\n" not in message
    assert name not in message


@pytest.mark.parametrize("folder", DECODED)
def test_the_table_knows_every_real_file(shared: Path, folder: str) -> None:
    assert {path.name for path in (shared / folder).iterdir()} == {
        name for where, name, _ in EXPECTED if where == folder
    }


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels", "frames"),
    [
        ("03-01-02-01-01-02-01.wav", "wav/pcm_16", 48_000, 2, 172_972),
        ("OAF_food_fear.wav", "wav/pcm_16", 96_000, 1, 145_172),
        ("YAF_germ_angry.wav", "aiff/pcm_16", 24_414, 1, 53_847),
        ("KL_su15.wav", "wav/pcm_16", 44_100, 1, 258_264),
    ],
)
def test_corpora_as_published(shared: Path, name: str, codec: str, rate: int, channels: int, frames: int) -> None:
    path = shared / "corpora" / "original" / name
    assert audio.probe(path) == audio.AudioInfo(codec, rate, channels, frames)
    decoded = audio.read(path, sampling_rate=8000)
    assert decoded.signal.shape == (channels, audio.resampled_length(frames, rate, 8000))
    assert decoded.code is Code.OK


def test_real_call_is_the_same_sound_in_every_codec(shared: Path) -> None:
    stereo = audio.read(shared / "calls" / "call40_agentL_callerR_ulaw.wav").signal
    frames = stereo.shape[1]
    customer = audio.read(shared / "calls" / "call40_caller_gsm610.wav").signal[0, :frames]
    assert np.corrcoef(customer, stereo[1])[0, 1] > 0.95
    mixed = audio.read(shared / "calls" / "call40_mixed_mono.mp3").signal[0]
    assert np.corrcoef(mixed, stereo.sum(axis=0))[0, 1] > 0.95


def tone(seconds: float = 2.0, rate: int = RATE, *, channels: int = 1, level: float = 0.5) -> NDArray[np.float32]:
    """Return tones of 300 Hz, 600 Hz, … as ``(sample, channel)``."""
    times = np.arange(round(seconds * rate))[:, None] / rate
    return (level * np.sin(2 * np.pi * 300 * times * np.arange(1, channels + 1))).astype(np.float32)


def encode(signal: NDArray[np.float32], rate: int = RATE, *, container: str, encoding: str | None = None) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, signal, rate, format=container, subtype=encoding)
    return target.getvalue()


def put(folder: Path, data: bytes, name: str = "x.bin") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# By FFmpeg's name of an encoding, that of the encoder at hand.
ENCODINGS = {"flac": "PCM_16", "vorbis": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}


@pytest.mark.parametrize(
    ("container", "encoding", "name", "tolerance"),
    [
        ("WAV", "PCM_16", "a.mp3", 1e-3),
        ("WAV", "ULAW", "a.ogg", 0.03),
        ("FLAC", "flac", "a.wav", 1e-3),
        ("OGG", "vorbis", "a.wav", 0.05),
        ("OGG", "opus", "a.txt", 0.05),
        ("MP3", "mp3", "a.gsm", 0.05),
        ("AIFF", "PCM_24", "a.wav", 1e-3),
        ("AU", "PCM_16", "a.raw", 1e-3),
        ("NIST", "PCM_16", "a", 1e-3),
        ("CAF", "PCM_16", "a.g722", 1e-3),
    ],
)
def test_content_decides_and_not_the_name(
    tmp_path: Path, container: str, encoding: str, name: str, tolerance: float
) -> None:
    signal = tone(channels=2)
    path = put(tmp_path, encode(signal, container=container, encoding=ENCODINGS.get(encoding, encoding)), name)
    decoded = audio.read(path)
    rate = 48_000 if encoding == "opus" else RATE  # it is decoded at no other
    assert (decoded.code, decoded.message) == (Code.OK, "")
    assert (decoded.info.sampling_rate, decoded.info.channels, decoded.info.frames) == (
        rate,
        2,
        len(signal) * rate // RATE,
    )
    assert decoded.info.codec == f"{container}/{encoding}".lower()
    assert decoded.info.duration_s == 2.0
    # FFmpeg takes the start of Vorbis to lie a block later than it does, and cuts the end by as much.
    assert decoded.decoded_s == pytest.approx(2.0, abs=0.02 if encoding == "vorbis" else 0)
    decoded = audio.read(path, sampling_rate=RATE)
    length = decoded.signal.shape[1]
    np.testing.assert_allclose(decoded.signal[:, 2000:-2000], signal.T[:, 2000 : length - 2000], atol=tolerance)
    assert audio.probe(path) == decoded.info


def encode_aac(signal: NDArray[np.float32], container: str) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal.T), format="fltp", layout="mono")
        frame.sample_rate = RATE
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return target.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "mov/aac"), ("matroska", "matroska/aac"), ("adts", "aac/aac")]
)
def test_what_libsndfile_does_not_know(tmp_path: Path, container: str, codec: str) -> None:
    path = put(tmp_path, encode_aac(tone(), container), "a.wav")
    decoded = audio.read(path)
    assert (decoded.code, decoded.info.codec) == (Code.OK, codec)
    assert (decoded.info.frames is None) == (container == "adts")
    assert decoded.decoded_s == pytest.approx(2, abs=0.15)
    middle = decoded.signal[0, RATE // 2 : 3 * RATE // 2]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 300


def test_mp3_read_in_blocks_is_the_mp3_read_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    signal = (tone(4.0) + 0.1 * rng.standard_normal((4 * RATE, 1))).astype(np.float32)
    path = put(tmp_path, encode(signal, container="MP3"))
    whole, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(audio.read(path).signal[0], whole, atol=1e-5)


def test_object_store(tmp_path: Path) -> None:
    data = encode(tone(), container="FLAC")
    with fsspec.open("memory://test-audio/calls/ä b.wav", "wb") as file:
        file.write(data)
    remote = audio.read("memory://test-audio/calls/ä b.wav", sampling_rate=8000)
    local = audio.read(put(tmp_path, data), sampling_rate=8000)
    assert remote.info == local.info
    np.testing.assert_array_equal(remote.signal, local.signal)
    with pytest.raises(AudioError) as caught:
        audio.read("memory://test-audio/calls/absent.wav")
    assert caught.value.code is Code.MISSING


def test_failed_read_is_unreadable_and_not_the_end_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with fsspec.open("memory://test-audio/flaky.wav", "wb") as file:
        file.write(encode(tone(20.0), container="WAV"))
    reads = []

    def flaky(self: MemoryFile, size: int = -1) -> bytes:
        reads.append(size)
        if len(reads) > 20:
            raise ConnectionResetError("the line is dead")
        return io.BytesIO.read(self, size)

    monkeypatch.setattr(MemoryFile, "read", flaky)
    assert outcome("memory://test-audio/flaky.wav") == (
        Code.UNREADABLE,
        "reading the file failed: ConnectionResetError: the line is dead",
    )


def test_what_is_not_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(tmp_path / "absent.wav")[0] is Code.MISSING
    assert outcome(tmp_path)[0] is Code.UNREADABLE
    assert outcome(put(tmp_path, b""))[0] is Code.EMPTY
    path = put(tmp_path, encode(tone(), container="WAV"))

    def refuse(*args: object, **keywords: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert outcome(path) == (Code.UNREADABLE, "the file cannot be opened: Permission denied")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<html><body>404 Not Found</body></html>\n" * 9, "text found"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "text found"),
        (b"ffconcat version 1.0\nfile other.wav\n", "text found"),
        (np.random.default_rng(0).bytes(100_000), "no known container"),
        (b"\xff" * 50_000, "no known container"),
        (bytes(50_000), "no known container"),
    ],
)
def test_what_is_not_sound(tmp_path: Path, content: bytes, found: str) -> None:
    put(tmp_path, encode(tone(), container="WAV"), "other.wav")
    code, message = outcome(put(tmp_path, content, "a.gsm"))
    assert code is Code.UNSUPPORTED
    assert message.startswith(found)


@pytest.mark.parametrize("encoding", ["ULAW", "ALAW", "PCM_16"])
def test_headerless_telephone_sound_is_not_guessed(tmp_path: Path, encoding: str) -> None:
    signal = 0.1 * np.random.default_rng(1).standard_normal((40_000, 1)).astype(np.float32)
    data = encode(signal, 8000, container="RAW", encoding=encoding)
    assert outcome(put(tmp_path, data, "a.ulaw"))[0] is Code.UNSUPPORTED


@pytest.mark.parametrize(
    ("container", "encoding"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "MS_ADPCM"),
        ("WAV", "GSM610"),
        ("RF64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "ULAW"),
        ("NIST", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
    ],
)
def test_cut_file_is_truncated(tmp_path: Path, container: str, encoding: str) -> None:
    noise = 0.1 * np.random.default_rng(2).standard_normal((5 * RATE, 1)).astype(np.float32)
    data = encode(noise, container=container, encoding=encoding)
    decoded = audio.read(put(tmp_path, data[: len(data) // 2]))
    assert decoded.code is Code.TRUNCATED
    assert 1.5 < decoded.decoded_s < 3.2
    if container == "OGG":
        assert decoded.message == f"decoded {decoded.decoded_s:.2f} s; the file ends inside an Ogg page"
    else:
        assert decoded.info.duration_s == pytest.approx(5, abs=0.1)
        expected = f"decoded {decoded.decoded_s:.2f} s of the {decoded.info.duration_s:.2f} s that the header claims"
        assert decoded.message.startswith(expected)


def test_damage_in_the_middle_of_an_ogg_is_noticed(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(3).standard_normal((20 * RATE, 1)).astype(np.float32)
    data = bytearray(encode(noise, container="OGG", encoding="VORBIS"))
    data[len(data) // 2] ^= 0xFF
    code, message = outcome(put(tmp_path, bytes(data)))
    assert code is Code.TRUNCATED
    assert message.startswith("decoded 20.00 s; 0.9")
    assert message.endswith(" s of sound are lost in 1 place(s), the first at 9.22 s, left silent")


def wav(*, channels: int = 1, rate: int = 8000, data: bytes = bytes(16_000), claimed: int | None = None) -> bytes:
    """Return a 16-bit WAV file with a header that may lie."""
    fields = [(16, 4), (1, 2), (channels, 2), (rate, 4), (2 * rate, 4), (2 * max(1, channels) % 2**16, 2), (16, 2)]
    length = len(data) if claimed is None else claimed
    head = b"WAVEfmt " + b"".join(value.to_bytes(size, "little") for value, size in fields)
    body = head + b"data" + length.to_bytes(4, "little") + data
    return b"RIFF" + min(len(body), 36 + length).to_bytes(4, "little") + body


@pytest.mark.parametrize("claimed", [0, 0x7FFF_EFDC + 0x1000, 0xFFFF_FFFF, 0xFFFF_FFFF - 36])
def test_stream_without_length(tmp_path: Path, claimed: int) -> None:
    path = put(tmp_path, wav(data=bytes([1, 0]) * 8000, claimed=claimed))
    decoded = audio.read(path)
    assert decoded.code is Code.OK
    assert decoded.info.frames is audio.probe(path).duration_s is None
    assert decoded.signal.shape == (1, 8000)
    assert decoded.message == "decoded 1.00 s; the header does not say how much there is"


def test_wav_without_samples_is_empty(tmp_path: Path) -> None:
    assert outcome(put(tmp_path, wav(data=b"")))[0] is Code.EMPTY
    code, message = outcome(put(tmp_path, wav(data=b"", claimed=32_000)))
    assert code is Code.EMPTY
    assert "no samples" in message


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ({"channels": 0}, Code.CORRUPT),
        ({"rate": 0}, Code.CORRUPT),
        ({"channels": 33}, Code.UNSUPPORTED),
        ({"channels": 65_535}, Code.UNSUPPORTED),
        ({"rate": 500}, Code.UNSUPPORTED),
        ({"rate": 0x7FFF_FFFF}, Code.UNSUPPORTED),
        ({"claimed": 0x7000_0000}, Code.TRUNCATED),
    ],
)
def test_absurd_claims(tmp_path: Path, lie: dict[str, int], code: Code) -> None:
    assert outcome(put(tmp_path, wav(**lie)))[0] is code


def float_wav(wild: float, count: int) -> bytes:
    signal = tone()
    signal[100 : 100 + count] = wild
    return encode(signal, container="WAV", encoding="FLOAT")


@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf, 1e30])
def test_wild_samples(tmp_path: Path, wild: float) -> None:
    few = audio.read(put(tmp_path, float_wav(wild, 3)))
    assert few.code is Code.OK
    assert few.message.startswith("3 samples, not finite")
    assert not few.signal[0, 100:103].any()
    assert outcome(put(tmp_path, float_wav(wild, 1000)))[0] is Code.CORRUPT


def test_integers_stored_as_floats_are_corrupt(tmp_path: Path) -> None:
    data = encode(32_767 * tone(), container="WAV", encoding="FLOAT")
    assert outcome(put(tmp_path, data))[0] is Code.CORRUPT


def test_sound_beyond_full_scale_is_clipped_and_noted(tmp_path: Path) -> None:
    decoded = audio.read(put(tmp_path, encode(tone(level=2.0), container="WAV", encoding="FLOAT")))
    assert decoded.code is Code.OK
    assert decoded.message.endswith("samples beyond full scale clipped (peak 2.00)")
    assert np.abs(decoded.signal).max() == 1


@pytest.mark.parametrize(
    ("container", "encoding"), [("WAV", "PCM_16"), ("WAV", "ULAW"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")]
)
def test_digital_silence_is_noted(tmp_path: Path, container: str, encoding: str) -> None:
    signal = np.zeros((100_000, 2), np.float32)
    path = put(tmp_path, encode(signal, container=container, encoding=encoding))
    assert outcome(path) == (Code.OK, "all samples are zero")
    signal[-1, 1] = 0.1
    path = put(tmp_path, encode(signal, container=container, encoding=encoding))
    assert outcome(path) == (Code.OK, "")


@pytest.mark.parametrize("encoding", ["PCM_16", "PCM_U8", "FLOAT", "ULAW", "ALAW"])
def test_clipping_is_noted_where_there_is_much(tmp_path: Path, encoding: str) -> None:
    signal = 0.3 * tone(10.0, channels=2)
    signal[1000:9000, 0] = 1
    signal[90_000:92_000, 1] = -1
    path = put(tmp_path, encode(signal, container="WAV", encoding=encoding))
    assert outcome(path) == (Code.OK, "3.1% of the samples at full scale")
    signal[1250:9000, 0] = signal[90_030:92_000, 1] = 0
    path = put(tmp_path, encode(signal, container="WAV", encoding=encoding))
    assert outcome(path) == (Code.OK, "")


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="no /proc: no regular file without an end")
def test_a_file_that_cannot_even_be_looked_at_is_unreadable() -> None:
    with pytest.raises(AudioError) as caught:
        audio.probe("/proc/self/pagemap")
    assert caught.value.code is Code.UNREADABLE


def test_long_messages_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, b"x")

    def refuse(*args: object, **keywords: object) -> None:
        raise OSError("line one\nline two " + 300 * "x")

    monkeypatch.setattr(Path, "open", refuse)
    code, message = outcome(path)
    assert code is Code.UNREADABLE
    assert message.startswith("the file cannot be opened: line one line two xxx")
    assert len(message) < 200


def test_damaged_bytes_end_in_a_verdict(tmp_path_factory: pytest.TempPathFactory) -> None:
    files = [
        encode(tone(0.5), container=container, encoding=encoding)
        for container, encoding in (("WAV", "ULAW"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"))
    ]
    folder = tmp_path_factory.mktemp("damaged")

    @given(
        st.sampled_from(files),
        st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=5),
        st.floats(0, 1),
    )
    def check(data: bytes, flips: list[tuple[int, int]], kept: float) -> None:
        damaged = bytearray(data)
        for place, value in flips:
            damaged[place] = value
        code, message = outcome(put(folder, bytes(damaged[: round(kept * len(damaged))])))
        assert code in (Code.OK, Code.TRUNCATED, Code.EMPTY, Code.CORRUPT, Code.UNSUPPORTED)
        assert "\n" not in message

    check()


@given(
    st.integers(1, 3000),
    st.sampled_from([1234, 8000, 11_025, 16_000, 24_414, 44_100, 48_000, 96_000]),
    st.sampled_from([8000, 16_000, 44_100]),
    st.integers(1, 3),
)
def test_resampled_length(frames: int, source_rate: int, target_rate: int, channels: int) -> None:
    with fsspec.open("memory://test-audio/length.wav", "wb") as file:
        file.write(encode(tone(frames / source_rate, source_rate, channels=channels), source_rate, container="WAV"))
    decoded = audio.read("memory://test-audio/length.wav", sampling_rate=target_rate)
    length = audio.resampled_length(frames, source_rate, target_rate)
    assert decoded.signal.shape == (channels, length)
    assert 0 <= length * source_rate - frames * target_rate < source_rate
    assert decoded.sampling_rate == target_rate
    assert decoded.info.sampling_rate == source_rate


@pytest.mark.parametrize(("source_rate", "target_rate"), [(48_000, 8000), (44_100, 16_000), (8000, 16_000)])
def test_resampling_keeps_pitch_level_and_channels(tmp_path: Path, source_rate: int, target_rate: int) -> None:
    path = put(tmp_path, encode(tone(2.0, source_rate, channels=2), source_rate, container="WAV", encoding="PCM_24"))
    decoded = audio.read(path, sampling_rate=target_rate)
    middle = slice(target_rate // 4, -target_rate // 4)
    np.testing.assert_allclose(decoded.signal[:, middle], tone(2.0, target_rate, channels=2).T[:, middle], atol=2e-4)


def test_threads_read_the_same(tmp_path: Path) -> None:
    path = put(tmp_path, encode(tone(5.0, channels=2), container="OGG", encoding="OPUS"))
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(lambda _: audio.read(path, sampling_rate=8000).signal, range(8)))
    for signal in decoded[1:]:
        np.testing.assert_array_equal(signal, decoded[0])
