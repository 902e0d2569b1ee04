"""Settings: frozen, validated, and with a fingerprint that says whether two results may be combined."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, model_validator

from emolib.errors import SettingsError


class Settings(BaseModel):
    """The base of all settings: immutable, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MfccConfig(Settings):
    """How a signal becomes MFCCs.

    The fields have the names and the meaning of `librosa.feature.melspectrogram` and `librosa.power_to_db`;
    frequencies are in Hz, lengths in samples. ``feature_version`` is raised whenever the numbers change.
    """

    kind: Literal["mfcc"] = "mfcc"
    sampling_rate: int = Field(ge=1000, le=192_000)
    n_fft: int = Field(ge=16)
    hop_length: int = Field(ge=1)
    n_mels: int = Field(ge=1)
    n_mfcc: int = Field(ge=1)
    fmin: float = Field(default=0.0, ge=0)
    fmax: float | None = None
    center: bool = False
    amin: float = Field(default=1e-10, gt=0)
    top_db: float | None = Field(default=None, gt=0)
    feature_version: int = 1

    @model_validator(mode="after")
    def _consistent(self) -> MfccConfig:
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc is {self.n_mfcc}, expected at most n_mels = {self.n_mels}")
        if not self.fmin < self.highest_frequency <= self.sampling_rate / 2:
            raise ValueError(f"fmax is {self.fmax} Hz, expected above fmin = {self.fmin} and at most half the rate")
        return self

    @property
    def highest_frequency(self) -> float:
        """The upper edge of the mel bank in Hz: ``fmax``, or half the sampling rate."""
        return self.sampling_rate / 2 if self.fmax is None else self.fmax


# The union of all kinds, told apart by `kind`. A new kind is a class beside MfccConfig, joined here with `|` and
# `Field(discriminator="kind")`, and a kernel in `emolib.features.windows`.
FeatureConfig: TypeAlias = MfccConfig


class WindowConfig(Settings):
    """How a signal is cut into the windows that the model sees.

    Parameters
    ----------
    duration_s
        Length of a window in seconds, at least 0.4: shorter sound is not judged.
    hop_s
        Distance between the starts of two windows in seconds; None: a recording has one window, its first.
    pad
        What fills up a window that is longer than its sound: zeros or the median of that sound.
    """

    duration_s: float = Field(ge=0.4)
    hop_s: float | None = Field(default=None, gt=0)
    pad: Literal["zero", "median"] = "zero"


class Profile(Settings):
    """A named choice of features and windows.

    ``max_duration_s`` makes longer clips of a corpus `length_outlier`; None keeps them all.
    """

    name: str
    features: FeatureConfig
    windows: WindowConfig
    max_duration_s: float | None = None

    @property
    def fingerprint(self) -> str:
        """The feature fingerprint: two stores with the same one hold comparable numbers."""
        return fingerprint(self.fingerprinted())

    def fingerprinted(self) -> dict[str, Any]:
        """Return the settings that change the numbers of a row: not the name, not the hop between windows."""
        return {
            "features": self.features.model_dump(mode="json"),
            "windows": self.windows.model_dump(mode="json", include={"duration_s", "pad"}),
        }


# 120,772 samples at 44.1 kHz are the mean length of the article's clips; they give its 236 centred frames.
ARTICLE = Profile(
    name="article",
    features=MfccConfig(
        sampling_rate=44_100, n_fft=2048, hop_length=512, n_mels=128, n_mfcc=20, center=True, top_db=80.0
    ),
    windows=WindowConfig(duration_s=120_772 / 44_100, pad="median"),
    max_duration_s=7.0,
)
# 32 ms frames every 16 ms. 40 coefficients keep what 20 lose, and the floor lies so low that quiet clips lose nothing
# to it: at 1e-7 the default network told RAVDESS's emotions 6 points worse (tests/benchmarks/experiments.md). 4 s hold
# most clips of the corpora whole. `telephone` looks at what a telephone lets pass, so that a model does not lean on
# what calls lack: that costs 4 points on studio recordings, and calls are told as well as those.
TELEPHONE = Profile(
    name="telephone",
    features=MfccConfig(sampling_rate=8000, n_fft=256, hop_length=128, n_mels=40, n_mfcc=40, fmin=200.0, fmax=3600.0),
    windows=WindowConfig(duration_s=4.0, hop_s=2.0),
)
WIDEBAND = Profile(
    name="wideband",
    features=MfccConfig(sampling_rate=16_000, n_fft=512, hop_length=256, n_mels=64, n_mfcc=40, fmin=50.0),
    windows=WindowConfig(duration_s=4.0, hop_s=2.0),
)
PROFILES = {profile.name: profile for profile in (TELEPHONE, WIDEBAND, ARTICLE)}


