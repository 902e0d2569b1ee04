"""What a codec, a type, a shard and a chunk cost the feature store: `.venv/bin/python tests/benchmarks/store.py`.

Everything is measured in one run on the features of synthetic voices: bytes of a row, megabytes (of float32 features) a
second when whole shards are written and read and when single chunks are read here and there, and how many of some bytes
that rot on disk are noticed. The files are in the system's cache: this is the cost of the codec and of Zarr.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from emolib.config import TELEPHONE
from emolib.features.windows import windowed_features
from emolib.sound.synthetic import EMOTIONS
from emolib.sound.voices import generator, utterance, voice

ROWS, ROT = 1024, 20
CODECS: dict[str, Any] = {
    "none": None,
    "none, crc32c": [Crc32cCodec()],
    "zstd 0, checksum": ZstdCodec(level=0, checksum=True),
    "zstd 3, checksum": ZstdCodec(level=3, checksum=True),
    "blosc lz4 shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    "blosc lz4 shuffle, crc32c": [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()],
    "blosc lz4 bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
    "blosc zstd shuffle": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
}
OURS = "zstd 0, checksum"
SIZES = [(256, 32), (256, 64), (256, 128), (256, 256), (64, 32), (1024, 32), (1024, 256)]


def features() -> NDArray[np.float32]:
    """Return windows of synthetic voices in a quiet room, as the profile telephone sees them."""
    rate, found = TELEPHONE.features.sampling_rate, []
    for number in range(ROWS // 4):
        rng = generator("store", number)
        spoken = utterance(voice(number % 16), EMOTIONS[number % len(EMOTIONS)], seed=number, sampling_rate=rate)
        signal = np.pad(spoken, [round(pause_s * rate) for pause_s in rng.uniform(0.2, 1.2, size=2)])
        signal = signal[: 4 * rate] + np.float32(3e-4) * rng.standard_normal(min(signal.size, 4 * rate), np.float32)
        found.append(windowed_features(signal, features=TELEPHONE.features, windows=TELEPHONE.windows).features[0])
    once = np.stack(found)
    # Voices take time: three quarters are the same ones with other noise on their frames, not on the padding.
    sound = once.std(axis=2, keepdims=True) > 0
    sound &= np.abs(once - once[:, -1:]).max(axis=2, keepdims=True) > 0
    noise = np.random.default_rng(0).standard_normal((3, *once.shape), np.float32)
    return np.concatenate([once, *(once + sound * part for part in noise)])


def measure() -> dict[str, Any]:
    """Measure every choice, print the table, and return its rows and the error of float16."""
    values = features()
    half = np.abs(values.astype(np.float16).astype(np.float32) - values)
    choices = [(codec, dtype, 256, 32) for dtype in ("float32", "float16") for codec in CODECS]
    choices += [(OURS, "float32", shard, chunk) for shard, chunk in SIZES if (shard, chunk) != (256, 32)]
    print(f"{'codec':26}{'type':9}{'shard':>6}{'chunk':>6}{'B/row':>8}{'write':>8}{'read':>8}{'chunks':>8}{'rot':>10}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, choice in enumerate(choices):
            row = _measured(Path(folder) / str(number), values, *choice)
            rows.append(row)
            print(
                f"{row['codec']:26}{row['dtype']:9}{row['shard']:6}{row['chunk']:6}{row['bytes_per_row']:8.0f}"
                f"{row['write_mb_s']:8.0f}{row['read_mb_s']:8.0f}{row['chunks_mb_s']:8.0f}{row['rot_found']:>7}/{ROT}"
            )
    print(f"float16 errs by up to {half.max():.3f} (coefficient 0) and {half[..., 1:].max():.3f} (the others)")
    return {"rows": rows, "float16_max_error": float(half.max())}


def _measured(
    path: Path, values: NDArray[np.float32], codec: str, dtype: str, shard: int, chunk: int
) -> dict[str, Any]:
    array = zarr.create_array(
        zarr.storage.LocalStore(path),
        shape=values.shape,
        shards=(shard, *values.shape[1:]),
        chunks=(chunk, *values.shape[1:]),
        dtype=dtype,
        fill_value=0.0,
        compressors=CODECS[codec],
    )
    stored, firsts = values.astype(dtype), range(0, len(values), shard)
    chunks = np.random.default_rng(0).permutation(np.arange(0, len(values), chunk))[: max(1, 256 // chunk)]

    def write() -> None:
        for first in firsts:
            array[first : first + shard] = stored[first : first + shard]

    def read() -> None:
        for first in firsts:
            array[first : first + shard]

    def read_chunks() -> None:
        for first in chunks.tolist():
            array[first : first + chunk]

    megabytes = values.nbytes / 1e6
    row = {
        "codec": codec,
        "dtype": dtype,
        "shard": shard,
        "chunk": chunk,
        "write_mb_s": megabytes / _shortest(write, 3),
        "read_mb_s": megabytes / _shortest(read, 7),
        "chunks_mb_s": megabytes * chunk * len(chunks) / len(values) / _shortest(read_chunks, 7),
    }
    files = sorted(file for file in (path / "c").rglob("*") if file.is_file())
    row["bytes_per_row"] = sum(file.stat().st_size for file in files) / len(values)
    row["rot_found"] = _rot_found(array, stored, files[0], shard)
    return row


def _rot_found(array: zarr.Array, stored: NDArray[Any], file: Path, shard: int) -> int:
    """Return at how many of some flipped bytes of the first shard reading fails, or still gives the right numbers."""
    data, found = file.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(data), ROT).tolist():
        rotten = bytearray(data)
        rotten[place] ^= 0x10
        file.write_bytes(rotten)
        try:
            found += np.array_equal(array[:shard], stored[:shard])
        except (OSError, RuntimeError, ValueError):
            found += 1
    file.write_bytes(data)
    return found


def _shortest(work: Callable[[], None], times: int) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


if __name__ == "__main__":
    measure()
