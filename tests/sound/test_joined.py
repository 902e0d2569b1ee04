"""Files whose header claims less than is there: chains, files joined by their bytes, sizes that wrapped."""

from __future__ import annotations

import struct
from pathlib import Path

import fsspec
import numpy as np
import pytest

from emolib.errors import AudioError, Code
from emolib.sound import audio
from tests.sound.containers import Track, encode, mux, noise, tone

RATE = 8000


def read(folder: Path, data: bytes) -> audio.Audio:
    path = folder / "x"
    path.write_bytes(data)
    return audio.read(path)


def aac(seconds: float, container: str, rate: int = 16_000) -> bytes:
    return mux(container, Track("aac", rate, [(0.0, tone(seconds, rate))]))


@pytest.mark.parametrize(
    ("first", "second"),
    [  # of Ogg, with other rates and codecs; of FLAC, MP3, AIFF, AU, CAF; of WAV; of what only FFmpeg knows
        (encode(noise(3, RATE), RATE, "OGG", "VORBIS"), encode(tone(2, RATE), RATE, "OGG", "VORBIS")),
        (encode(noise(3, RATE), RATE, "OGG", "OPUS"), encode(tone(2, RATE), RATE, "OGG", "OPUS")),
        (encode(noise(3, RATE), RATE, "OGG", "VORBIS"), encode(tone(2, 16_000), 16_000, "OGG", "VORBIS")),
        (encode(noise(3, RATE), RATE, "OGG", "OPUS"), encode(tone(2, RATE), RATE, "OGG", "VORBIS")),
        (encode(noise(3, RATE), RATE, "FLAC"), encode(tone(2, RATE), RATE, "FLAC")),
        (encode(noise(3, RATE), RATE, "FLAC"), encode(tone(2, 16_000), 16_000, "FLAC", "PCM_24")),
        (encode(noise(3, RATE), RATE, "MP3"), encode(tone(2, RATE), RATE, "MP3")),
        (encode(noise(3, RATE), RATE, "AIFF"), encode(tone(2, RATE), RATE, "AIFF")),
        (encode(noise(3, RATE), RATE, "AU"), encode(tone(2, RATE), RATE, "AU", "ULAW")),
        (encode(noise(3, RATE), RATE, "CAF"), encode(tone(2, RATE), RATE, "CAF")),
        (encode(noise(3, RATE), RATE, "WAV"), encode(tone(2, RATE), RATE, "WAV")),
        (encode(noise(3, RATE), RATE, "RF64"), encode(tone(2, RATE), RATE, "RF64")),
        (encode(noise(3, RATE), RATE, "WAV", "ULAW"), encode(tone(2, RATE), RATE, "WAV", "ULAW")),
        (encode(noise(3, RATE), RATE, "WAV", "GSM610"), encode(tone(2, RATE), RATE, "WAV", "GSM610")),
        (aac(3, "adts"), aac(2, "adts")),
        (aac(3, "mp4"), aac(2, "mp4")),
        (aac(3, "mpegts"), aac(2, "mpegts")),
        (aac(3, "flv"), aac(2, "flv")),
        (
            mux("webm", Track("libopus", 48_000, [(0.0, tone(3, 48_000))])),
            mux("webm", Track("libopus", 48_000, [(0.0, tone(2, 48_000))])),
        ),
    ],
    ids=range(19),
)
def test_files_joined_by_their_bytes_are_read_whole(tmp_path: Path, first: bytes, second: bytes) -> None:
    found = read(tmp_path, first + second)
    assert found.code is Code.OK, found.message
    lossy = 0.1 if first[:4] in (b"RIFF", b"fLaC", b"OggS", b"FORM", b".snd", b"caff") else 0.3
    assert found.decoded_s == pytest.approx(5, abs=lossy)
    alone = read(tmp_path, first).signal
    length = min(alone.shape[1], round(2.9 * found.sampling_rate))
    np.testing.assert_array_equal(found.signal[:, :length], alone[:, :length])
    rate = found.sampling_rate
    end = found.signal[0, -round(1.5 * rate) : -round(0.5 * rate)]
    assert np.argmax(np.abs(np.fft.rfft(end))) == 440
    assert end.std() == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")
