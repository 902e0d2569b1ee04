"""When somebody speaks on a channel, and how good the channel is. Streaming: the same however the sound is cut.

Speech activity is WebRTC's (a mixture of Gaussians over six bands, adapting to the noise of the channel), in frames of
30 ms. Frames that it takes for speech but that hold next to nothing but one or two steady sinusoids, or a pair of DTMF
frequencies, are tones: dialling, ring-back, busy and fax tones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal
import webrtcvad
from numpy.typing import NDArray

from emolib.errors import SettingsError

FRAME_S = 0.03
VERSION = 1
"""Raised whenever something else is found in the same sound: rows of two versions don't stand in one table."""

_RATES = (8000, 16_000, 32_000, 48_000)  # those that WebRTC's detector knows
_AGGRESSIVENESS = 2  # of 0 to 3; 3 takes the ends of words for silence

# A tone: so much of the energy of two frames in their two highest peaks, at the same frequencies and level so many
# times in a row. A voice moves: of the telephone calls that were measured, under 1 % of the speech is taken for tones.
_PURE = 0.97
_SIMPLE = 0.2  # in its highest bin: two equal ones between two bins have 0.24 in each
_LOBE = np.arange(-2, 3)  # bins of a sinusoid behind a Hann window
_SAME_HZ, _SAME_DB = 25.0, 3.0  # the 440 and 480 Hz of a ring-back are one peak, and beat
_STEADY = 3
_LEVEL = 2.0  # between the energies of the two frames; those of a voice that moves need no spectrum
_PEAK = ("lower_hz", "higher_hz", "level_db", "how much more the louder one has")
# ITU-T Q.23. Frequencies may be off by 1.8 %, and an estimate within a frame by another 10 Hz.
_DTMF_LOW_HZ, _DTMF_HIGH_HZ = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0, 1633.0)
_DTMF_SHARE, _DTMF_HZ, _DTMF_TWIST = 0.018, 10.0, 10.0  # the louder of the two has at most ten times the energy

_NOTHING = 1e-9  # of power, -90 dBFS: less than 16 bits can say, a recorder wrote zeros
_FEWEST_FRAMES = 10  # to say anything of speech or noise: 0.3 s
# The highest frequency that carries speech: the long-term spectrum lies above its maximum less this.
_BAND_DB = 45.0


