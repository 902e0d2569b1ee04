"""Copies of a recording: other voices to learn from, other channels to learn from and to be judged on.

A copy follows its original: it keeps the utterance's name, so no split ever parts the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emolib.config import CLEAN
from emolib.errors import SettingsError
from emolib.sound import audio, telephone
from emolib.storage import AnyPath

Use: TypeAlias = Literal["training", "judging"]


@dataclass(frozen=True, slots=True)
class Variant:
    """A kind of copy.

    Attributes
    ----------
    about
        One line that says what it is.
    use
        ``training``: learnt from, never judged on. ``judging``: the other way round.
    speed
        As how many times as fast the recording is played; pitch and formants move with it.
    condition
        The telephone channel that it goes through (see `emolib.sound.telephone`), or None.
    """

    about: str
    use: Use
    speed: float = 1.0
    condition: str | None = None

    @property
    def keeps_gender(self) -> bool:
        """Whether the voice is still that of a woman or a man: their vocal tracts differ by about 15 % in length."""
        return abs(self.speed - 1.0) < 0.1

    def sampling_rate(self, rate: int) -> int:
        """Return at which rate to read a recording, in Hz, so that played at ``rate`` it has its speed."""
        return round(rate / self.speed)


def _voice(speed: float) -> Variant:
    return Variant(f"played at {speed:.2f} of the speed: another voice", "training", speed=speed)


# Virtual speakers: Ko, Peddinti, Povey and Khudanpur 2015, "Audio augmentation for speech recognition", went to 10 %.
_VOICES = {f"speed{round(100 * speed)}": _voice(speed) for speed in (0.86, 0.93, 1.07, 1.15)}
_TELEPHONES = {"telephone": Variant(telephone.CONDITIONS["telephone"], "training", condition="telephone")} | {
    name.replace("speed", "telephone"): Variant(
        f"{voice.about}, on the telephone", "training", voice.speed, "telephone"
    )
    for name, voice in _VOICES.items()
}
_CHANNELS = {
    name: Variant(about, "judging", condition=name)
    for name, about in telephone.CONDITIONS.items()
    if name not in _TELEPHONES
}
VARIANTS: dict[str, Variant] = {**_VOICES, **_TELEPHONES, **_CHANNELS}
"""Every kind of copy by its name."""

GROUPS: dict[str, tuple[str, ...]] = {
    "voices": tuple(_VOICES),
    "telephones": tuple(_TELEPHONES),
    "noise": tuple(name for name in _CHANNELS if name.startswith("noise")),
    "channels": tuple(_CHANNELS),
}
"""Short names for several of them: other voices; all voices on the telephone; noises; all channels to be judged on."""


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Return the variants that some names of variants and groups stand for, each once, in the order of `VARIANTS`.

    Raises
    ------
    SettingsError
        If a name is unknown.

    Examples
    --------
    >>> expand(["noise", "speed93"])
    ('speed93', 'noise20', 'noise10', 'noise5')
    """
    wanted: set[str] = set()
    for name in names:
        if name not in VARIANTS and name not in GROUPS:
            raise SettingsError(f"variant {name!r} found, expected some of {', '.join([*GROUPS, *VARIANTS])}")
        wanted |= set(GROUPS.get(name, (name,)))
    return tuple(name for name in VARIANTS if name in wanted)


def used_for(variant: str, use: Use) -> bool:
    """Return whether a variant is learnt from, or judged on; the clean recording is both.

    Examples
    --------
    >>> used_for("clean", "training"), used_for("speed93", "judging"), used_for("noise10", "judging")
    (True, False, True)
    """
    return variant == CLEAN or VARIANTS[variant].use == use


def learnt_copies(variants: Iterable[str]) -> tuple[str, ...]:
    """Return which of some variants are copies to learn from, each once, in the order of `VARIANTS`.

    Examples
    --------
    >>> learnt_copies(["noise10", "telephone", "clean", "speed93", "telephone"])
    ('speed93', 'telephone')
    """
    present = set(variants)
    return tuple(name for name, kind in VARIANTS.items() if name in present and kind.use == "training")


def read(source: AnyPath, variant: str, *, sampling_rate: int, name: str) -> tuple[NDArray[np.float32], audio.Audio]:
    """Read a recording as one of its variants.

    Parameters
    ----------
    source
        A path or an fsspec URL.
    sampling_rate
        Rate of the signal in Hz.
    name
        Of the utterance: what is random in a channel depends on it and the variant alone.

    Returns
    -------
    signal
        float32 ``(sample,)``, its channels mixed.
    decoded
        The recording that it was made from.

    Raises
    ------
    AudioError
        If it can't be decoded.
    """
    if variant == CLEAN:
        decoded = audio.read(source, sampling_rate=sampling_rate)
        return _mixed(decoded.signal), decoded
    kind = VARIANTS[variant]
    decoded = audio.read(source, sampling_rate=kind.sampling_rate(sampling_rate))
    signal = _mixed(decoded.signal)
    if kind.condition is not None:
        seed = int.from_bytes(hashlib.blake2b(f"{variant}/{name}".encode(), digest_size=8).digest(), "little")
        signal = telephone.through(kind.condition, signal, sampling_rate=sampling_rate, seed=seed)
    return signal, decoded


def _mixed(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    mixed: NDArray[np.float32] = signal.mean(axis=0) if len(signal) > 1 else signal[0]
    return mixed
