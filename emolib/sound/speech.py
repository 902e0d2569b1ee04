"""When somebody speaks on a channel, and how good the channel is. Streaming: the same however the sound is cut.

Speech activity is WebRTC's (a mixture of Gaussians over six bands, adapting to the noise of the channel), in frames of
30 ms. What it takes for speech in a tone of the telephone network, and right after one, is none: see
`emolib.sound.tones`. Nor is known audio, where it is asked for: see `emolib.sound.known_audio`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.signal
import webrtcvad
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.sound.fingerprints import BANDS, FRAME_S as FRAME_S, band_energies
from emolib.sound.known_audio import KnownAudio, KnownAudioStream
from emolib.sound.tones import AHEAD, PAST, find_peaks, find_tones, power_spectra

VERSION = 2
"""Raised whenever something else is found in the same sound: rows of two versions don't stand in one table."""

_RATES = (8000, 16_000, 32_000, 48_000)  # those that WebRTC's detector knows
_AGGRESSIVENESS = 2  # of 0 to 3; 3 takes the ends of words for silence
_AT_ONCE = 1000  # frames that are listened to together: what a block costs beside its frames is as much as 200 of them

_NOTHING = 1e-9  # of power, -90 dBFS: less than 16 bits can say, a recorder wrote zeros
_FEWEST_FRAMES = 10  # to say anything of speech or noise: 0.3 s
# The highest frequency that carries speech: the long-term spectrum lies above its maximum less this.
_BAND_DB = 45.0


@dataclass(frozen=True, slots=True)
class ChannelSpeech:
    """What was found on a channel.

    Attributes
    ----------
    speech, tone, known_audio
        Bool ``(frame,)``, frames of `FRAME_S` from the beginning on; no frame is two of them. A rest shorter than a
        frame is left out.
    level_dbfs
        RMS level of the speech; None where there is next to none.
    snr_db
        Its signal-to-noise ratio: noise is the median frame without speech that is no digital silence. None where there
        is too little of one.
    bandwidth_hz
        Highest frequency that carries speech; None where there is next to none.
    """

    speech: NDArray[np.bool_]
    tone: NDArray[np.bool_]
    known_audio: NDArray[np.bool_]
    level_dbfs: float | None
    snr_db: float | None
    bandwidth_hz: float | None

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return int(self.speech.sum()) * FRAME_S

    @property
    def tone_s(self) -> float:
        """Seconds of tones."""
        return int(self.tone.sum()) * FRAME_S

    @property
    def known_audio_s(self) -> float:
        """Seconds of known audio."""
        return int(self.known_audio.sum()) * FRAME_S