@dataclass(frozen=True, slots=True)
class ChannelSpeech:
    """What was found on a channel.

    Attributes
    ----------
    speech, tone
        Bool ``(frame,)``, frames of `FRAME_S` from the beginning on; no frame is both. A rest shorter than two frames
        is left out.
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


class SpeechStream:
    """Find the speech of one channel that comes in pieces.

    Parameters
    ----------
    sampling_rate
        In Hz.
    min_level_dbfs
        A frame whose RMS level lies below is silence.

    Raises
    ------
    SettingsError
        If 30 ms are no whole number of samples.

    Examples
    --------
    >>> stream = SpeechStream(8000, min_level_dbfs=-60.0)
    >>> stream.push(np.zeros(8000, np.float32))
    >>> stream.speech_s(0.0, 1.0), stream.finish().snr_db
    (0.0, None)
    """

    def __init__(self, sampling_rate: int, *, min_level_dbfs: float) -> None:
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
        self._rest = np.zeros(0, np.float32)
        self._powers: list[NDArray[np.float64]] = []
        self._speech, self._tone = bytearray(), bytearray()  # a byte per frame
        self._peaks = np.full((_STEADY - 1, len(_PEAK)), np.nan)  # of the last pairs
        self._window = scipy.signal.windows.hann(2 * self._frame, sym=False).astype(np.float32)
        self._hz = scipy.fft.rfftfreq(2 * self._frame, 1 / sampling_rate)
        self._spectrum = np.zeros((1, len(self._hz)), np.float32)

    def push(self, samples: NDArray[np.float32]) -> None:
        """Listen to the next samples, float32 ``(sample,)``."""
        samples = np.concatenate([self._rest, samples])
        count = len(samples) // (2 * self._frame) * 2
        self._rest = samples[count * self._frame :]
        if not count:
            return
        frames = samples[: count * self._frame].reshape(count, self._frame)
        power = np.mean(np.square(frames, dtype=np.float64), axis=1)
        active = np.zeros(count, bool)
        loud = power >= self._least_power
        data, size = self._detectable(frames[loud])
        active[loud] = [
            self._detector.is_speech(data[first : first + size], self._detector_rate)
            for first in range(0, len(data), size)
        ]
        first, second = power[::2], power[1::2]
        level = (active[::2] | active[1::2]) & (np.maximum(first, second) <= _LEVEL * np.minimum(first, second))
        tone = self._tones(frames.reshape(count // 2, -1), level).repeat(2) & active
        self._powers.append(power)
        self._speech += (active & ~tone).tobytes()
        self._tone += tone.tobytes()

    def speech_s(self, start_s: float, end_s: float) -> float:
        """Return the seconds of speech between two moments that were heard already, in whole pairs of frames."""
        first, last = np.ceil(start_s / (2 * FRAME_S) - 1e-6), np.floor(end_s / (2 * FRAME_S) + 1e-6)
        return self._speech.count(1, 2 * int(first), 2 * int(last)) * FRAME_S

    def finish(self) -> ChannelSpeech:
        """Return what was found from the beginning to here."""
        power = np.concatenate([np.zeros(0), *self._powers])
        speech, tone = (np.frombuffer(bytes(flags), bool) for flags in (self._speech, self._tone))
        level_dbfs = snr_db = bandwidth_hz = None
        if speech.sum() >= _FEWEST_FRAMES:
            loud = float(power[speech].mean())
            level_dbfs, bandwidth_hz = 10 * float(np.log10(loud)), self._bandwidth_hz()
            quiet = power[~speech & ~tone & (power > _NOTHING)]
            if len(quiet) >= _FEWEST_FRAMES:
                noise = float(np.median(quiet))
                snr_db = 10 * float(np.log10(max(loud - noise, 1e-3 * noise) / noise))
        return ChannelSpeech(speech, tone, level_dbfs, snr_db, bandwidth_hz)

    def _detectable(self, frames: NDArray[np.float32]) -> tuple[bytes, int]:
        """Return frames as 16 bits at a rate that the detector knows, and the bytes of each."""
        if self._detector_rate != self._rate:  # each frame by itself: what is lost at its ends does not matter here
            frames = scipy.signal.resample(frames, round(self._detector_rate * FRAME_S), axis=1)
        whole = np.clip(frames * 32_768.0, -32_768, 32_767).astype(np.int16)
        return whole.tobytes(), 2 * whole.shape[1]

    def _tones(self, pairs: NDArray[np.float32], level: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the level pairs of frames are tones, and add the spectrum of the others to the channel's.

        A single frame is too short to tell the two sinusoids of a dial tone from each other.
        """
        shape = scipy.fft.rfft(pairs[level] * self._window, axis=1)
        spectrum = np.square(shape.real) + np.square(shape.imag)
        total, highest = spectrum.sum(axis=1), spectrum.max(axis=1, initial=0.0)
        simple = np.flatnonzero(highest > _SIMPLE * total)
        pure, peaks = self._two_peaks(spectrum[simple], total[simple])
        numbers = np.flatnonzero(level)[simple[pure]]
        whole = np.full((_STEADY - 1 + len(pairs), len(_PEAK)), np.nan)
        whole[: _STEADY - 1] = self._peaks
        whole[_STEADY - 1 + numbers] = peaks
        self._peaks = whole[len(whole) - (_STEADY - 1) :]
        moved = [np.abs(peaks - whole[_STEADY - 1 + numbers - back]) for back in range(1, _STEADY)]
        steady = [(each[:, :2] <= _SAME_HZ).all(axis=1) & (each[:, 2] <= _SAME_DB) for each in moved]
        tone = np.zeros(len(pairs), bool)
        tone[numbers] = np.logical_and.reduce(steady) | _is_dtmf(peaks)
        # Row by row, as numpy adds along the first axis: the same sum however the sound is cut.
        self._spectrum = np.concatenate([self._spectrum, spectrum[~tone[level]]]).sum(axis=0, keepdims=True)
        return tone

    def _two_peaks(
        self, spectrum: NDArray[np.float32], total: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return which spectra hold next to nothing but one or two peaks, and these, see `_PEAK`."""
        rows, bins, left = np.arange(len(spectrum)), spectrum.shape[1], spectrum.copy()
        at, energy = [], []
        for _ in range(2):
            at.append(left.argmax(axis=1))
            near = (rows[:, np.newaxis], np.clip(at[-1][:, np.newaxis] + _LOBE, 0, bins - 1))
            # The lobe at an end of the spectrum meets its last bin more than once.
            energy.append(np.minimum(left[near].sum(axis=1, dtype=np.float64), total))
            left[near] = 0
        pure = np.flatnonzero(energy[0] + energy[1] > _PURE * total)
        first, second = (self._exact_hz(spectrum, pure, each[pure]) for each in at)
        more, less = energy[0][pure], energy[1][pure]
        # What a window leaks beside a single sinusoid is no second one.
        second = np.where(less < 1e-3 * more, first, second)
        low, high = np.minimum(first, second), np.maximum(first, second)
        return pure, np.stack([low, high, 10 * np.log10(total[pure]), more / (less + 1e-30)], axis=1)

    def _exact_hz(
        self, spectrum: NDArray[np.float32], rows: NDArray[np.int64], at: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the frequencies of peaks between the bins: a parabola through the logarithms of three of them."""
        at = np.clip(at, 1, spectrum.shape[1] - 2)
        below, top, above = (np.log(spectrum[rows, at + step].astype(np.float64) + 1e-30) for step in (-1, 0, 1))
        curve = below - 2 * top + above
        offset = np.where(curve < 0, 0.5 * (below - above) / np.where(curve < 0, curve, 1.0), 0.0)
        exact: NDArray[np.float64] = (at + np.clip(offset, -0.5, 0.5)) * self._hz[1]
        return exact

    def _bandwidth_hz(self) -> float:
        level = 10 * np.log10(self._spectrum[0] + 1e-30)
        smooth = np.convolve(level, np.ones(9) / 9, mode="same")
        return float(self._hz[np.flatnonzero(smooth >= smooth.max() - _BAND_DB)[-1]])


def _is_dtmf(peaks: NDArray[np.float64]) -> NDArray[np.bool_]:
    low, high, _, twist = peaks.T
    near = [
        np.min([np.abs(hz - known) - _DTMF_SHARE * known for known in group], axis=0) <= _DTMF_HZ
        for hz, group in ((low, _DTMF_LOW_HZ), (high, _DTMF_HIGH_HZ))
    ]
    found: NDArray[np.bool_] = near[0] & near[1] & (twist <= _DTMF_TWIST)
    return found
