"""Other libraries' MFCCs, with the settings of a front end as far as they take them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emolib.config import MfccConfig

Kernel: TypeAlias = Callable[[NDArray[np.float32]], object]


class Peer(NamedTuple):
    """A library: what makes its function for a front end, and how its work differs from ours."""

    make: Callable[[MfccConfig], Kernel]
    note: str


def make(peer: Peer, config: MfccConfig) -> Kernel | None:
    """Return a peer's function from a channel to MFCCs, or None where the library is not installed."""
    try:
        return peer.make(config)
    except (ImportError, OSError):  # OSError: installed, but its shared library can't be loaded
        return None


def _librosa(config: MfccConfig) -> Kernel:
    from tests.benchmarks import plain

    return lambda signal: plain.mfcc(signal, config)


def _python_speech_features(config: MfccConfig) -> Kernel:
    import python_speech_features

    def kernel(signal: NDArray[np.float32]) -> object:
        return python_speech_features.mfcc(
            signal,
            config.sampling_rate,
            winlen=config.n_fft / config.sampling_rate,
            winstep=config.hop_length / config.sampling_rate,
            numcep=config.n_mfcc,
            nfilt=config.n_mels,
            nfft=config.n_fft,
            lowfreq=config.fmin,
            highfreq=config.highest_frequency,
            preemph=0,
            ceplifter=0,
            appendEnergy=False,
            winfunc=np.hanning,
        )

    return kernel


def _kaldi_native_fbank(config: MfccConfig) -> Kernel:
    import kaldi_native_fbank

    options = kaldi_native_fbank.MfccOptions()
    frames, mels = options.frame_opts, options.mel_opts
    frames.samp_freq = config.sampling_rate
    # A little more than the length, which is cut to whole samples.
    frames.frame_length_ms = 1000 * config.n_fft / config.sampling_rate + 1e-4
    frames.frame_shift_ms = 1000 * config.hop_length / config.sampling_rate + 1e-4
    frames.window_type = "hanning"
    frames.dither, frames.preemph_coeff, frames.remove_dc_offset = 0, 0, False
    frames.snip_edges = True
    mels.num_bins, mels.low_freq, mels.high_freq = config.n_mels, config.fmin, config.highest_frequency
    mels.is_librosa = True
    options.num_ceps, options.use_energy, options.cepstral_lifter = config.n_mfcc, False, 0

    def kernel(signal: NDArray[np.float32]) -> object:
        stream = kaldi_native_fbank.OnlineMfcc(options)
        stream.accept_waveform(config.sampling_rate, signal)
        stream.input_finished()
        return np.stack([stream.get_frame(number) for number in range(stream.num_frames_ready)])

    return kernel


# The components of openSMILE's own config/mfcc/MFCC12_0_D_A.conf without the deltas; its Python package brings sets in
# which MFCCs are a few among many features, and takes configurations of one's own.
_SMILE = r"""
[componentInstances:cComponentManager]
instance[dataMemory].type = cDataMemory
instance[framer].type = cFramer
instance[windower].type = cWindower
instance[fft].type = cTransformFFT
instance[magnitude].type = cFFTmagphase
instance[melspec].type = cMelspec
instance[mfcc].type = cMfcc
nThreads = 1
printLevelStats = 0

\{{\cm[source{{?}}:include external source]}}

[framer:cFramer]
reader.dmLevel = wave
writer.dmLevel = frames
frameMode = fixed
frameSize = {frame_s:.9f}
frameStep = {step_s:.9f}
frameCenterSpecial = left
noPostEOIprocessing = 1

[windower:cWindower]
reader.dmLevel = frames
writer.dmLevel = windowed
winFunc = han

[fft:cTransformFFT]
reader.dmLevel = windowed
writer.dmLevel = fft

[magnitude:cFFTmagphase]
reader.dmLevel = fft
writer.dmLevel = magnitude

[melspec:cMelspec]
reader.dmLevel = magnitude
writer.dmLevel = melspec
nBands = {mels}
lofreq = {fmin}
hifreq = {fmax}
usePower = 1
htkcompatible = 0

[mfcc:cMfcc]
reader.dmLevel = melspec
writer.dmLevel = lld
firstMfcc = 0
lastMfcc = {last}
cepLifter = 0
htkcompatible = 0

\{{\cm[sink{{?}}:include external sink]}}
"""


def _opensmile(config: MfccConfig) -> Kernel:
    import opensmile

    text = _SMILE.format(
        frame_s=config.n_fft / config.sampling_rate,
        step_s=config.hop_length / config.sampling_rate,
        mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.highest_frequency,
        last=config.n_mfcc - 1,
    )
    folder = tempfile.TemporaryDirectory()
    place = Path(folder.name) / "mfcc.conf"
    place.write_text(text)
    smile: Any = opensmile.Smile(str(place), feature_level="lld", sampling_rate=config.sampling_rate)

    def kernel(signal: NDArray[np.float32], _kept: object = folder) -> object:  # it reads the file at every call
        return smile(signal, config.sampling_rate)

    return kernel


PEERS = {
    "librosa": Peer(_librosa, "librosa.feature.mfcc(y=…) takes no amin and no top_db: its own are 1e-10 and 80 dB."),
    "python_speech_features": Peer(
        _python_speech_features, "python_speech_features computes in float64, never centred, with its own mel scale."
    ),
    "kaldi-native-fbank": Peer(
        _kaldi_native_fbank, "kaldi-native-fbank: frames never centred; its interface hands out frame by frame."
    ),
    "openSMILE": Peer(
        _opensmile,
        "openSMILE: the components of its MFCC set with our settings, on its mel scale, never centred; called through "
        "the shortest door of its Python package.",
    ),
}
