"""(h) What it costs to hear when somebody speaks: against scoring as a whole, the MFCCs, and WebRTC's detector alone.

Three signals of ten minutes at 8 kHz, in blocks as the decoder gives them: one channel of a call, of which a quarter is
above -60 dBFS; voices without a pause; and the call with line noise at -50 dBFS, so that no frame is silence. All ways
take turns in one process. The seconds are those of the processor, not of the clock. A ratio is the median of those of
the rounds.

- The share of scoring: the seconds of `SpeechStream` over those of `emolib.archive.scoring.score_recordings` on a µ-law
  stereo file with the same signal on both channels, per channel.
- WebRTC's detector alone is asked about the same frames, as 16 bits that lie ready: nothing that uses it costs less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import webrtcvad
from numpy.typing import NDArray

from emolib.archive.scoring import score_recordings
from emolib.config import TELEPHONE, ScoringConfig
from emolib.features.cepstra import MfccStream
from emolib.learning.bundle import ModelBundle
from emolib.sound.speech import SpeechStream
from tests.benchmarks import world
from tests.benchmarks.rows import Figure, Row, Target, at_most
from tests.benchmarks.timing import in_turn, is_quick

RATE, BLOCK, _FRAME = world.CALL_RATE, 2**16, 240
SILENCE_DBFS = -60.0


def measure() -> list[Row]:
    bundle, rounds = ModelBundle.load(world.model()), 2 if is_quick() else 9
    return [row for name, signal in signals().items() for row in _rows(name, signal, bundle, rounds)]


def signals() -> dict[str, NDArray[np.float32]]:
    seconds = 60.0 if is_quick() else 600.0
    (path,) = world.calls("activity-call", count=1, seconds=seconds).rglob("*.wav")
    call = np.ascontiguousarray(soundfile.read(path, dtype="float32")[0][:, 0])
    noise = 10 ** (-50 / 20) * np.random.default_rng(0).standard_normal(len(call))
    voices = world.speech(seconds, sampling_rate=RATE)
    return {"a call": call, "voices without a pause": voices, "a noisy call": call + noise.astype(np.float32)}


def _rows(name: str, signal: NDArray[np.float32], bundle: ModelBundle, rounds: int) -> list[Row]:
    root = world.folder(f"activity {name}")
    root.mkdir()
    soundfile.write(root / "a.wav", np.stack([signal, signal], axis=1), RATE, subtype="ULAW")
    signal = soundfile.read(root / "a.wav", dtype="float32")[0][:, 0].copy()
    blocks = [signal[start : start + BLOCK] for start in range(0, len(signal), BLOCK)]
    seconds = in_turn(
        {
            "emolib": of_processor(lambda: _listen(blocks)),
            "scoring": of_processor(scoring(root, bundle)),
            "MFCCs": of_processor(lambda: _cepstra(blocks)),
            "WebRTC's detector": of_processor(_detector(signal)),
        },
        rounds=rounds,
    )
    seconds["scoring"] = [each / 2 for each in seconds["scoring"]]
    what, minutes = f"when somebody speaks in {name}: time over that of", len(signal) / RATE / 60
    return [
        _row(f"{what} {peer}", seconds["emolib"], peer, seconds[peer], minutes, target)
        for peer, target in (("scoring", at_most(0.1)), ("MFCCs", None), ("WebRTC's detector", None))
    ]


def _row(what: str, ours: list[float], peer: str, theirs: list[float], minutes: float, target: Target | None) -> Row:
    ratio = float(np.median([mine / other for mine, other in zip(ours, theirs, strict=True)]))
    mine, other = (Figure.of([1e3 * each / minutes for each in values], "ms a minute") for values in (ours, theirs))
    return Row(what=what, emolib=mine, peer=peer, theirs=other, ratio=ratio, target=target)


def of_processor(call: Callable[[], object]) -> Callable[[], float]:
    def way() -> float:
        began = time.process_time()
        call()
        return time.process_time() - began

    return way


def _listen(blocks: list[NDArray[np.float32]]) -> None:
    stream = SpeechStream(RATE, min_level_dbfs=SILENCE_DBFS)
    for block in blocks:
        stream.push(block)
    stream.finish()


def _cepstra(blocks: list[NDArray[np.float32]]) -> None:
    stream = MfccStream(config=TELEPHONE.features)
    for block in blocks:
        stream.push(block)


def scoring(root: Path, bundle: ModelBundle) -> Callable[[], object]:
    planned = world.planned(root)
    score = partial(score_recordings, root, planned, bundle=bundle, config=ScoringConfig())
    if any(row.recording["code"] != "ok" for row in score()):
        raise RuntimeError("a call that is not scored found, expected every call to be")
    return score


def _detector(signal: NDArray[np.float32]) -> Callable[[], object]:
    frames = signal[: len(signal) // _FRAME * _FRAME].reshape(-1, _FRAME)
    loud = frames[np.square(frames, dtype=np.float64).mean(axis=1) >= 10 ** (SILENCE_DBFS / 10)]
    data = (loud * 32_768).clip(-32_768, 32_767).astype(np.int16).tobytes()
    size = 2 * _FRAME

    def ask() -> None:
        detector = webrtcvad.Vad(2)
        for start in range(0, len(data), size):
            detector.is_speech(data[start : start + size], RATE)

    return ask
