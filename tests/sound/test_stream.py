"""Decoding block by block: the same bits as `read`, whatever the decoder's pieces, in the memory of a few blocks."""

from __future__ import annotations

import io
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
import soundfile
import soxr
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.spec import AbstractBufferedFile
from hypothesis import HealthCheck, given, settings, strategies as st
from numpy.typing import NDArray

from emolib.errors import AudioError, Code
from emolib.sound import audio

BLOCK = 2**16


def noise(length: int, channels: int = 1, seed: int = 0) -> NDArray[np.int16]:
    """Return 16-bit noise as ``(sample, channel)``."""
    return np.random.default_rng(seed).integers(-9000, 9000, (length, channels), dtype=np.int16)


def encode(signal: NDArray[Any], rate: int, container: str, encoding: str | None = None) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, signal, rate, format=container, subtype=encoding)
    return target.getvalue()


def matroska(signal: NDArray[np.int16], rate: int, packet: int) -> bytes:
    """Return the samples in packets of one length, which FFmpeg will decode."""
    target = io.BytesIO()
    layout = "mono" if signal.shape[1] == 1 else "stereo"
    with av.open(target, "w", format="matroska") as file:
        stream = file.add_stream("pcm_s16le", rate=rate, layout=layout)
        for start in range(0, len(signal), packet):
            part = np.ascontiguousarray(signal[start : start + packet]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
            frame.sample_rate = rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return target.getvalue()


def ulaw_wav(minutes: float) -> bytes:
    """Return a stereo call of noise in µ-law."""
    size = round(minutes * 60 * 8000) * 2
    codes = np.random.default_rng(0).integers(0x90, 0xF0, size, dtype=np.uint8).tobytes()
    head = encode(np.zeros((0, 2)), 8000, "WAV", "ULAW")
    assert head.endswith(b"data" + bytes(4))
    return head[:-4] + size.to_bytes(4, "little") + codes


def blocks_of(source: str | Path, rate: int | None = None) -> list[NDArray[np.float32]]:
    with audio.stream(source, sampling_rate=rate) as sound:
        blocks = list(sound)
        assert sound.sampling_rate == (rate or sound.info.sampling_rate)
        assert sound.decoded_s == sum(block.shape[1] for block in blocks) / sound.sampling_rate
    return blocks


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.one_of(st.integers(1, 3000), st.integers(BLOCK - 2, BLOCK + 2), st.integers(2 * BLOCK - 9, 3 * BLOCK)),
    channels=st.integers(1, 2),
    rate=st.sampled_from([8000, 11_025, 16_000, 48_000]),
    target=st.sampled_from([None, 8000, 16_000]),
    packet=st.integers(500, 20_000),
)
def test_blocks_do_not_depend_on_the_pieces_of_the_decoder(
    tmp_path: Path, length: int, channels: int, rate: int, target: int | None, packet: int
) -> None:
    signal = noise(length, channels)
    path = tmp_path / "x"
    expected = signal.astype(np.float32) / 2**15
    if target not in (None, rate):
        resampler = soxr.ResampleStream(rate, target, channels, dtype="float32", quality=soxr.HQ)
        made = resampler.resample_chunk(expected, last=True)[: audio.resampled_length(length, rate, target)]
        expected = np.zeros((audio.resampled_length(length, rate, target), channels), np.float32)
        expected[: len(made)] = made.clip(-1, 1)
    for data in (
        encode(signal, rate, "WAV"),
        encode(signal, rate, "AIFF"),
        encode(signal, rate, "FLAC"),
        matroska(signal, rate, min(packet, length)),
    ):
        path.write_bytes(data)
        blocks = blocks_of(path, target)
        assert [block.shape[1] for block in blocks[:-1]] == [BLOCK] * (len(blocks) - 1)
        assert 0 < blocks[-1].shape[1] <= BLOCK
        for block in blocks:
            assert block.dtype == np.float32
            assert block.flags.c_contiguous
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), expected.T)
        np.testing.assert_array_equal(audio.read(path, sampling_rate=target).signal, expected.T)


