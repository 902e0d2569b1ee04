"""What only FFmpeg decodes, each format made by the encoder that is at hand."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from emolib.errors import AudioError, Code
from emolib.sound import audio
from tests.sound.containers import Track, mux, noise, tone


def encode(container: str, codec: str, rate: int, channels: int, bit_rate: int | None) -> bytes:
    """Return two seconds of a tone of 300 Hz on each channel, at half and a quarter of full scale."""
    times = np.arange(2 * rate) / rate
    signal = (np.array([0.5, 0.25])[:channels, None] * np.sin(2 * np.pi * 300 * times)).astype(np.float32)
    layout = "mono" if channels == 1 else "stereo"
    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        if bit_rate:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(signal, format="fltp", layout=layout)
        frame.sample_rate = rate
        stream.codec_context.open()
        length = stream.codec_context.frame_size or None
        to_encoder = av.AudioResampler(stream.format.name, layout, rate, frame_size=length)
        for part in [*to_encoder.resample(frame), *to_encoder.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return target.getvalue()


# What else the wheels of PyAV decode could not be tried for want of an encoder and of a file: AMR-WB and G.729 beyond
# the tests that they run, WMA Pro, WMA Lossless and WMA Voice, Speex in WAV.
@pytest.mark.parametrize(
    ("container", "codec", "rate", "channels", "bit_rate", "found"),
    [
        ("mp4", "aac", 16_000, 2, None, "mov/aac"),
        ("ipod", "aac", 8000, 1, None, "mov/aac"),
        ("ipod", "alac", 8000, 2, None, "mov/alac"),
        ("3gp", "amr_nb", 8000, 1, 12_200, "mov/amrnb"),
        ("webm", "libopus", 48_000, 2, None, "matroska/opus"),
        ("matroska", "pcm_s16le", 8000, 2, None, "matroska/pcm_s16le"),
        ("asf", "wmav2", 16_000, 2, 64_000, "asf/wmav2"),
        ("asf", "wmav1", 16_000, 1, 32_000, "asf/wmav1"),
        ("amr", "amr_nb", 8000, 1, 12_200, "amr/amrnb"),
        ("wav", "g722", 16_000, 1, None, "wav/g722"),
        ("wav", "g726", 8000, 1, 32_000, "wav/g726"),
        ("wav", "g726", 8000, 1, 16_000, "wav/g726"),
        ("wav", "g723_1", 8000, 1, 6300, "wav/g723_1"),
        ("mpegts", "aac", 16_000, 1, None, "mpegts/aac"),
    ],
)
def test_format(
    tmp_path: Path, container: str, codec: str, rate: int, channels: int, bit_rate: int | None, found: str
) -> None:
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"not tried: this FFmpeg has no encoder of {codec}")
    path = tmp_path / "call.wav"
    path.write_bytes(encode(container, codec, rate, channels, bit_rate))
    decoded = audio.read(path)
    assert decoded.code is Code.OK, decoded.message
    assert (decoded.info.codec, decoded.info.sampling_rate, decoded.info.channels) == (found, rate, channels)
    assert decoded.info == audio.probe(path)
    assert decoded.decoded_s == pytest.approx(2, abs=0.2)
    if decoded.info.duration_s is not None:
        assert decoded.info.duration_s == pytest.approx(decoded.decoded_s, abs=0.1)
    middle = decoded.signal[:, rate // 2 : 3 * rate // 2]
    assert (np.argmax(np.abs(np.fft.rfft(middle)), axis=1) == 300).all()
    levels = np.array([0.5, 0.25])[:channels] / np.sqrt(2)
    np.testing.assert_allclose(middle.std(axis=1), levels, rtol=0.25 if found.endswith(("amrnb", "g723_1")) else 0.05)


def test_amr_wb_runs(tmp_path: Path) -> None:
    """Whether the sound of a real file is right was not tried: there is no encoder and no file."""
    path = tmp_path / "call.awb"
    frames = np.random.default_rng(0).integers(0, 256, (100, 61), dtype=np.uint8)
    frames[:, 0] = 8 << 3 | 4  # 23.85 kbit/s, 20 ms each
    path.write_bytes(b"#!AMR-WB\n" + frames.tobytes())
    decoded = audio.read(path)
    assert (decoded.info.codec, decoded.info.sampling_rate, decoded.decoded_s) == ("amr/amrwb", 16_000, 2.0)
    assert decoded.code is Code.OK


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "aac"), ("asf", "wmav2"), ("wav", "g722"), ("webm", "libopus")]
)
def test_cut_file_is_not_ok(tmp_path: Path, container: str, codec: str) -> None:
    rate = 48_000 if codec == "libopus" else 16_000
    data = encode(container, codec, rate, 1, 64_000)
    path = tmp_path / "x"
    path.write_bytes(data[: len(data) // 2])
    if container == "mp4":  # its table of contents is at the end
        with pytest.raises(AudioError) as caught:
            audio.read(path)
        assert caught.value.code is Code.CORRUPT
        return
    decoded = audio.read(path)
    assert decoded.code is Code.TRUNCATED
    assert 0.5 < decoded.decoded_s < 1.5


def test_a_stream_that_comes_to_have_fifteen_channels(tmp_path: Path) -> None:
    """PyAV crashed at the ninth plane of such a frame."""
    data = bytearray(encode("adts", "aac", 16_000, 1, None))
    data[91:99] = b"\xff\xff\xff\x7f\0\0\0\0"
    path = tmp_path / "call.aac"
    path.write_bytes(data)
    assert audio.probe(path).channels == 15
    with pytest.raises(AudioError) as refused:
        audio.read(path)
    assert refused.value.code is Code.CORRUPT


def test_containers_whose_places_are_not_known_are_read_once(tmp_path: Path) -> None:
    """What was read must lie before what is read next: or a file would be read again and again."""
    stamped = mux("mpegts", Track("aac", 16_000, [(0.0, tone(3, 16_000))]), options={"mpegts_m2ts_mode": "1"})
    assert len(stamped) % 192 == 0
    packed = mux("wv", Track("wavpack", 16_000, [(0.0, noise(12, 16_000))]))
    for data, codes, seconds in (
        (stamped, {Code.OK}, 3.07),
        (packed[: len(packed) * 2 // 3], {Code.TRUNCATED}, 8),
        (packed + packed, {Code.OK, Code.TRUNCATED}, 12),
    ):
        path = tmp_path / "call"
        path.write_bytes(data)
        found = audio.read(path)
        assert found.code in codes, found.message
        assert found.decoded_s == pytest.approx(seconds, abs=0.1)


def with_pictures(container: str, sound_s: float, pictures_s: float) -> bytes:
    """A film: pictures ten times a second, and sound."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        film: Any = file.add_stream("flv" if container == "flv" else "mpeg4", rate=10)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        sound: Any = file.add_stream("aac", rate=16_000, layout="mono")
        packets: list[Any] = []
        for number in range(round(10 * pictures_s)):
            pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
            packets += film.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        packets += film.encode(None)
        signal = noise(sound_s, 16_000).T
        for start in range(0, signal.shape[1] - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal[:, start : start + 1024]), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
            packets += sound.encode(frame)
        packets += sound.encode(None)
        file.mux(sorted(packets, key=lambda packet: packet.pts * packet.time_base))
    return target.getvalue()


@pytest.mark.parametrize("container", ["matroska", "flv", "mp4", "asf"])
def test_pictures_that_last_longer_are_no_loss_and_damage_beside_them_is(tmp_path: Path, container: str) -> None:
    path = tmp_path / "film"
    data = with_pictures(container, 6, 9)
    path.write_bytes(data)
    whole = audio.read(path)
    assert (whole.code, whole.decoded_s) == (Code.OK, pytest.approx(6, abs=0.2)), whole.message
    place = len(data) // 2
    path.write_bytes(data[:place] + bytes(8000) + data[place + 8000 :])
    assert audio.read(path).code is Code.TRUNCATED


def test_voc_of_several_blocks_holds_nothing_but_sound(tmp_path: Path) -> None:
    """The headers of its blocks were played, and all behind them was late."""
    signal = noise(6, 16_000)
    path = tmp_path / "call.voc"
    path.write_bytes(mux("voc", Track("pcm_s16le", 16_000, [(0.0, signal)])))
    found = audio.read(path)
    assert found.code is Code.OK
    np.testing.assert_allclose(found.signal[0], np.clip(signal[:, 0], -1, 1), atol=1e-4)
