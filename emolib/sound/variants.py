"""Copies of a recording: through other channels, to learn from or to be judged on.

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
    condition
        The telephone channel that it goes through (see `emolib.sound.telephone`).
    """

    about: str
    use: Use
    condition: str


# Each random line is another one: so many that a network learns what they share.
_TELEPHONES = {
    f"telephone{number}": Variant(telephone.CONDITIONS["telephone"], "training", "telephone") for number in range(1, 6)
}
_CHANNELS = {
    name: Variant(about, "judging", name) for name, about in telephone.CONDITIONS.items() if name != "telephone"
}
VARIANTS: dict[str, Variant] = {**_TELEPHONES, **_CHANNELS}
"""Every kind of copy by its name."""

GROUPS: dict[str, tuple[str, ...]] = {
    "telephone": ("telephone1",),
    "telephones": tuple(_TELEPHONES),
    "noise": tuple(name for name in _CHANNELS if name.startswith("noise")),
    "channels": tuple(_CHANNELS),
}
"""Short names for several of them: one random telephone line; all of them; noises; all channels to be judged on."""


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Return the variants that some names of variants and groups stand for, each once, in the order of `VARIANTS`.

    Raises
    ------
    SettingsError
        If a name is unknown.

    Examples
    --------
    >>> expand(["noise", "telephone2"])
    ('telephone2', 'noise20', 'noise10', 'noise5')
    """
    wanted: set[str] = set()
    for name in names:
        if name not in VARIANTS and name not in GROUPS:
            raise SettingsError(f"variant {name!r} found, expected some of {', '.join([*GROUPS, *VARIANTS])}")
        wanted |= set(GROUPS.get(name, (name,)))
    return tuple(name for name in VARIANTS if name in wanted)


def used_for(variant: str, use: Use) -> bool:
    """Return whether a variant is learnt from, or judged on; the clean recording is both.

    Raises
    ------
    SettingsError
        If there is no such variant (any more).

    Examples
    --------
    >>> used_for("clean", "training"), used_for("telephone1", "judging"), used_for("noise10", "judging")
    (True, False, True)
    """
    if variant != CLEAN and variant not in VARIANTS:
        known = ", ".join([CLEAN, *VARIANTS])
        raise SettingsError(f"copies {variant!r} found in the store, expected some of {known}: extract it anew")
    return variant == CLEAN or VARIANTS[variant].use == use


def learnt_copies(variants: Iterable[str]) -> tuple[str, ...]:
    """Return which of some variants are copies to learn from, each once, in the order of `VARIANTS`.

    Raises
    ------
    SettingsError
        If one of them is unknown.

    Examples
    --------
    >>> learnt_copies(["noise10", "telephone2", "clean", "telephone1", "telephone2"])
    ('telephone1', 'telephone2')
    """
    learnt = {name for name in set(variants) if used_for(name, "training")}
    return tuple(name for name in VARIANTS if name in learnt)


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
    decoded = audio.read(source, sampling_rate=sampling_rate)
    signal: NDArray[np.float32] = decoded.signal.mean(axis=0) if len(decoded.signal) > 1 else decoded.signal[0]
    if variant != CLEAN:
        seed = int.from_bytes(hashlib.blake2b(f"{variant}/{name}".encode(), digest_size=8).digest(), "little")
        signal = telephone.through(VARIANTS[variant].condition, signal, sampling_rate=sampling_rate, seed=seed)
    return signal, decoded