@pytest.mark.parametrize("encoding", ["ULAW", "ALAW"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_companded_sound_is_what_libsndfile_makes_of_it(tmp_path: Path, encoding: str, channels: int) -> None:
    signal = np.random.default_rng(1).uniform(-1, 1, (BLOCK + 999, channels))
    for container in ("WAV", "RF64", "AU", "AIFF"):
        path = tmp_path / container
        path.write_bytes(encode(signal, 8000, container, encoding))
        expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
        np.testing.assert_array_equal(audio.read(path).signal, expected.T)


@pytest.mark.parametrize("kept", [0, 1, 2, 7777, BLOCK * 2 + 1])
def test_cut_call_ends_where_its_bytes_end(tmp_path: Path, kept: int) -> None:
    data = ulaw_wav(0.5)
    head = len(data) - 480_000
    path = tmp_path / "x"
    path.write_bytes(data[: head + kept])
    if kept < 2:
        with pytest.raises(AudioError) as caught:
            blocks_of(path)
        assert caught.value.code is Code.EMPTY
        return
    with audio.stream(path) as sound:
        assert sum(block.shape[1] for block in sound) == kept // 2
    assert sound.code is Code.TRUNCATED
    assert sound.message.endswith("of the 30.00 s that the header claims")


def test_verdict_stands_after_the_last_block(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(encode(noise(BLOCK + 1), 8000, "WAV"))
    with audio.stream(path) as sound:
        assert sound.info == audio.probe(path)
        assert next(iter(sound)).shape == (1, BLOCK)
        for name in ("code", "message", "decoded_s"):
            with pytest.raises(RuntimeError, match="expected that all its blocks were taken"):
                getattr(sound, name)
        assert next(iter(sound)).shape == (1, 1)
        assert list(sound) == []
    assert (sound.code, sound.message, sound.decoded_s) == (Code.OK, "", (BLOCK + 1) / 8000)
    with audio.stream(path) as sound:
        next(iter(sound))
    with pytest.raises(RuntimeError):
        _ = sound.code


def test_what_is_wrong_shows_at_the_latest_after_the_last_block(tmp_path: Path) -> None:
    path = tmp_path / "x"
    signal = np.zeros((BLOCK + 100, 1), np.float32)
    signal[BLOCK:] = np.nan
    path.write_bytes(encode(signal, 8000, "WAV", "FLOAT"))
    with audio.stream(path) as sound:
        blocks = iter(sound)
        assert not next(blocks).any()
        with pytest.raises(AudioError) as caught:
            list(blocks)
    assert caught.value.code is Code.CORRUPT
    with pytest.raises(AudioError) as caught, audio.stream(tmp_path / "absent"):
        pass
    assert caught.value.code is Code.MISSING


def test_failed_read_ends_the_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    with fsspec.open("memory://test-stream/flaky.wav", "wb") as file:
        file.write(ulaw_wav(1.0))
    read = MemoryFile.read

    def flaky(self: MemoryFile, size: int = -1) -> bytes:
        if self.tell() > 300_000:
            raise TimeoutError("no answer")
        return read(self, size)

    monkeypatch.setattr(MemoryFile, "read", flaky)
    with audio.stream("memory://test-stream/flaky.wav") as sound:
        blocks = iter(sound)
        assert next(blocks).shape == (2, BLOCK)
        with pytest.raises(AudioError, match="reading the file failed: TimeoutError: no answer") as caught:
            list(blocks)
    assert caught.value.code is Code.UNREADABLE


def test_error_of_the_caller_passes_through(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(ulaw_wav(0.1))
    with pytest.raises(ZeroDivisionError), audio.stream(path):
        raise ZeroDivisionError


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_memory_does_not_grow_with_the_recording(tmp_path: Path, rate: int) -> None:
    def peak(minutes: float) -> int:
        path = tmp_path / "x.wav"
        path.write_bytes(ulaw_wav(minutes))
        tracemalloc.start()
        try:
            with audio.stream(path, sampling_rate=rate) as sound:
                assert sum(block.shape[1] for block in sound) == minutes * 60 * rate
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short = peak(1)
    assert short < 8e6
    # Twenty minutes are 19 MB in the file and 77 MB decoded; other threads of the session allocate a little meanwhile.
    assert peak(20) - short < 3e6


Requests = list[tuple[int, int]]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Requests]:
    """What is fetched from the memory file system, which behaves like a store far away: by default 50 MB at once."""
    made: Requests = []

    class Remote(AbstractBufferedFile):
        def _fetch_range(self, start: int, end: int) -> bytes:
            made.append((start, end))
            return bytes(self.fs.store[self.path].getbuffer()[start:end])

    put = MemoryFileSystem._open

    def fetch(self: MemoryFileSystem, path: str, mode: str = "rb", block_size: int | None = None, **other: Any) -> Any:
        return put(self, path, mode, **other) if mode == "wb" else Remote(self, path, mode, block_size or 50 * 2**20)

    monkeypatch.setattr(MemoryFileSystem, "_open", fetch)
    yield made
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ulaw_wav(10),
        lambda: encode(noise(5_000_000), 8000, "WAV"),
        lambda: encode(noise(5_000_000), 8000, "FLAC"),
        lambda: matroska(noise(5_000_000), 8000, 50_000),
    ],
    ids=["ulaw", "pcm", "flac", "matroska"],
)
def test_remote_file_is_fetched_once_and_its_header_alone_for_a_probe(
    make: Callable[[], bytes], requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = make()
    with fsspec.open("memory://test-stream/far", "wb") as file:
        file.write(data)
    info = audio.probe("memory://test-stream/far")
    assert sum(end - start for start, end in requests) < 2.2e6
    requests.clear()
    tracemalloc.start()
    try:
        with audio.stream("memory://test-stream/far") as sound:
            assert sound.info == info
            frames = sum(block.shape[1] for block in sound)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert frames == info.frames
    assert len(data) <= sum(end - start for start, end in requests) < len(data) + 2.2e6
    assert max(end - start for start, end in requests) < 1.5e6
    assert list(tmp_path.iterdir()) == []