ID3V2 = b"ID3\3\0\0\0\0\x4e\x10" + b"TIT2\0\0\0\2\0\0\0a".ljust(10_000, b"\0")
APE_ITEM = struct.pack("<II", 400, 0) + b"Title\0" + 400 * b"a"
APE = b"".join(
    b"APETAGEX" + struct.pack("<IIIIQ", 2000, len(APE_ITEM) + 32, 1, flags, 0) + between
    for flags, between in ((0xA000_0000, APE_ITEM), (0x8000_0000, b""))
)
PICTURE = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
ID3V2_PICTURE = b"ID3\4\0\0\0\6\x0d\x20" + PICTURE
LYRICS = b"LYRICSBEGININD0000200" + b"00" + b"000029LYRICS200"


@pytest.mark.parametrize("info", ["0", "1"], ids=["bare", "info"])
@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize(
    "between",
    [b"", ID3V1, ID3V2, ID3V1 + ID3V2, APE, APE + ID3V1, LYRICS + ID3V1, ID3V2_PICTURE],
    ids=["nothing", "id3v1", "id3v2", "id3v1-id3v2", "ape", "ape-id3v1", "lyrics", "picture"],
)
def test_mp3s_joined_with_their_tags(tmp_path: Path, between: bytes, rate: int, info: str) -> None:
    """No frame is lost between them, and a tag is no damage."""
    lossy = 0.6 if info == "1" else 0.01  # of what follows, the encoder's delay and padding are not cut off
    options = {"write_xing": info, "id3v2_version": "0"}
    one = mux("mp3", Track("libmp3lame", rate, [(0.0, tone(3, rate))]), options=options)
    alone = read(tmp_path, one)
    assert alone.code is Code.OK
    found = read(tmp_path, one + between + one + between + one)
    assert found.code is Code.OK, found.message
    assert found.decoded_s == pytest.approx(3 * alone.decoded_s + lossy / 2, abs=lossy / 2 + 0.01)
    assert "go back" not in found.message
    # A frame put in its place: in the middle of each of the three, nothing but the tone.
    for start in (0.5, 1.5):
        part = found.signal[0, round(start * alone.decoded_s * rate) - rate // 2 :][:rate]
        assert np.argmax(np.abs(np.fft.rfft(part))) == 440


@pytest.mark.parametrize(
    ("container", "encoding"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")]
)
def test_five_links(tmp_path: Path, container: str, encoding: str) -> None:
    found = read(tmp_path, 5 * encode(noise(1.5, RATE), RATE, container, encoding))
    assert (found.code, found.decoded_s) == (Code.OK, pytest.approx(7.5, abs=0.1))
    assert found.message.endswith("5 streams, one behind the other")


@pytest.mark.parametrize(
    ("container", "encoding"), [("OGG", "VORBIS"), ("FLAC", "PCM_16"), ("WAV", "PCM_16"), ("MP3", "MPEG_LAYER_III")]
)
def test_other_channels_behind_are_said(tmp_path: Path, container: str, encoding: str) -> None:
    mono, stereo = (
        encode(noise(4 - channels, RATE, channels=channels), RATE, container, encoding) for channels in (1, 2)
    )
    found = read(tmp_path, mono + stereo)
    assert (found.code, found.info.channels) == (Code.TRUNCATED, 1)
    assert found.decoded_s == pytest.approx(3, abs=0.1)
    assert any(said in found.message for said in ("not read", "left out, expected 1 channel(s)"))


def chunk(name: bytes, body: bytes, length: int | None = None, *, padded: bool = True) -> bytes:
    return name + struct.pack("<I", len(body) if length is None else length) + body + bytes(len(body) % 2 * padded)


def riff(*chunks: bytes, name: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(body) if size is None else size) + body


FORM = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
PCM = (9000 * np.sin(np.arange(10 * RATE) / 7)).astype("<i2").tobytes()


def ds64(riff_size: int = 0, data_size: int = 0) -> bytes:
    return chunk(b"ds64", struct.pack("<QQQI", riff_size, data_size, 0, 0))


@pytest.mark.parametrize(
    "data",
    [
        riff(FORM, chunk(b"data", PCM[:32_000]), chunk(b"data", PCM[32_000:])),
        riff(FORM, chunk(b"data", PCM[:32_000]), chunk(b"LIST", b"INFO"), chunk(b"data", PCM[32_000:])),
        riff(FORM, *[chunk(b"data", PCM[start : start + 16_000]) for start in range(0, len(PCM), 16_000)]),
        riff(FORM, chunk(b"junk", b"odd"), chunk(b"data", PCM)),
        riff(FORM, chunk(b"junk", b"odd", padded=False), chunk(b"data", PCM)),
        riff(FORM, chunk(b"data", PCM), chunk(b"LIST", b"INFOodd", padded=False)),
        riff(ds64(), FORM, chunk(b"data", PCM, 0xFFFF_FFFF), name=b"RF64", size=0xFFFF_FFFF),
        riff(ds64(), FORM, chunk(b"data", PCM, 0), name=b"RF64", size=0),
        riff(ds64(0, len(PCM)), FORM, chunk(b"data", PCM, 0xFFFF_FFFF), name=b"RF64", size=0xFFFF_FFFF),
        riff(ds64(0, len(PCM)), FORM, chunk(b"data", PCM, 0xFFFF_FFFF), name=b"BW64", size=0xFFFF_FFFF),
        riff(FORM, chunk(b"data", PCM, 0), size=0),
        riff(FORM, chunk(b"data", PCM, 0)),
        riff(FORM, chunk(b"data", PCM, 0xFFFF_FFFF), size=0xFFFF_FFFF),
        riff(FORM, chunk(b"data", PCM), size=36),
        riff(FORM, chunk(b"data", PCM)) + bytes(10_000),
    ],
    ids=[
        "two",
        "list-between",
        "ten",
        "odd-chunk",
        "odd-unpadded",
        "odd-at-the-end",
        "ds64-zero",
        "rf64-zeros",
        "rf64",
        "bw64",
        "zeros",
        "zero-in-a-right-riff",
        "open",
        "short-riff",
        "padding",
    ],
)
def test_wav_is_read_as_far_as_it_goes(tmp_path: Path, data: bytes) -> None:
    found = read(tmp_path, data)
    assert found.code is Code.OK, found.message
    np.testing.assert_array_equal(found.signal[0], np.frombuffer(PCM, "<i2") / np.float32(2**15))


def test_big_endian_wav_in_two_chunks(tmp_path: Path) -> None:
    form = b"fmt " + struct.pack(">IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    halves = [np.frombuffer(PCM, "<i2")[part].astype(">i2").tobytes() for part in (slice(30_000), slice(30_000, None))]
    body = b"WAVE" + form + b"".join(b"data" + struct.pack(">I", len(half)) + half for half in halves)
    found = read(tmp_path, b"RIFX" + struct.pack(">I", len(body)) + body)
    assert found.code is Code.OK
    np.testing.assert_array_equal(found.signal[0], np.frombuffer(PCM, "<i2") / np.float32(2**15))


def test_what_lies_behind_the_sound_is_said(tmp_path: Path) -> None:
    sound = riff(FORM, chunk(b"data", PCM))
    for much, code in ((1000, Code.OK), (50_000, Code.TRUNCATED)):
        found = read(tmp_path, sound + b"\xa5" * much)
        assert (found.code, found.decoded_s) == (code, 10.0)
        assert f"{much} bytes that no header tells of lie behind the sound, not read" in found.message
    other = encode(noise(2, 16_000), 16_000, "WAV")
    found = read(tmp_path, sound + other)
    assert found.code is Code.TRUNCATED
    assert f"{len(other)} bytes of WAV in another format lie behind the sound, not read" in found.message


def test_a_size_that_wrapped(tmp_path: Path) -> None:
    """A file of 4 GiB and a second, nearly all of it a hole on the disk."""
    length = 2**32 + 2 * RATE
    path = tmp_path / "x"
    head = riff(FORM, b"data" + struct.pack("<I", length % 2**32), size=(length + 36) % 2**32)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + length)
        file.seek(len(head) + 2 * RATE)
        file.write(b"\x01\x02\x03\xff" * 100)  # sound, where the size says that there is none any more
    assert audio.probe(path).frames == length // 2


@pytest.mark.parametrize("cut", [20, 8000])
@pytest.mark.parametrize(
    "data",
    [
        *[encode(noise(4, 16_000), 16_000, container) for container in ("FLAC", "MP3", "AIFF", "AU", "CAF", "WAV")],
        encode(noise(4, 16_000), 16_000, "OGG", "OPUS"),
        aac(4, "mp4"),
        aac(4, "flv"),
        mux("webm", Track("libopus", 48_000, [(0.0, tone(4, 48_000))])),
    ],
    ids=["flac", "mp3", "aiff", "au", "caf", "wav", "ogg", "mp4", "flv", "webm"],
)
def test_a_file_that_was_cut_with_a_whole_one_behind(tmp_path: Path, data: bytes, cut: int) -> None:
    """It may be refused or lose what lies behind; what is lost is said, and what is said is no advice of other matters.

    WebM loses no packet to 20 bytes: there they hold its index.
    """
    try:
        found = read(tmp_path, data[:-cut] + data)
    except AudioError as error:
        assert error.code is Code.CORRUPT  # noqa: PT017
        return
    assert found.code is Code.TRUNCATED or found.decoded_s == pytest.approx(8, abs=0.05), found.message
    assert "headerless" not in found.message


def test_a_second_stream_that_is_damaged_is_said(tmp_path: Path) -> None:
    first, second = encode(noise(2, RATE), RATE, "FLAC"), bytearray(encode(noise(2, RATE), RATE, "FLAC"))
    second[8:42] = b"\xff" * 34
    try:
        found = read(tmp_path, first + bytes(second))
    except AudioError as error:
        pytest.fail(f"the first stream was lost: {error}")
    assert found.code is Code.TRUNCATED
    assert found.decoded_s == pytest.approx(2, abs=0.6)


def test_links_shorter_than_what_a_decoder_reads_ahead(tmp_path: Path) -> None:
    """Where a link ends shows while it is opened; its last page must be looked for there."""
    for container, encoding in (("OGG", "OPUS"), ("OGG", "VORBIS"), ("FLAC", "PCM_16")):
        found = read(tmp_path, 3 * encode(noise(4, 16_000), 16_000, container, encoding))
        assert (found.code, found.decoded_s) == (Code.OK, pytest.approx(12, abs=0.1)), found.message
    link = encode(noise(20, 16_000), 16_000, "OGG", "VORBIS")
    found = read(tmp_path, link[: len(link) * 2 // 3] + link)
    assert found.code is Code.TRUNCATED
    assert "the file ends inside an Ogg page" in found.message


@pytest.mark.parametrize("first", ["FLAC", "OGG", "mp4", "webm"])
@pytest.mark.parametrize("second", ["WAV", "FLAC", "OGG", "mp4"])
def test_files_of_other_kinds_behind(tmp_path: Path, first: str, second: str) -> None:
    made = {
        "WAV": encode(noise(2, 16_000), 16_000, "WAV"),
        "FLAC": encode(noise(2, 16_000), 16_000, "FLAC"),
        "OGG": encode(noise(2, 16_000), 16_000, "OGG", "OPUS"),
        "mp4": aac(2, "mp4"),
        "webm": mux("webm", Track("libopus", 48_000, [(0.0, tone(2, 48_000))])),
    }
    found = read(tmp_path, made[first] + made[second])
    assert (found.code, found.decoded_s) == (Code.OK, pytest.approx(4, abs=0.2)), found.message


def test_what_lies_behind_and_is_no_sound_is_said(tmp_path: Path) -> None:
    for data in (aac(2, "mp4"), encode(noise(2, RATE), RATE, "AIFF"), encode(noise(2, RATE), RATE, "CAF")):
        found = read(tmp_path, data + b"\xa5" * 60_000)
        assert found.code is Code.TRUNCATED
        assert "60000 bytes behind the sound not read" in found.message


@pytest.mark.parametrize("size", [0, 8, 0xFFFF_FFFF])
def test_aiff_whose_size_was_never_set(tmp_path: Path, size: int) -> None:
    data = encode(noise(2, RATE), RATE, "AIFF")
    found = read(tmp_path, data[:4] + struct.pack(">I", size) + data[8:])
    assert found.decoded_s == pytest.approx(2)


def test_caf_whose_size_was_set_for_the_last_time_at_half(tmp_path: Path) -> None:
    data = encode(noise(2, RATE), RATE, "CAF")
    place = data.index(b"data") + 4
    half = int.from_bytes(data[place : place + 8], "big") // 2
    found = read(tmp_path, data[:place] + half.to_bytes(8, "big") + data[place + 8 :])
    assert (found.code, found.decoded_s) == (Code.TRUNCATED, pytest.approx(1, abs=0.01))


def test_a_damaged_fragment_is_not_the_end(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}
    data = bytearray(mux("mp4", Track("aac", 16_000, [(0.0, tone(10, 16_000))]), options=options))
    assert read(tmp_path, bytes(data)).code is Code.OK
    place = data.index(b"moof", len(data) // 2) - 4
    data[place : place + 8] = bytes(8)
    found = read(tmp_path, bytes(data))
    assert found.code is Code.TRUNCATED
    assert "bytes behind a damaged fragment not read" in found.message


def test_tracks_of_a_store_that_hands_out_one_file_object(tmp_path: Path) -> None:
    tracks = [Track("aac", 16_000, [(0.0, tone(3, 16_000, frequency))]) for frequency in (300, 600)]
    data = mux("mp4", *tracks)
    with fsspec.open("memory://test-joined/tracks", "wb") as file:
        file.write(data)
    remote = audio.read("memory://test-joined/tracks")
    np.testing.assert_array_equal(remote.signal, read(tmp_path, data).signal)
    assert remote.code is Code.OK


def kinds(seconds: float, frequency: float) -> dict[str, bytes]:
    rate = 16_000
    sound = tone(seconds, rate, frequency)
    return {
        **{name: encode(sound, rate, name) for name in ("WAV", "FLAC", "MP3", "AIFF", "AU", "CAF", "W64", "NIST")},
        "ulaw": encode(sound, rate, "WAV", "ULAW"),
        **{name: encode(sound, rate, "OGG", name) for name in ("VORBIS", "OPUS")},
        **{name: mux(name, Track("aac", rate, [(0.0, sound)])) for name in ("adts", "mp4", "mpegts", "flv")},
        "webm": mux("webm", Track("libopus", 48_000, [(0.0, tone(seconds, 48_000, frequency))])),
        "avi": mux("avi", Track("pcm_s16le", rate, [(0.0, sound)])),
        "wma": mux("asf", Track("wmav2", rate, [(0.0, sound)])),
    }


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("FLAC", "OPUS", "CAF") else pytest.mark.slow) for name in kinds(1, 440)],
)
def test_no_kind_behind_any_other_is_lost_in_silence(tmp_path: Path, name: str) -> None:
    """It is read on, or it is said that it is not; and nothing is decoded as what it is not."""
    first = kinds(3, 440)[name]
    for behind, second in kinds(4, 700).items():
        found = read(tmp_path, first + second)
        if name in ("OPUS", "VORBIS") and behind in ("OPUS", "VORBIS", "WAV", "FLAC", "AIFF"):
            assert found.code is Code.OK, (behind, found.message)
        is_whole = found.code is Code.OK and found.decoded_s == pytest.approx(7, abs=0.4)
        assert is_whole or found.code is Code.TRUNCATED, (behind, found.decoded_s, found.message)
        assert found.decoded_s < 7.4, (behind, found.message)


@pytest.mark.parametrize("name", ["WAV", "AIFF", "AU", "FLAC", "mp4", "OPUS"])
@pytest.mark.parametrize("between", [bytes(600), bytes(1_200_000), ID3V1, ID3V2_PICTURE])
def test_padding_and_tags_between(tmp_path: Path, name: str, between: bytes) -> None:
    """And at the end, where they are no sound that is not read."""
    data = kinds(3, 440)[name]
    found = read(tmp_path, data + between + data + between)
    assert (found.code, found.decoded_s) == (Code.OK, pytest.approx(6, abs=0.2)), found.message


def test_digital_silence_is_no_padding_where_sound_follows(tmp_path: Path) -> None:
    """The size was set for the last time at 4 s; the mute is longer than what is looked at in one go."""
    body = bytes(70 * 2 * RATE) + PCM
    for much in (bytes(100 * 2 * RATE), b""):
        data = riff(FORM, b"data" + struct.pack("<I", 4 * 2 * RATE) + PCM[: 4 * 2 * RATE] + much + body)
        found = read(tmp_path, data)
        assert found.code is Code.TRUNCATED, found.message


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (RATE, 2)])
def test_a_longer_second_part_of_another_kind_keeps_the_first(tmp_path: Path, rate: int, channels: int) -> None:
    for container in ("mp3", "adts"):
        codec = "libmp3lame" if container == "mp3" else "aac"
        first = mux(container, Track(codec, RATE, [(0.0, tone(3, RATE))]))
        second = mux(container, Track(codec, rate, [(0.0, tone(10, rate, channels=channels))]))
        found = read(tmp_path, first + second)
        assert (found.code, found.decoded_s) == (Code.TRUNCATED, pytest.approx(3, abs=0.3)), found.message
        assert "left out" in found.message


def test_a_second_format_in_one_wav_is_said(tmp_path: Path) -> None:
    other = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 2 * RATE, 4 * RATE, 2, 16))
    found = read(tmp_path, riff(FORM, chunk(b"data", PCM), other, chunk(b"data", PCM)))
    assert (found.code, found.decoded_s) == (Code.TRUNCATED, 10.0)


@pytest.mark.parametrize("name", ["FLAC", "MP3", "adts"])
def test_a_tag_of_any_size_in_front(tmp_path: Path, name: str) -> None:
    size = 1_500_000
    tag = b"ID3\4\0\0" + bytes([size >> shift & 0x7F for shift in (21, 14, 7, 0)]) + 15 * PICTURE
    found = read(tmp_path, tag + kinds(3, 440)[name])
    assert (found.code, found.decoded_s) == (Code.OK, pytest.approx(3, abs=0.2)), found.message
