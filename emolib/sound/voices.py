"""Seeded voices: glottal pulses through formant resonators, with emotional prosody.

Speech is made as the source-filter theory explains it [1]_: a train of glottal pulses [2]_ and noise excite a cascade
of resonators, whose parameters move from frame to frame as in Klatt's synthesiser [3]_. Vowels have the formants that
Peterson and Barney measured [4]_, scaled by the length of the speaker's vocal tract. An emotion moves pitch, loudness,
tempo, spectral tilt and voice quality the way the literature found [5]_ [6]_; how far depends on the speaker and on the
utterance, so that emotions overlap as they do in life.

References
----------
.. [1] G. Fant, "Acoustic Theory of Speech Production", Mouton, 1960.
.. [2] A. E. Rosenberg, "Effect of glottal pulse shape on the quality of natural vowels", J. Acoust. Soc. Am. 49, 1971.
.. [3] D. H. Klatt, "Software for a cascade/parallel formant synthesizer", J. Acoust. Soc. Am. 67, 1980.
.. [4] G. E. Peterson, H. L. Barney, "Control methods used in a study of the vowels", J. Acoust. Soc. Am. 24, 1952.
.. [5] K. R. Scherer, "Vocal communication of emotion: a review of research paradigms", Speech Communication 40, 2003.
.. [6] I. R. Murray, J. L. Arnott, "Toward the simulation of emotion in synthetic speech", J. Acoust. Soc. Am. 93, 1993.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.sound import vocal_tract
from emolib.sound.vocal_tract import HOP, RATE


class Prosody(NamedTuple):
    """How an utterance is spoken, each value as a difference from the average neutral speaker.

    The differences add up: the speaker, the emotion and chance each have theirs.
    """

    pitch: float = 0.0  # f0 level, semitones
    pitch_range: float = 0.0  # f0 movements, octaves (1 doubles them)
    final: float = 0.0  # movement at the end of a phrase, semitones
    level: float = 0.0  # loudness, dB
    rate: float = 0.0  # tempo, octaves
    pause: float = 0.0  # length of pauses, octaves
    tilt: float = 0.0  # level at 4 kHz against low frequencies, dB
    tension: float = 0.0  # -1 lax to 1 pressed: how long the glottis is open, and how abruptly it closes
    breath: float = 0.0  # aspiration noise, dB
    roughness: float = 0.0  # jitter and shimmer, octaves
    tremor: float = 0.0  # 6 Hz movement of f0, semitones
    formants: float = 0.0  # all formants, octaves: a smile shortens the tract, rounded lips lengthen it
    precision: float = 0.0  # of articulation; negative draws the vowels to the centre


# Directions after Scherer (2003), table 2, and Murray and Arnott (1993), table I; sizes chosen so that a small network
# is right about unknown speakers in most cases, but not in all.
_EXPRESSIONS = {
    "neutral": Prosody(),
    "happiness": Prosody(
        pitch=4, pitch_range=0.7, final=2, level=4.5, rate=0.15, pause=-0.4, tilt=3.5, tension=0.3,
        formants=0.13, precision=0.1,
    ),
    "sadness": Prosody(
        pitch=-2, pitch_range=-0.8, final=-1.5, level=-6, rate=-0.4, pause=0.9, tilt=-7, tension=-0.7, breath=7,
        roughness=0.3, precision=-0.3,
    ),
    "anger": Prosody(
        pitch=3, pitch_range=0.5, final=-4, level=9, rate=0.2, pause=-0.5, tilt=7, tension=1, breath=-4,
        roughness=1, precision=0.2,
    ),
    "fear": Prosody(
        pitch=7, pitch_range=-0.3, final=0.5, level=-1, rate=0.5, tilt=2, tension=0.4, breath=5, roughness=1.3,
        tremor=0.7, precision=-0.1,
    ),
    "surprise": Prosody(
        pitch=6, pitch_range=1, final=8, level=2, rate=-0.1, pause=-0.4, tilt=-1, tension=-0.3, breath=4,
        formants=-0.09, precision=0.15,
    ),
}  # fmt: skip
EMOTIONS: tuple[str, ...] = tuple(_EXPRESSIONS)

# Standard deviations of neutral speech between speakers (whose pitch and tract vary besides), and of any between
# utterances of a speaker.
_SPEAKER_SPREAD = Prosody(
    pitch_range=0.2, final=0.7, level=1.5, rate=0.12, pause=0.3, tilt=2, tension=0.2, breath=2, roughness=0.3,
    tremor=0.05, precision=0.08,
)  # fmt: skip
_UTTERANCE_SPREAD = Prosody(
    pitch=0.8, pitch_range=0.2, final=0.8, level=2, rate=0.08, pause=0.3, tilt=1.2, tension=0.15, breath=1.5,
    roughness=0.2, tremor=0.05, formants=0.015, precision=0.06,
)  # fmt: skip

_SYLLABLES_PER_S = 4.6
_PAUSE_S = 0.22
_LEVEL_DBFS = -26.0  # RMS
_LEAD_S, _TAIL_S = 0.03, 0.05  # silence around an utterance, in which the resonators come to rest

# F1 to F3 in Hz of ten vowels, averages of men: beet bit bet bat father bought book boot but bird.
_VOWELS = np.array(
    [
        (270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
        (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690),
    ],
    dtype=np.float64,
)  # fmt: skip
_CENTRAL_VOWEL = np.array([500.0, 1500.0, 2500.0])
_HIGHER_FORMANTS = (3500.0, 4500.0)
_BANDWIDTHS = np.array([60.0, 90.0, 150.0, 250.0, 300.0])
# Voicing, noise while held, noise at the release, its frequency in Hz, and the F1 to F3 that it moves to.
_CONSONANTS = np.array(
    [
        (0.0, 0.30, 0.00, 5500, 350, 1700, 2600),  # s
        (0.0, 0.25, 0.00, 3000, 350, 1900, 2500),  # sh
        (0.0, 0.08, 0.00, 4500, 350, 1100, 2200),  # f
        (0.3, 0.12, 0.00, 5000, 300, 1700, 2600),  # z
        (0.0, 0.00, 0.25, 900, 300, 900, 2200),  # p
        (0.0, 0.00, 0.35, 4000, 300, 1750, 2700),  # t
        (0.0, 0.00, 0.30, 2000, 300, 2000, 2400),  # k
        (0.2, 0.00, 0.15, 3500, 250, 1700, 2600),  # d
        (0.5, 0.00, 0.00, 1000, 270, 1000, 2200),  # m
        (0.5, 0.00, 0.00, 1000, 350, 1050, 2800),  # l
    ]
)
# Where in a syllable these are reached: three times the consonant, its release, twice the vowel, the way to the next.
_KNOTS = np.array([0.0, 0.08, 0.26, 0.32, 0.45, 0.85, 0.96])


@dataclass(frozen=True, slots=True)
class Voice:
    """A synthetic speaker.

    Attributes
    ----------
    seed
        What the speaker is made from.
    gender
        'female' or 'male'.
    f0_hz
        Pitch of neutral speech in Hz.
    formant_scale
        Formants relative to an average man's: the shorter the vocal tract, the higher.
    habit
        How the speaker's neutral speech differs from the average.
    style
        How strongly the speaker uses each means of expression; 1 is average.
    """

    seed: int
    gender: Literal["female", "male"]
    f0_hz: float
    formant_scale: float
    habit: Prosody
    style: Prosody

    @property
    def speaker(self) -> str:
        """Name of the speaker; no two seeds share one."""
        return f"s{self.seed:012x}"


def generator(*seeds: int | str) -> np.random.Generator:
    """Return random numbers that depend on the seeds and their order alone.

    Examples
    --------
    >>> a, b = generator("noise", 1), generator("noise", 1)
    >>> bool(a.normal() == b.normal())
    True
    """
    digest = hashlib.blake2b("/".join(map(str, seeds)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def voice(speaker_seed: int) -> Voice:
    """Return the speaker of a seed: even seeds are women, odd seeds men.

    Examples
    --------
    >>> voice(2).gender, voice(3).gender
    ('female', 'male')
    """
    rng = generator("voice", speaker_seed)
    female = speaker_seed % 2 == 0
    chance = rng.standard_normal((2, len(Prosody._fields)))
    return Voice(
        seed=speaker_seed,
        gender="female" if female else "male",
        f0_hz=float((205 if female else 118) * 2 ** rng.normal(0, 2.2 / 12)),
        formant_scale=float((1.16 if female else 1.0) * 2 ** rng.normal(0, 0.05)),
        habit=Prosody(*(np.array(_SPEAKER_SPREAD) * chance[0]).tolist()),
        style=Prosody(*np.exp(0.25 * chance[1]).tolist()),
    )


def utterance(
    voice: Voice, emotion: str, *, seed: int, sampling_rate: int = RATE, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Let a voice speak nonsense syllables with an emotion.

    Parameters
    ----------
    voice
        Who speaks.
    emotion
        One of `EMOTIONS`.
    seed
        What is said, and how strongly; the same seed gives the same samples.
    sampling_rate
        In Hz. No sound lies above 8 kHz.
    duration_s
        Length in seconds; None: as long as six to ten syllables take, two seconds on average.

    Returns
    -------
    NDArray[np.float32]
        The signal `(sample,)`, within [-0.95, 0.95].

    Raises
    ------
    SettingsError
        If the emotion is unknown, or the sampling rate or the duration is out of range.

    Examples
    --------
    >>> utterance(voice(1), "anger", seed=0, sampling_rate=8000, duration_s=0.5).shape
    (4000,)
    """
    if emotion not in _EXPRESSIONS:
        raise SettingsError(f"emotion {emotion!r} found, expected one of {', '.join(EMOTIONS)}")
    if sampling_rate < 1000:
        raise SettingsError(f"a sampling rate of {sampling_rate} Hz found, expected at least 1000 Hz")
    if duration_s is not None and not 0.1 <= duration_s < np.inf:
        raise SettingsError(f"a duration of {duration_s} s found, expected at least 0.1 s")
    rng = generator("utterance", voice.seed, emotion, seed)
    expression = rng.uniform(0.8, 1.25) * np.array(voice.style) * np.array(_EXPRESSIONS[emotion])
    chance = np.array(_UTTERANCE_SPREAD) * rng.standard_normal(len(_UTTERANCE_SPREAD))
    prosody = Prosody(*(np.array(voice.habit) + expression + chance).tolist())
    text = _text(prosody, duration_s, rng)
    samples = vocal_tract.whole_length(text.duration_s, sampling_rate=sampling_rate)
    signal = _articulate(voice, prosody, text, _excite(voice, prosody, text, samples, rng), rng)
    signal = vocal_tract.resample(signal, sampling_rate=sampling_rate)[: round(text.duration_s * sampling_rate)]
    return (signal * min(1.0, 0.95 / float(np.abs(signal).max()))).astype(np.float32)


