"""Hold music from seeds: chords under a melody of plucked notes, eight partials each, with a little noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emolib.sound.voices import generator

_SCALE = np.array([0, 2, 4, 5, 7, 9, 11])  # major, in semitones


def hold_music(seed: int, *, duration_s: float, sampling_rate: int = 8000) -> NDArray[np.float32]:
    """Return music ``(sample,)`` with a peak of 0.3; seeds differ in key, tempo and notes."""
    rng = generator("hold music", seed)
    music = 0.003 * rng.standard_normal(round(duration_s * sampling_rate))
    key, beat_s, now_s = 48 + int(rng.integers(12)), rng.uniform(0.35, 0.6), 0.0

    def play(semitone: float, start_s: float, length_s: float, level: float) -> None:
        start = round(start_s * sampling_rate)
        time = np.arange(len(music[start : start + round(length_s * sampling_rate)])) / sampling_rate
        hz = 440 * 2 ** ((semitone - 69) / 12)
        partials = np.arange(1, 8)[hz * np.arange(1, 8) < 0.49 * sampling_rate]
        note = sum(np.sin(2 * np.pi * hz * n * time + rng.uniform(0, 6)) / n for n in partials)
        music[start : start + len(time)] += level * note * np.minimum(time / 0.02, 1) * np.exp(-time / (0.5 * length_s))

    while now_s < duration_s:
        root = rng.integers(7)
        for third in (0, 2, 4):
            play(key + _SCALE[(root + third) % 7], now_s, 4 * beat_s, 0.1)
        melody_s = now_s
        while melody_s < now_s + 4 * beat_s - 1e-6:
            length_s = beat_s * rng.choice([0.5, 1.0, 1.0, 2.0])
            play(key + 19 + _SCALE[rng.integers(7)] + 12 * rng.integers(2), melody_s, length_s, rng.uniform(0.08, 0.15))
            melody_s += length_s
        now_s += 4 * beat_s
    return (0.3 / np.abs(music).max() * music).astype(np.float32)
