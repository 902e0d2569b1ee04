"""What the codecs of telephone networks make of speech: there and back, at 8 kHz.

Every function takes and gives a signal float32 ``(sample,)`` at 8 kHz, within [-1, 1], of one length, and without a
delay. libsndfile carries G.711 [1]_ and GSM 06.10 [2]_, FFmpeg carries Opus [3]_.

References
----------
.. [1] ITU-T G.711, "Pulse code modulation (PCM) of voice frequencies", 1988.
.. [2] ETSI EN 300 961, "Full rate speech; Transcoding (GSM 06.10)", 2000.
.. [3] J.-M. Valin, K. Vos, T. Terriberry, "Definition of the Opus audio codec", RFC 6716, 2012.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Literal, cast

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from emolib.sound.audio import resample

__all__ = ["RATE", "alaw", "gsm", "opus", "ulaw", "wav"]

RATE = 8000  # Hz
_PACKET = 160  # samples: 20 ms, a frame of GSM and of Opus
_OPUS_RATE = 48_000  # Hz; FFmpeg decodes Opus at no other
_OPUS_BITS_PER_S = 10_000
# Of 0 to 10. Speech correlates 0.946 with the original at 2, and 0.952 at 10, which takes half as long again.
_OPUS_COMPLEXITY = 2


def ulaw(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what 64 kbit/s G.711 µ-law leaves of a signal.

    Examples
    --------
    >>> (32_768 * ulaw(np.array([0, 0.1, 1], np.float32))).tolist()
    [0.0, 3260.0, 32124.0]
    """
    return _level(signal, "ULAW")


def alaw(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what 64 kbit/s G.711 A-law leaves of a signal; it has no level for silence.

    Examples
    --------
    >>> (32_768 * alaw(np.array([0, 0.1, 1], np.float32))).tolist()
    [8.0, 3264.0, 32256.0]
    """
    return _level(signal, "ALAW")


def gsm(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what 13 kbit/s GSM 06.10 full rate leaves of a signal.

    Examples
    --------
    >>> gsm(np.zeros(1000, np.float32)).shape
    (1000,)
    """
    return _through_file(_packets(signal), "GSM610")[: len(signal)]


def opus(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what narrowband Opus for speech, 10 kbit/s on average, leaves of a signal.

    Examples
    --------
    >>> opus(np.zeros(1000, np.float32)).shape
    (1000,)
    """
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.bit_rate = _OPUS_BITS_PER_S
    encoder.options = {"application": "voip", "frame_duration": "20", "compression_level": str(_OPUS_COMPLEXITY)}
    packets = []
    # The encoder looks ahead: the packet that holds the last samples is made when one more comes.
    for number, words in enumerate(np.pad(_packets(signal), (0, _PACKET)).reshape(-1, 1, _PACKET)):
        frame = av.AudioFrame.from_ndarray(words, format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, number * _PACKET
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("opus", "r")
    decoder.extradata = encoder.extradata  # says how many samples the encoder put in front; the decoder drops them
    frames = [frame.to_ndarray()[0] for packet in [*packets, None] for frame in decoder.decode(packet)]
    decoded = resample(np.concatenate(frames), source_rate=_OPUS_RATE, target_rate=RATE)
    return np.clip(decoded[: len(signal)], -1, 1)


def wav(signal: NDArray[np.float32], encoding: Literal["ulaw", "alaw"]) -> bytes:
    """Return a recording ``(channel, sample)`` as a WAV file of G.711; the same signal gives the same bytes.

    Examples
    --------
    >>> len(wav(np.zeros((2, 8000), np.float32), "alaw"))
    16058
    """
    file = io.BytesIO()
    soundfile.write(file, _words(signal).T, RATE, format="WAV", subtype=encoding.upper())
    return file.getvalue()


def _words(signal: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.round(32_768 * signal), -32_768, 32_767).astype(np.int16)


def _packets(signal: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return 16-bit samples, filled up with silence to whole packets."""
    return np.pad(_words(signal), (0, -len(signal) % _PACKET))


def _level(signal: NDArray[np.float32], subtype: str) -> NDArray[np.float32]:
    return _levels(subtype).take(_words(signal).view(np.uint16).astype(np.intp))


@cache
def _levels(subtype: str) -> NDArray[np.float32]:
    """Return, for each 16-bit sample in the order of its bits, the level that µ-law or A-law gives it."""
    return _through_file(np.arange(2**16, dtype=np.uint16).view(np.int16), subtype)


def _through_file(words: NDArray[np.int16], subtype: str) -> NDArray[np.float32]:
    file = io.BytesIO()
    soundfile.write(file, words, RATE, format="RAW", subtype=subtype)
    file.seek(0)
    signal, _ = soundfile.read(file, dtype="float32", samplerate=RATE, channels=1, format="RAW", subtype=subtype)
    return cast("NDArray[np.float32]", signal)
