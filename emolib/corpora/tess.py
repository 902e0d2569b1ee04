"""TESS, the Toronto Emotional Speech Set (Pichora-Fuller and Dupuis, 2020): an older and a younger woman.

A name is speaker, word and emotion. One of the 2800 is published with a letter missing, as ``OA_bite_neutral``, and
keeps that name here.
"""

from __future__ import annotations

import re

from emolib.corpora.names import Fields, official_name

CORPUS = "tess"
EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")  # ps: pleasant surprise

_NAME = re.compile(rf"(?P<speaker>OAF|YAF|OA(?=_bite_neutral))_[a-z]+_(?P<emotion>{'|'.join(EMOTIONS)})")


def parse(path: str) -> Fields | None:
    """Read the name of a TESS file.

    Examples
    --------
    >>> parse("YAF_germ_ps.wav")
    Fields(name='YAF_germ_ps', speaker='YAF', gender='female', emotion='ps')
    >>> parse("OA_bite_neutral.wav").speaker
    'OAF'
    """
    name = official_name(path)
    match = _NAME.fullmatch(name)
    return match and Fields(name, "YAF" if match["speaker"] == "YAF" else "OAF", "female", match["emotion"])