class _Text(NamedTuple):
    """What is said and when; arrays `(syllable,)`, each syllable a consonant and a vowel."""

    duration_s: float
    start_s: NDArray[np.float64]
    length_s: NDArray[np.float64]
    opens: NDArray[np.bool_]  # whether a phrase begins with the syllable
    closes: NDArray[np.bool_]  # whether a phrase ends with it
    place: NDArray[np.float64]  # in the phrase, up to 1
    stress: NDArray[np.float64]  # 0 to 1
    consonant: NDArray[np.float64]  # rows of the table
    vowel: NDArray[np.float64]


def _text(prosody: Prosody, duration_s: float | None, rng: np.random.Generator) -> _Text:
    rate = _SYLLABLES_PER_S * 2**prosody.rate
    count = int(rng.integers(6, 11)) if duration_s is None else int(2 * duration_s * rate) + 2
    length_s = np.exp(rng.normal(0, 0.2, count)) / rate
    closes = np.zeros(count, dtype=np.bool_)
    closes[np.cumsum(rng.integers(4, 9, count)).clip(max=count) - 1] = True
    pause_s = closes * _PAUSE_S * 2**prosody.pause * np.exp(rng.normal(0, 0.3, count))
    end_s = np.cumsum(length_s + pause_s) - pause_s
    if duration_s is None:
        duration_s = _LEAD_S + float(end_s[-1]) + _TAIL_S
    else:
        # As many syllables as fit, stretched to fill the time: none is cut off.
        speech_s = duration_s - _LEAD_S - _TAIL_S
        count = max(1, int(np.searchsorted(end_s, speech_s)))
        stretch = speech_s / end_s[count - 1]
        end_s, length_s, closes = stretch * end_s[:count], stretch * length_s[:count], closes[:count]
    closes[-1] = True
    opens = np.concatenate(([True], closes[:-1]))
    phrase = np.cumsum(opens) - 1
    return _Text(
        duration_s=duration_s,
        start_s=_LEAD_S + end_s - length_s,
        length_s=length_s,
        opens=opens,
        closes=closes,
        place=(np.arange(1, count + 1) - np.flatnonzero(opens)[phrase]) / np.bincount(phrase)[phrase],
        stress=rng.uniform(0, 1, count),
        consonant=_CONSONANTS[rng.integers(len(_CONSONANTS), size=count)],
        vowel=_VOWELS[rng.integers(len(_VOWELS), size=count)],
    )


