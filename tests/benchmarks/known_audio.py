"""(i) What it costs to keep known audio out: beside scoring as a whole, and beside hearing when somebody speaks.

As in (h), ten minutes at 8 kHz: one channel of a call, of which a quarter is above -60 dBFS; voices without a pause;
and a call in which six of the ten minutes are known music. The file holds five minutes of music. The figure is what
`SpeechStream` takes with it less what it takes without, of the processor; a ratio is the median of those of the rounds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from emolib.learning.bundle import ModelBundle
from emolib.sound.fingerprints import ChannelFingerprints
from emolib.sound.known_audio import KnownAudio, Stretch
from emolib.sound.speech import SpeechStream
from emolib.sound.telephone import through
from tests.benchmarks import world
from tests.benchmarks.activity import BLOCK, RATE, SILENCE_DBFS, of_processor, scoring, signals
from tests.benchmarks.rows import Figure, Row, at_most
from tests.benchmarks.timing import in_turn, is_quick
from tests.sound.hold_music import hold_music


def measure() -> list[Row]:
    bundle, rounds = ModelBundle.load(world.model()), 2 if is_quick() else 9
    music = [hold_music(seed, duration_s=60) for seed in range(5)]
    known = KnownAudio(tuple(Stretch(_fingerprints(each), 2, "a.wav", 0, 0.0) for each in music))
    known.index.find(np.zeros(1, np.uint32))  # made once in a process
    heard = {name: signal for name, signal in signals().items() if name != "a noisy call"}
    waiting = heard["a call"].copy()
    waits = np.resize(np.concatenate(music), round(0.6 * len(waiting)))
    waiting[: len(waits)] = through("ulaw", waits, sampling_rate=RATE, seed=0)
    heard["a call that waits"] = waiting
    return [row for name, signal in heard.items() for row in _rows(name, signal, known, bundle, rounds)]


def _rows(name: str, signal: NDArray[np.float32], known: KnownAudio, bundle: ModelBundle, rounds: int) -> list[Row]:
    root: Path = world.folder(f"known audio {name}")
    root.mkdir()
    soundfile.write(root / "a.wav", np.stack([signal, signal], axis=1), RATE, subtype="ULAW")
    signal = soundfile.read(root / "a.wav", dtype="float32")[0][:, 0].copy()
    blocks = [signal[start : start + BLOCK] for start in range(0, len(signal), BLOCK)]
    seconds = in_turn(
        {
            "with": of_processor(lambda: _listen(blocks, known)),
            "hearing when somebody speaks": of_processor(lambda: _listen(blocks, None)),
            "scoring": of_processor(scoring(root, bundle)),
        },
        rounds=rounds,
    )
    seconds["scoring"] = [each / 2 for each in seconds["scoring"]]
    peer, minutes = "hearing when somebody speaks", len(signal) / RATE / 60
    more = [mine - without for mine, without in zip(seconds["with"], seconds[peer], strict=True)]
    return [
        Row(
            what=f"looking for known audio in {name}: time over that of {other}",
            emolib=Figure.of([1e3 * each / minutes for each in more], "ms a minute"),
            peer=other,
            theirs=Figure.of([1e3 * each / minutes for each in seconds[other]], "ms a minute"),
            ratio=float(np.median([mine / theirs for mine, theirs in zip(more, seconds[other], strict=True)])),
            target=at_most(0.05) if other == "scoring" else None,
        )
        for other in ("scoring", peer)
    ]


def _fingerprints(signal: NDArray[np.float32]):
    stream = ChannelFingerprints(RATE, min_level_dbfs=SILENCE_DBFS)
    stream.push(through("ulaw", signal, sampling_rate=RATE, seed=1))
    return stream.finish()


def _listen(blocks: list[NDArray[np.float32]], known: KnownAudio | None) -> None:
    stream = SpeechStream(RATE, min_level_dbfs=SILENCE_DBFS, known_audio=known)
    for block in blocks:
        stream.push(block)
    stream.finish()