class SpeechStream:
    """Find the speech of one channel that comes in pieces.

    What lies after `known_s` waits: for what follows, which may show that it is a tone or known audio, and to be
    listened to together with it, which is quicker. Some more than half a minute waits at most, and nothing once the
    channel has ended. Samples that were pushed must not change.

    Parameters
    ----------
    sampling_rate
        In Hz.
    min_level_dbfs
        A frame whose RMS level lies below is silence.
    known_audio
        What is no speech wherever it is heard.

    Raises
    ------
    SettingsError
        If 30 ms are no whole number of samples.

    Examples
    --------
    >>> stream = SpeechStream(8000, min_level_dbfs=-60.0)
    >>> stream.push(np.zeros(8000, np.float32))
    >>> stream.finish().snr_db, stream.speech_s(0.0, 1.0)
    (None, 0.0)
    """

    def __init__(self, sampling_rate: int, *, min_level_dbfs: float, known_audio: KnownAudio | None = None) -> None:
        self._rate = sampling_rate
        self._frame = round(sampling_rate * FRAME_S)
        if abs(self._frame - sampling_rate * FRAME_S) > 1e-6:
            raise SettingsError(
                f"a sampling rate of {sampling_rate} Hz found, expected one of which 30 ms are whole samples, such as "
                "8000, 16000 or 44100"
            )
        self._detector_rate = sampling_rate if sampling_rate in _RATES else 16_000
        self._detector = webrtcvad.Vad(_AGGRESSIVENESS)
        self._least_power = 10 ** (min_level_dbfs / 10)
        self._waiting: list[NDArray[np.float32]] = []
        # Of the last frames, row by row: power, activity, and what `find_peaks` finds. What `PAST` of them are is known
        # (silence before the first one), what up to `AHEAD` are is not.
        self._last = _silence(PAST)
        self._powers: list[NDArray[np.float64]] = []
        # A byte per frame. Of those from `_settled` on it is not known yet whether they are known audio.
        self._speech, self._tone, self._known_audio = bytearray(), bytearray(), bytearray()
        self._settled = 0
        self._matching = None if known_audio is None else KnownAudioStream(known_audio)
        self._spectrum = np.zeros((1, self._frame // 2 + 1), np.float32)

    def push(self, samples: NDArray[np.float32]) -> None:
        """Listen to the next samples, float32 ``(sample,)``."""
        self._waiting.append(samples)
        if sum(map(len, self._waiting)) >= _AT_ONCE * self._frame:
            self._listen()

    @property
    def known_s(self) -> float:
        """Seconds from the beginning of the channel of which it is known what they hold."""
        return self._settled * FRAME_S

    def speech_s(self, start_s: float, end_s: float) -> float:
        """Return the seconds of speech between two moments that are known already, in whole frames."""
        first, last = np.ceil(start_s / FRAME_S - 1e-6), np.floor(end_s / FRAME_S + 1e-6)
        return self._speech.count(1, int(first), int(last)) * FRAME_S

    def finish(self) -> ChannelSpeech:
        """Return what was found from the beginning to here, where the channel ends."""
        self._listen()
        if self._matching is not None:
            self._known_audio += self._matching.finish().tobytes()
        self._conclude(_silence(AHEAD))
        self._last = self._last[:, :PAST]
        power = np.concatenate([np.zeros(0), *self._powers])
        flags = (self._speech, self._tone, self._known_audio)
        speech, tone, known_audio = (np.frombuffer(bytes(each), bool) for each in flags)
        level_dbfs = snr_db = bandwidth_hz = None
        if speech.sum() >= _FEWEST_FRAMES:
            loud = float(power[speech].mean())
            level_dbfs, bandwidth_hz = 10 * float(np.log10(loud)), self._bandwidth_hz()
            quiet = power[~speech & ~tone & ~known_audio & (power > _NOTHING)]
            if len(quiet) >= _FEWEST_FRAMES:
                noise = float(np.median(quiet))
                snr_db = 10 * float(np.log10(max(loud - noise, 1e-3 * noise) / noise))
        return ChannelSpeech(speech, tone, known_audio, level_dbfs, snr_db, bandwidth_hz)

    def _listen(self) -> None:
        samples = np.concatenate([np.zeros(0, np.float32), *self._waiting])
        count = len(samples) // self._frame
        self._waiting = [samples[count * self._frame :].copy()]
        frames = samples[: count * self._frame].reshape(count, self._frame)
        heard = _silence(count)
        heard[0] = np.einsum("ij,ij->i", frames, frames) / np.float32(self._frame)
        loud = heard[0] >= self._least_power
        energies = np.zeros((count, BANDS), np.float32)
        if loud.any():
            frames = frames[loud]
            heard[1, loud] = active = np.array(self._is_active(frames))
            spectra = power_spectra(frames)
            heard[2:, loud] = peaks = find_peaks(spectra, bin_hz=1 / FRAME_S)
            # Row by row, as numpy adds along the first axis: the same sum however the sound is cut.
            rich = spectra[active & np.isnan(peaks[1])]
            self._spectrum = np.concatenate([self._spectrum, rich]).sum(axis=0, keepdims=True)
            energies[loud] = band_energies(spectra)
        if self._matching is not None:
            self._known_audio += self._matching.push(energies).tobytes()
        self._conclude(heard)

    def _is_active(self, frames: NDArray[np.float32]) -> list[bool]:
        """Return which frames the detector takes for speech."""
        if self._detector_rate != self._rate:  # each frame by itself: what is lost at its ends does not matter here
            frames = scipy.signal.resample(frames, round(self._detector_rate * FRAME_S), axis=1)
        words = frames * np.float32(32_768)
        words = words.clip(-32_768, 32_767, out=words).astype(np.int16)
        data, size, asked = words.tobytes(), 2 * words.shape[1], self._detector.is_speech
        return [asked(data[at : at + size], self._detector_rate) for at in range(0, len(data), size)]

    def _conclude(self, new: NDArray[np.float64]) -> None:
        """Take note of the frames of which enough of what follows is known now."""
        heard = np.concatenate([self._last, new], axis=1)
        count = max(0, heard.shape[1] - PAST - AHEAD)
        self._last = heard[:, count:]
        power, active, *peaks = heard
        tone, after = find_tones(power, *peaks)
        speech, known = (active > 0) & ~tone & ~after, slice(PAST, PAST + count)
        self._powers.append(power[known].copy())
        self._speech += speech[known].tobytes()
        self._tone += tone[known].tobytes()
        self._settle()

    def _settle(self) -> None:
        """Take known audio out of the speech, as far as both are known."""
        if self._matching is None:
            self._settled = len(self._speech)
            self._known_audio = bytearray(self._settled)
            return
        now = slice(self._settled, min(len(self._speech), len(self._known_audio)))
        speech, tone, known_audio = (
            np.frombuffer(bytes(each[now]), bool) for each in (self._speech, self._tone, self._known_audio)
        )
        self._speech[now] = (speech & ~known_audio).tobytes()
        self._known_audio[now] = (known_audio & ~tone).tobytes()
        self._settled = now.stop

    def _bandwidth_hz(self) -> float | None:
        if not self._spectrum.any():
            return None
        level = 10 * np.log10(self._spectrum[0] + 1e-30)
        smooth = np.convolve(level, np.ones(5) / 5, mode="same")
        return float(np.flatnonzero(smooth >= smooth.max() - _BAND_DB)[-1] / FRAME_S)


def _silence(count: int) -> NDArray[np.float64]:
    silence = np.zeros((5, count))
    silence[2:] = np.nan
    return silence