def profile(name: str) -> Profile:
    """Return a profile by its name.

    Raises
    ------
    SettingsError
        If there is no profile of that name.
    """
    if name not in PROFILES:
        raise SettingsError(f"profile {name!r} found, expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


DECODING_VERSION = 2
"""Raised whenever other samples may come out of a file: what was begun with another version is not continued."""

CLEAN = "clean"
"""Among the variants of an utterance (see `emolib.sound.variants`), the recording as it is: every store has it."""

Role: TypeAlias = Literal["agent", "customer", "mixed"]
Direction: TypeAlias = Literal["inbound", "outbound"]


# How many bytes of each encoding make how many samples.
_UNITS = {
    "ulaw": (1, 1),
    "alaw": (1, 1),
    "u8": (1, 1),
    "s16le": (2, 1),
    "s16be": (2, 1),
    "vox": (1, 2),
    "gsm": (33, 160),
    "g722": (1, 2),
    "g726": (1, 2),
    "g726le": (1, 2),
    "g729": (10, 80),
}
_ONE_RATE = {"gsm": 8000, "g722": 16_000, "g726": 8000, "g726le": 8000, "g729": 8000}


class HeaderlessFormat(Settings):
    """What a file without a header holds; nothing in it says so.

    Parameters
    ----------
    encoding
        As telephone systems call them; ``vox`` is Dialogic ADPCM, ``g726`` and ``g726le`` are 32 kbit/s with the first
        sample in the high or in the low half of a byte.
    sampling_rate
        In Hz; 8000 where it is not said, and 16000 for ``g722``.
    channels
        Number of interleaved channels; ADPCM, GSM and the G.72x have one.
    """

    encoding: Literal["ulaw", "alaw", "gsm", "s16le", "s16be", "u8", "vox", "g722", "g726", "g726le", "g729"]
    sampling_rate: int = Field(default=8000, ge=1000, le=192_000)
    channels: int = Field(default=1, ge=1, le=32)

    @model_validator(mode="before")
    @classmethod
    def _own_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("encoding") in _ONE_RATE:
            return {"sampling_rate": _ONE_RATE[values["encoding"]]} | values
        return values

    @model_validator(mode="after")
    def _consistent(self) -> HeaderlessFormat:
        rate = _ONE_RATE.get(self.encoding, self.sampling_rate)
        if self.sampling_rate != rate:
            raise ValueError(f"{self.encoding} at {self.sampling_rate} Hz found, expected {rate}")
        if self.channels > 1 and (self.encoding in _ONE_RATE or self.encoding == "vox"):
            raise ValueError(f"{self.encoding} with {self.channels} channels found, expected 1")
        return self

    def frames(self, size: int) -> int:
        """Return how many samples of each channel a number of bytes holds.

        Examples
        --------
        >>> HeaderlessFormat(encoding="s16le", channels=2).frames(4001)
        1000
        """
        bytes_, samples = _UNITS[self.encoding]
        return size // (bytes_ * self.channels) * samples


class KnownAudioFile(Settings):
    """A file of known audio (see `emolib.sound.known_audio`): where it lies, and the hash of what it must hold."""

    path: str
    known_audio_id: str


class ScoringConfig(Settings):
    """What changes the rows of a prediction beside the features and the model.

    Parameters
    ----------
    hop_s
        Distance between the starts of two windows in seconds; None takes the model's own, or the length of its windows
        where it has none.
    channels
        Role of each 0-based channel; empty: roles are not known.
    channels_by_direction
        The same for recordings of calls of a direction, in place of `channels`.
    roles
        The roles that are scored; empty: customers once roles are known, everybody before.
    min_level_dbfs
        A moment whose RMS level lies below is silence, whoever may be heard in it.
    min_speech_s
        A window with fewer seconds of speech is not scored (see `emolib.sound.speech`); one that is too short for
        it must be full of speech.
    expose_gender
        Keep the gender in the labels of a task that has it (`emotion2`).
    headerless
        By suffix, in lower case and with its dot (empty: a name without one), the format of files without a header.
    max_gap_s
        Seconds; a gap between the time stamps of a recording is filled with silence unless it is longer.
    priors
        Share of each emotion in the archive, for which the probabilities are corrected (see `emolib.learning.priors`);
        empty: they stay as the model gives them. They are given and never estimated while scoring: what a window gets
        must not depend on what else lies in the archive.
    known_audio
        Hold music and announcements, which are no speech; a file that was made before, for the same reason.
    """

    hop_s: float | None = Field(default=None, gt=0, le=86_400)
    channels: dict[int, Role] = {}
    channels_by_direction: dict[Direction, dict[int, Role]] = {}
    roles: tuple[Role, ...] = ()
    min_level_dbfs: float = Field(default=-60.0, le=0)
    min_speech_s: float = Field(default=0.4, ge=0)
    expose_gender: bool = False
    headerless: dict[str, HeaderlessFormat] = {}
    max_gap_s: float = Field(default=3600.0, ge=0, le=7 * 86_400)
    priors: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    known_audio: KnownAudioFile | None = None

    @property
    def scored_roles(self) -> tuple[Role, ...] | None:
        """The roles to score, or None where roles are not known and every channel is scored."""
        if not self.channels and not self.channels_by_direction:
            return None
        return self.roles or ("customer",)


# However slow a machine is, sound is worked on at many times the speed at which it was spoken.
_SLOWEST = 10.0


class Limits(Settings):
    """What a recording may cost before it is given up; changes no row of the others.

    Parameters
    ----------
    recording_s
        Seconds; a long recording may take a tenth of its duration where that is more.
    recording_memory
        Memory that its process may ask for beyond what it holds before, such as ``"2GiB"`` (on Linux).
    """

    recording_s: float = Field(default=300.0, gt=0, le=7 * 86_400)
    recording_memory: ByteSize = Field(default=ByteSize(2 * 2**30), ge=2**28, le=2**50)

    def seconds_for(self, duration_s: float) -> float:
        """Return how long a recording of some duration may take.

        Examples
        --------
        >>> Limits().seconds_for(60.0), Limits().seconds_for(7200.0)
        (300.0, 720.0)
        """
        return max(self.recording_s, duration_s / _SLOWEST)


def parse_headerless(text: str) -> dict[str, HeaderlessFormat]:
    """Return the formats of headerless files by suffix, from ``suffix=encoding[:rate[:channels]]``, joined by commas.

    Nothing before the ``=`` stands for names without a suffix.

    Raises
    ------
    SettingsError
        If the text is spelt otherwise, a suffix comes twice, or a format is none.

    Examples
    --------
    >>> formats = parse_headerless(".ulaw=ulaw,.raw=s16le:16000:2")
    >>> formats[".ulaw"]
    HeaderlessFormat(encoding='ulaw', sampling_rate=8000, channels=1)
    >>> formats[".raw"].channels
    2
    """
    formats: dict[str, HeaderlessFormat] = {}
    for part in text.split(","):
        spelt = re.fullmatch(r"\s*(\.[^.=:\s]+)?=(\w+)(?::(\d+)(?::(\d+))?)?\s*", part)
        if spelt is None:
            found = f"headerless format {part.strip()!r} found"
            raise SettingsError(f"{found}, expected suffix=encoding[:rate[:channels]], such as .raw=ulaw:8000:2")
        suffix, encoding, rate, channels = spelt.groups()
        suffix = (suffix or "").lower()
        if suffix in formats:
            raise SettingsError(f"two headerless formats for the suffix {suffix!r} found, expected one; leave one out")
        values = {"encoding": encoding, "sampling_rate": rate, "channels": channels}
        try:
            formats[suffix] = parse(HeaderlessFormat, {name: value for name, value in values.items() if value})
        except SettingsError as error:
            raise SettingsError(f"headerless format {part.strip()!r}: {error}") from error
    return formats


_S = TypeVar("_S", bound=Settings)


def parse(cls: type[_S], values: Mapping[str, Any]) -> _S:
    """Validate stored or typed values as settings of a class.

    Raises
    ------
    SettingsError
        If a value is missing, unknown or not valid; one line that names each.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or cls.__name__}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"settings are not valid: {wrong}") from error


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return 64 bits of a hash over settings, as hex; equal settings give equal fingerprints on every machine.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Say in one line where two nested settings differ, or an empty string where they do not.

    Examples
    --------
    >>> differences({"features": {"n_mfcc": 40}}, {"features": {"n_mfcc": 20}})
    'features.n_mfcc is 40, expected 20'
    """
    flat_found, flat_expected = dict(_flat(found)), dict(_flat(expected))
    names = sorted(flat_found.keys() | flat_expected.keys())
    return "; ".join(
        f"{name} is {flat_found.get(name, 'absent')}, expected {flat_expected.get(name, 'absent')}"
        for name in names
        if flat_found.get(name, _ABSENT) != flat_expected.get(name, _ABSENT)
    )


_ABSENT = object()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
