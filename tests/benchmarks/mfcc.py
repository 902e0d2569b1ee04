"""(a) MFCCs of a channel of 60 s and of clips of 3 s, against other libraries and against the bare FFT of the frames.

A figure is the time of one call on samples in memory: the median over rounds in which every library has its turn, each
turn repeated for at least 0.1 s. For clips it is the time of one clip out of 20, called one after the other. Everything
that can be made once for a front end (banks, option objects, a Smile) is made before.

The bare FFT is one call of `scipy.fft.rfft` on all frames of the 60 s, cut and laid out contiguously before, in float32
as emolib computes, and in float64; its row says how many times its time the whole MFCC takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emolib.config import PROFILES, TELEPHONE, MfccConfig, Profile
from emolib.features import mfcc
from tests.benchmarks.peers import PEERS, Kernel, make
from tests.benchmarks.rows import Figure, Row, Target, at_least, at_most, faster
from tests.benchmarks.timing import in_turn, is_quick, repeated
from tests.benchmarks.world import speech

_FFT_NOTE = "All frames in one call, its memory new each time; the ratio is emolib's time over that of the FFT."
_CLIPS = 20


def measure() -> list[Row]:
    profiles = [TELEPHONE] if is_quick() else PROFILES.values()
    return [row for profile in profiles for row in (*_minute(profile), *_clips(profile))]


def _minute(profile: Profile) -> list[Row]:
    config, what = profile.features, f"MFCC of 60 s, {profile.name}"
    signal = speech(60, sampling_rate=config.sampling_rate)
    frames = _frames(signal, config)
    doubles = frames.astype(np.float64)
    ways = _ways(config, [signal]) | {
        "float32": repeated(lambda: scipy.fft.rfft(frames, axis=1)),
        "float64": repeated(lambda: scipy.fft.rfft(doubles, axis=1)),
    }
    seconds = in_turn(ways, rounds=3 if is_quick() else 9)
    ours = Figure.of(seconds["emolib"], "s")
    rows = _against(what, seconds, 1, librosa_target=at_least(2.5))
    for precision, target in (("float32", at_most(1.8)), ("float64", None)):
        theirs = Figure.of(seconds[precision], "s")
        rows.append(
            Row(
                what=f"{what}: time over its FFT's",
                emolib=ours,
                peer=f"scipy.fft.rfft, {precision}",
                theirs=theirs,
                ratio=ours.median / theirs.median,
                target=target,
                note=_FFT_NOTE,
            )
        )
    return rows


def _clips(profile: Profile) -> list[Row]:
    config = profile.features
    length = 3 * config.sampling_rate
    whole = speech(3 * _CLIPS, sampling_rate=config.sampling_rate)
    clips = [whole[start : start + length].copy() for start in range(0, len(whole), length)]
    seconds = in_turn(_ways(config, clips), rounds=3 if is_quick() else 9)
    return _against(f"MFCC of a 3 s clip, {profile.name}", seconds, _CLIPS, librosa_target=at_least(4))


def _ways(config: MfccConfig, signals: list[NDArray[np.float32]]) -> dict[str, Callable[[], float]]:
    """Return emolib's way and those of the peers that are installed; their seconds are those of all signals."""
    kernels: dict[str, Kernel] = {"emolib": lambda signal: mfcc(signal, config=config)}
    kernels |= {name: kernel for name, peer in PEERS.items() if (kernel := make(peer, config))}
    return {
        name: repeated(lambda kernel=kernel: [kernel(signal) for signal in signals])  # type: ignore[misc]
        for name, kernel in kernels.items()
    }


def _against(what: str, seconds: Mapping[str, Sequence[float]], signals: int, *, librosa_target: Target) -> list[Row]:
    """Return a row per peer, with the seconds of one signal."""
    each = {name: [value / signals for value in values] for name, values in seconds.items()}
    rows = []
    for name, peer in PEERS.items():
        target = librosa_target if name == "librosa" else None
        if name in each:
            rows.append(faster(what, each["emolib"], name, each[name], target=target, note=peer.note))
        else:
            ours = Figure.of(each["emolib"], "s")
            rows.append(Row(what=what, emolib=ours, peer=name, target=target, missing=True, note="Not installed."))
    return rows


def _frames(signal: NDArray[np.float32], config: MfccConfig) -> NDArray[np.float32]:
    if config.center:
        signal = np.pad(signal, config.n_fft // 2)
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(signal, config.n_fft)[:: config.hop_length])
