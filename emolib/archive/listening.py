"""One channel of a recording, heard block by block: its windows, what the model says of them, its columns.

Windows wait in a pool that all recordings of a task share. So the model runs in full batches, each channel's frames are
computed once, and memory holds a batch and a minute of sound, however long a recording is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emolib.archive.aggregates import ScoredWindows, channel_columns, judge, labels_of, window_config
from emolib.archive.calls import is_scored
from emolib.config import Role, ScoringConfig
from emolib.errors import Code
from emolib.features.windows import Windows, WindowStream
from emolib.learning.bundle import ModelBundle
from emolib.sound.known_audio import KnownAudio
from emolib.sound.speech import FRAME_S, ChannelSpeech, SpeechStream

# The largest magnitudes of µ-law and A-law are 0.980 and 0.984: a telephone channel clips below full scale.
_FULL_SCALE = 0.98

# At the two ends of a window, at most: what is outside the frames that lie wholly in it, and one that may be silence.
_UNSURE_S = 4 * FRAME_S

_Deliver = Callable[[NDArray[np.float32]], None]


class WindowPool:
    """Windows of many channels on their way through a model, in full batches and in the order in which they came.

    Parameters
    ----------
    batch
        Windows that the model sees at once; it changes no number.
    """

    def __init__(self, bundle: ModelBundle, *, batch: int) -> None:
        self.bundle, self._batch = bundle, batch
        self._waiting: list[tuple[NDArray[np.float32], NDArray[np.int32], _Deliver]] = []
        self._count = 0

    def add(self, features: NDArray[np.float32], valid_frames: NDArray[np.int32], deliver: _Deliver) -> None:
        """Take windows; `deliver` is called with their probabilities ``(window, class)``, perhaps in several parts.

        Parameters
        ----------
        features
            Shape ``(window, frame, coefficient)``.
        valid_frames
            Shape ``(window,)``.
        """
        while len(features):
            room = self._batch - self._count
            self._waiting.append((features[:room], valid_frames[:room], deliver))
            self._count += len(features[:room])
            features, valid_frames = features[room:], valid_frames[room:]
            if self._count == self._batch:
                self.flush()

    def flush(self) -> None:
        """Run what waits through the model."""
        if not self._count:
            return
        features, valid_frames, _ = zip(*self._waiting, strict=True)
        probabilities = self.bundle.predict(np.concatenate(features), np.concatenate(valid_frames), batch=self._batch)
        start = 0
        for part, _, deliver in self._waiting:
            deliver(probabilities[start : start + len(part)])
            start += len(part)
        self._waiting, self._count = [], 0


class _Reading:
    """What one model says of a channel's windows."""

    def __init__(self, pool: WindowPool, config: ScoringConfig) -> None:
        self._pool = pool
        self._labels = labels_of(pool.bundle, config)
        self._probabilities: list[NDArray[np.float32]] = []

    def add(self, features: NDArray[np.float32], valid_frames: NDArray[np.int32]) -> None:
        self._pool.add(features, valid_frames, self._probabilities.append)

    def judged(
        self, start_s: NDArray[np.float64], end_s: NDArray[np.float64], valid_frames: NDArray[np.int32]
    ) -> ScoredWindows:
        return judge(
            np.concatenate(self._probabilities),
            self._labels,
            weight=valid_frames,
            start_s=start_s,
            end_s=end_s,
            abstention_threshold=self._pool.bundle.abstention_threshold,
        )


@dataclass(frozen=True, slots=True)
class ChannelResult:
    """What became of a channel.

    Attributes
    ----------
    message
        A line about its code.
    speech
        When somebody speaks, see `emolib.sound.speech.ChannelSpeech`.
    columns
        The other columns of its row in `channels`.
    windows
        What the model says of its windows; None where none was scored.
    shadow
        What the candidate says of them; None where it did not listen in either.
    """

    code: Code
    message: str
    speech: NDArray[np.bool_]
    columns: dict[str, Any]
    windows: ScoredWindows | None = None
    shadow: ScoredWindows | None = None


