"""What the corpora whose file names say everything have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Gender: TypeAlias = Literal["female", "male"]


@dataclass(frozen=True, slots=True)
class Fields:
    """What a file name says of its utterance.

    Attributes
    ----------
    name
        The official name: the file's name without folder and suffix.
    speaker
        Unique within the corpus.
    emotion
        In the corpus's own word.
    """

    name: str
    speaker: str
    gender: Gender
    emotion: str


class CorpusParser(Protocol):
    """What the module of one corpus offers; a new corpus is such a module, named in ``emolib.corpora.PARSERS``."""

    @property
    def CORPUS(self) -> str:  # noqa: N802  (a constant of the module)
        """The corpus's name in the column ``corpus``."""

    @property
    def EMOTIONS(self) -> tuple[str, ...]:  # noqa: N802
        """The corpus's own words, all that `parse` can return."""

    def parse(self, path: str) -> Fields | None:
        """Read a file's name; None if it is not one of this corpus."""


def official_name(path: str) -> str:
    r"""Return the last part of a path or URL without its suffix: names decide, and content is decoded whatever it is.

    Examples
    --------
    >>> official_name("s3://corpora/TESS/OAF_food_fear.WAV"), official_name("C:\\SAVEE\\DC_a01.flac")
    ('OAF_food_fear', 'DC_a01')
    """
    name = re.split(r"[/\\]", path)[-1]
    return name.rpartition(".")[0] or name
