"""RAVDESS, the Ryerson Audio-Visual Database of Emotional Speech and Song (Livingstone and Russo, 2018).

A name is seven two-digit numbers: modality, vocal channel, emotion, intensity, statement, repetition, actor. Only
speech that is published as sound alone (``03-01-…``) is recognised: songs are no speech, and the videos repeat it.
"""

from __future__ import annotations

import re

from emolib.corpora.names import Fields, official_name

CORPUS = "ravdess"
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08

_NAME = re.compile(r"03-01-0(?P<emotion>[1-8])-0[12]-0[12]-0[12]-(?P<actor>0[1-9]|1\d|2[0-4])")


def parse(path: str) -> Fields | None:
    """Read the name of a RAVDESS speech file; actors with odd numbers are male.

    Examples
    --------
    >>> parse("Actor_02/03-01-06-01-02-01-02.wav")
    Fields(name='03-01-06-01-02-01-02', speaker='02', gender='female', emotion='fearful')
    >>> parse("03-02-06-01-02-01-02.wav") is None  # a song
    True
    """
    name = official_name(path)
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    actor = match["actor"]
    return Fields(name, actor, "male" if int(actor) % 2 else "female", EMOTIONS[int(match["emotion"]) - 1])
