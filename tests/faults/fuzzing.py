"""A process that decodes damaged files one after the other, and says of each how it ended. See `test_fuzz`.

python -m tests.faults.fuzzing SEED FIRST LAST
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from emolib.errors import AudioError
from emolib.sound import audio
from tests.faults.mutations import mutated

_RATE = 8000
_MOST = 4 * 2**30  # bytes of address space: the machine has others to care for


def outcome(place: Path) -> str:
    """Decode a file as scoring does; return its code. What is neither a code nor sound is raised."""
    try:
        with audio.stream(place, sampling_rate=_RATE) as sound:
            frames = 0
            for block in sound:
                assert block.dtype == np.float32, block.dtype
                assert block.shape[0] == sound.info.channels, block.shape
                assert not block.size or np.abs(block).max() <= 1, "beyond full scale"  # NaN is not, either
                frames += block.shape[1]
        assert abs(frames / _RATE - sound.decoded_s) < 1e-6, f"{frames} samples in {sound.decoded_s} s"
        code, message = sound.code, sound.message
    except AudioError as error:
        code, message = error.code, error.message
    assert "\n" not in message
    assert len(message) <= 300, message
    return f"{code}"


def peak_mb() -> float:
    """Return the most memory that the process had since this was asked last."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main(seed: int, first: int, last: int) -> None:
    """Decode files by their numbers; a line of JSON before each, and one after it."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST, _MOST))
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # decoders written in C say things on both
    with results, tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "call.wav"
        for number in range(first, last):
            name, data = mutated(seed, number)
            place.write_bytes(data)
            print(json.dumps({"begins": number, "format": name}), file=results, flush=True)
            peak_mb()
            began = time.process_time()
            try:
                said = {"code": outcome(place)}
            except Exception as error:
                said = {"raised": f"{type(error).__name__}: {error}"}
            seconds = round(time.process_time() - began, 3)
            print(
                json.dumps({"ended": number, **said, "seconds": seconds, "mb": round(peak_mb())}),
                file=results,
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