def _track(text: _Text, targets: list[NDArray[np.float64]], times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate what a parameter is at each knot of a syllable, arrays `(syllable,)`, at the given times."""
    knots_s = text.start_s[:, None] + text.length_s[:, None] * _KNOTS
    return np.interp(times_s, knots_s.ravel(), np.stack(targets, axis=1).ravel())


def _excite(voice: Voice, prosody: Prosody, text: _Text, samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return what drives the vocal tract: the derivative of the glottal flow, and aspiration noise."""
    times_s = np.arange(samples, dtype=np.float64) / RATE
    movement = 2**prosody.pitch_range * (1.2 - 2.5 * text.place + 3 * (text.stress - 0.5))
    contour = prosody.pitch + movement + (prosody.final - 1) * text.place**4
    tremor = max(prosody.tremor, 0) * np.sin(2 * np.pi * (6 * times_s + rng.uniform()))
    semitones = np.interp(times_s, text.start_s + 0.65 * text.length_s, contour) + tremor
    f0 = np.clip(voice.f0_hz * 2 ** (semitones / 12), 50, 700)

    # Jitter and shimmer: every cycle has a length and a strength of its own.
    rough = 2**prosody.roughness
    cycle = np.cumsum(f0 / RATE).astype(np.int64)
    f0 *= np.clip(1 + 0.008 * rough * rng.standard_normal(cycle[-1] + 1), 0.7, 1.3)[cycle]
    position = np.cumsum(f0 / RATE)
    cycle = position.astype(np.int64)
    shimmer = np.clip(1 + 0.04 * rough * rng.standard_normal(cycle[-1] + 1), 0.3, 2)[cycle]
    flow = shimmer * vocal_tract.glottal_flow(
        position - cycle,
        open_share=float(np.clip(0.6 - 0.15 * prosody.tension, 0.3, 0.9)),
        closing_share=float(np.clip(0.27 - 0.1 * prosody.tension, 0.1, 0.5)),
    )
    pulses = np.diff(flow, prepend=0.0) * (RATE / f0)
    aspiration = np.diff(rng.standard_normal(samples), prepend=0.0) * (0.3 + flow)

    voiced = text.consonant[:, 0]
    loud = 0.6 + 0.4 * text.stress
    start, hold, end = np.where(text.opens, 0, loud * voiced), loud * voiced, np.where(text.closes, 0, 0.7 * loud)
    release, fading = loud * (1 + voiced) / 2, np.where(text.closes, 0.8 * loud, loud)
    amplitude = _track(text, [start, hold, hold, release, loud, fading, end], times_s)
    excitation: NDArray[np.float64] = amplitude * (pulses + 0.15 * 10 ** (prosody.breath / 20) * aspiration)
    return excitation


def _articulate(
    voice: Voice, prosody: Prosody, text: _Text, source: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Send the source through the moving vocal tract, add the noise of the consonants, and set the level."""
    times_s = np.arange(len(source), dtype=np.float64) / RATE
    frames_s = np.arange(0, len(source) + 1, HOP, dtype=np.float64) / RATE
    precision = float(np.clip(0.85 + prosody.precision, 0.3, 1.15))
    vowel = _CENTRAL_VOWEL + precision * (text.vowel - _CENTRAL_VOWEL)
    locus = text.consonant[:, 4:]
    onward = (vowel + np.concatenate((locus[1:], locus[-1:]))) / 2
    knots = np.stack([locus, locus, locus, (locus + vowel) / 2, vowel, vowel, onward])
    moving = [_track(text, list(knots[:, :, formant]), frames_s) for formant in range(knots.shape[2])]
    fixed = [np.full_like(frames_s, frequency) for frequency in _HIGHER_FORMANTS]
    scale = voice.formant_scale * 2**prosody.formants
    # The open glottis of a breathy voice damps the first formant most.
    damping = 1 + np.array([0.8, 0.3, 0.1, 0, 0]) * 10 ** (prosody.breath / 40)
    resonators = vocal_tract.resonator(scale * np.stack([*moving, *fixed]), (_BANDWIDTHS * damping)[:, None])
    resonators /= resonators.sum(axis=-1, keepdims=True)  # lets the lowest frequencies pass unchanged
    poles = vocal_tract.cascade(vocal_tract.tilt(prosody.tilt - 6), *resonators)
    speech = vocal_tract.moving_filter(source, zeros=np.ones((1, 1)), poles=poles)
    speech /= np.sqrt(np.mean(speech**2))

    none, (held, burst, centre) = np.zeros(len(locus)), text.consonant[:, 1:4].T
    noise = _track(text, [none, held, held, burst, none, none, none], times_s) * rng.standard_normal(len(source))
    centre = np.minimum(scale * _track(text, [centre] * len(_KNOTS), frames_s), 7000)
    band = vocal_tract.resonator(centre, 0.4 * centre)
    zeros = (band[:, :1] - band[:, 2:]) / 2 * np.array([1, 0, -1])  # a band-pass whose peak is 1
    brightness = 10 ** (float(np.clip(prosody.tilt, -8, 8)) / 40)
    speech += 3 * brightness * vocal_tract.moving_filter(noise, zeros=zeros, poles=band)
    return speech * 10 ** ((_LEVEL_DBFS + prosody.level) / 20)
