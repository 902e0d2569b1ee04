"""SAVEE, Surrey Audio-Visual Expressed Emotion (Haq and Jackson, 2009): four men.

A name is speaker, emotion and sentence, as in the one-folder form of the corpus (``DC_a01.wav``).
"""

from __future__ import annotations

import re

from emolib.corpora.names import Fields, official_name

CORPUS = "savee"
_LETTERS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
EMOTIONS = tuple(_LETTERS.values())

_NAME = re.compile(r"(?P<speaker>DC|JE|JK|KL)_(?P<letters>sa|su|[adfhn])[0-9]{2}")


def parse(path: str) -> Fields | None:
    """Read the name of a SAVEE file.

    Examples
    --------
    >>> parse("KL_su15.wav")
    Fields(name='KL_su15', speaker='KL', gender='male', emotion='surprise')
    """
    name = official_name(path)
    match = _NAME.fullmatch(name)
    return match and Fields(name, match["speaker"], "male", _LETTERS[match["letters"]])