class Channel:
    """One channel of a recording, listened to. Where policy forbids to score it, only for when somebody speaks.

    Parameters
    ----------
    role
        Who speaks on it, None where nothing says it.
    pool
        Where its windows wait for the model.
    shadow
        Where they wait for a candidate too; None: for none.
    known_audio
        What is no speech wherever it is heard; None: nothing is known.

    Raises
    ------
    SettingsError
        If the settings do not fit the model.
    """

    def __init__(
        self,
        role: Role | None,
        *,
        config: ScoringConfig,
        pool: WindowPool,
        shadow: WindowPool | None = None,
        known_audio: KnownAudio | None = None,
    ) -> None:
        bundle = pool.bundle
        self._role, self._config = role, config
        self._labels = labels_of(bundle, config)
        self._reading = _Reading(pool, config)
        self._shadow = None if shadow is None else _Reading(shadow, config)
        self._windows = None
        if is_scored(role, config):
            self._windows = WindowStream(features=bundle.profile.features, windows=window_config(bundle, config))
        self._rate = bundle.profile.features.sampling_rate
        self._speech = SpeechStream(self._rate, min_level_dbfs=config.min_level_dbfs, known_audio=known_audio)
        self._asks_for_known_audio = known_audio is not None
        self._heard: ChannelSpeech
        # Sound that waits until it is known when somebody speaks in it, and where each piece ends.
        self._late: deque[tuple[float, NDArray[np.float32]]] = deque()
        self._samples = self._clipped = self._total = 0
        self._peak, self._least_peak = 0.0, 10 ** (config.min_level_dbfs / 20)
        # Of the windows with enough speech, in parts: start_s, end_s, valid frames.
        self._spoken: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]] = []
        self.flags: list[str] = []
        """What is odd about it; what only shows beside other channels is added from outside."""
        self.same_as: int | None = None
        """The channel that holds the same sound and is scored instead; set from outside."""

    def hear(self, samples: NDArray[np.float32]) -> None:
        """Listen to the next samples, float32 ``(sample,)`` at the model's sampling rate."""
        self._samples += samples.size
        self._clipped += int(np.count_nonzero(np.abs(samples) >= _FULL_SCALE))
        self._peak = max(self._peak, float(np.abs(samples).max(initial=0.0)))
        self._speech.push(samples)
        if self._windows is not None:
            self._late.append((self._samples / self._rate, samples))
            while self._late and self._late[0][0] <= self._speech.known_s:
                self._keep(self._windows.push(self._late.popleft()[1]))

    def finish(self) -> None:
        """Take note that the recording has ended."""
        self._heard = self._speech.finish()
        if self._windows is not None:
            for _, samples in self._late:
                self._keep(self._windows.push(samples))
            self._keep(self._windows.push(np.zeros(0, np.float32), last=True))

    def _keep(self, cut: Windows) -> None:
        spoken = np.array(list(map(self._is_spoken, cut.start_s, cut.end_s)), bool)
        self._total += len(spoken)
        if spoken.any():
            self._spoken.append((cut.start_s[spoken], cut.end_s[spoken], cut.valid_frames[spoken]))
            for reading in filter(None, (self._reading, self._shadow)):
                reading.add(cut.features[spoken], cut.valid_frames[spoken])

    def _is_spoken(self, start_s: float, end_s: float) -> bool:
        """Return whether a window has enough speech; one that is too short for that must be full of it."""
        least_s = min(self._config.min_speech_s, end_s - start_s - _UNSURE_S)
        return self._speech.speech_s(start_s, end_s) >= least_s - 1e-9

    @property
    def windows(self) -> int:
        """How many windows there are to score; complete once the channel is finished."""
        return sum(len(start_s) for start_s, _, _ in self._spoken)

    @property
    def role(self) -> Role | None:
        """Who speaks on it: both parties where a recorder made two channels of one."""
        return "mixed" if self._role and "dual_mono" in self.flags else self._role

    def result(self, code: Code, message: str, *, duration_s: float) -> ChannelResult:
        """Return what became of the channel; it must have been finished, and the pool flushed.

        Parameters
        ----------
        code, message
            Of the recording's decode: those of the channel where it is scored.
        duration_s
            Seconds of sound in the recording.
        """
        heard = self._heard
        columns: dict[str, Any] = {
            "role": self.role,
            "windows_total": None,
            "windows_scored": 0,
            "windows_abstained": 0,
            "speech_s": heard.speech_s,
            "tone_s": heard.tone_s,
            "known_audio_s": heard.known_audio_s if self._asks_for_known_audio else None,
            "level_dbfs": heard.level_dbfs,
            "snr_db": heard.snr_db,
            "bandwidth_hz": heard.bandwidth_hz,
            "clipped_share": self._clipped / self._samples if self._samples else None,
            "flags": [*self.flags, *(["dead_channel"] if self._peak < self._least_peak else [])],
        }
        if self._windows is None or not is_scored(self.role, self._config):
            only = ", ".join(self._config.scored_roles or ())
            # A channel that was not to be scored was not listened to, even if both parties turned out to be on it.
            role = self._role if is_scored(self.role, self._config) else self.role
            dual_mono = " (dual mono)" if role != self._role else ""
            message = f"a channel of role {role or 'unknown'}{dual_mono} found, expected {only}"
            return ChannelResult(Code.POLICY, message, heard.speech, columns)
        columns["windows_total"] = self._total
        if not self._total:
            message = f"{duration_s:.3f} s of sound found, expected at least 0.4"
            return ChannelResult(Code.TOO_SHORT, message, heard.speech, columns)
        if not self._spoken:
            least = f"{self._config.min_speech_s:g} s of speech"
            found = [f"{heard.speech_s:.1f} s of speech", f"{heard.tone_s:.1f} s of tones"]
            if self._asks_for_known_audio:
                found.append(f"{heard.known_audio_s:.1f} s of known audio")
            message = f"{', '.join(found[:-1])} and {found[-1]} found, but no window with {least}"
            return ChannelResult(Code.NO_SPEECH, message, heard.speech, columns)
        if self.same_as is not None:
            message = f"the sound of channel {self.same_as} found again (dual mono), expected a party of its own"
            return ChannelResult(Code.DUPLICATE, message, heard.speech, columns)
        spoken = [np.concatenate(parts) for parts in zip(*self._spoken, strict=True)]
        windows = self._reading.judged(*spoken)
        columns["windows_scored"] = len(windows.emotion)
        columns |= channel_columns(windows, self._labels, duration_s=duration_s)
        shadow = None if self._shadow is None else self._shadow.judged(*spoken)
        return ChannelResult(code, message, heard.speech, columns, windows, shadow)
