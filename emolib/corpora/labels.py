"""Label schemes: what a task makes of each corpus's own words.

Words become one of a few canonical emotions, and tasks are defined on those:

- ``emotion2``: six classes, gender and polarity. Utterances without a gender have no class.
- ``emotion3``: fear, surprise, sadness, negative (all other negative emotions), positive (all positive ones but
  surprise), neutral (with calm).
- ``emotion8``: RAVDESS's eight words. Emotions that it lacks, such as boredom, have no class.
- ``native``: the words as they are, of one vocabulary. Words that differ in case, or in a space for an underscore, are
  one, which is then written in lower case: classes become columns, and SQL knows no case there.

The order of a scheme's classes is fixed (`native`: alphabetical), because a model's outputs are in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.corpora import ravdess
from emolib.errors import SettingsError

Polarity: TypeAlias = Literal["negative", "neutral", "positive"]

# Canonical emotion: its polarity and the words for it, lower case; the three-letter ones are CREMA-D's and IEMOCAP's.
_EMOTIONS: dict[str, tuple[Polarity, str]] = {
    "neutral": ("neutral", "neutral neu"),
    "calm": ("neutral", "calm calmness"),
    "happiness": ("positive", "happiness happy hap joy joyful joyous"),
    "surprise": ("positive", "surprise surprised sur ps pleasant_surprise"),
    "excitement": ("positive", "excitement excited exc"),
    "amusement": ("positive", "amusement amused"),
    "sadness": ("negative", "sadness sad"),
    "anger": ("negative", "anger angry ang"),
    "fear": ("negative", "fear fearful fea anxiety"),
    "disgust": ("negative", "disgust disgusted dis"),
    "boredom": ("negative", "boredom bored"),
    "contempt": ("negative", "contempt contemptuous"),
    "frustration": ("negative", "frustration frustrated fru"),
}
_CANONICAL = {word: emotion for emotion, (_, words) in _EMOTIONS.items() for word in words.split()}
_POLARITY = {emotion: polarity for emotion, (polarity, _) in _EMOTIONS.items()}
_OF_EIGHT = {_CANONICAL[word]: word for word in ravdess.EMOTIONS}

_POLARITIES: tuple[Polarity, ...] = ("negative", "neutral", "positive")
_GENDERS = ("female", "male")


@dataclass(frozen=True, slots=True)
class LabelScheme:
    """The classes of a task.

    Attributes
    ----------
    name
        The task, one of `TASKS`.
    classes
        In the order of a model's outputs.
    polarity
        Of each class.
    public
        For each class the class without gender under which it is shown: ``female_negative`` → ``negative``.
    """

    name: str
    classes: tuple[str, ...]
    polarity: Mapping[str, Polarity]
    public: Mapping[str, str]

    @property
    def tells_gender(self) -> bool:
        """Whether the classes tell women from men: they are shown under names that do not."""
        return any(name != shown for name, shown in self.public.items())

    @property
    def public_classes(self) -> tuple[str, ...]:
        """The classes without gender, in the order of their first appearance."""
        return tuple(dict.fromkeys(self.public[name] for name in self.classes))

    @property
    def public_members(self) -> tuple[tuple[int, ...], ...]:
        """For each public class the numbers of the classes that are shown under it."""
        return tuple(
            tuple(number for number, name in enumerate(self.classes) if self.public[name] == each)
            for each in self.public_classes
        )

    @property
    def public_polarity(self) -> dict[str, Polarity]:
        """Polarity of each of `public_classes`."""
        return {self.public[name]: self.polarity[name] for name in self.classes}


def merged(values: NDArray[np.float32], members: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Return sums of columns, one for each group of them; a row's sums depend on the row alone, to the bit.

    Examples
    --------
    >>> merged(np.array([[0.25, 0.25, 0.5]], np.float32), [[0, 1], [2]])
    array([[0.5, 0.5]], dtype=float32)
    """
    sums = np.zeros((len(values), len(members)), np.float64)
    for column, group in enumerate(members):
        for member in group:
            sums[:, column] += values[:, member]
    return sums.astype(np.float32)


def scheme(task: str, utterances: pd.DataFrame) -> LabelScheme:
    """Return the label scheme of a task.

    Parameters
    ----------
    task
        One of `TASKS`.
    utterances
        With the columns ``corpus`` and ``emotion``. ``native`` takes its classes from them, for the other tasks they
        are only checked.

    Raises
    ------
    SettingsError
        If the task or a word is unknown, or ``native`` finds corpora with different vocabularies.

    Examples
    --------
    >>> utterances = pd.DataFrame({"corpus": "mine", "emotion": ["joy", "boredom"], "gender": ["female", None]})
    >>> scheme("emotion3", utterances).classes
    ('fear', 'surprise', 'sadness', 'negative', 'positive', 'neutral')
    >>> scheme("native", utterances).polarity
    {'boredom': 'negative', 'joy': 'positive'}
    >>> scheme("emotion2", utterances).public_classes
    ('negative', 'neutral', 'positive')
    """
    if task not in _TASKS:
        raise SettingsError(f"task {task!r} found, expected one of {', '.join(TASKS)}")
    if utterances.empty:
        raise SettingsError("no utterances found, expected some to label; check the corpus")
    _refuse_unknown_words(utterances)
    return _TASKS[task].scheme(utterances)


def label(utterances: pd.DataFrame, scheme: LabelScheme) -> NDArray[np.int64]:
    """Return the class of each utterance as a number.

    Parameters
    ----------
    utterances
        With the columns ``corpus``, ``emotion`` and ``gender``.
    scheme
        Its classes give the numbers.

    Returns
    -------
    array of int64 (utterance,)
        Index into ``scheme.classes``, or -1 where the task has no class for the utterance.

    Raises
    ------
    SettingsError
        If a word is unknown.

    Examples
    --------
    >>> utterances = pd.DataFrame({"corpus": "mine", "emotion": ["joy", "boredom"], "gender": ["female", None]})
    >>> label(utterances, scheme("emotion2", utterances))
    array([ 2, -1])
    """
    _refuse_unknown_words(utterances)
    class_of = _TASKS[scheme.name].class_of
    number = {_bare(name): index for index, name in enumerate(scheme.classes)}
    pairs = zip(utterances["emotion"], utterances["gender"], strict=True)
    return np.array([number.get(class_of(word, gender), -1) for word, gender in pairs], dtype=np.int64)


def polarities(utterances: pd.DataFrame) -> list[Polarity]:
    """Return the polarity of what each utterance's own word means.

    Raises
    ------
    SettingsError
        If a word is unknown.

    Examples
    --------
    >>> polarities(pd.DataFrame({"corpus": "mine", "emotion": ["joy", "calm"]}))
    ['positive', 'neutral']
    """
    _refuse_unknown_words(utterances)
    return [_POLARITY[_canonical(word)] for word in utterances["emotion"]]


def words(utterances: pd.DataFrame, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Tell the emotions of each class apart, as finely as the corpora's own words do.

    Parameters
    ----------
    utterances
        With the column ``emotion``.
    labels
        Class of each utterance, as `label` gives it; -1 for none.

    Returns
    -------
    numbers
        Int64 ``(utterance,)``: which emotion of which class it is, -1 where it has no class.
    classes
        The class of each number.

    Examples
    --------
    >>> utterances = pd.DataFrame({"corpus": "mine", "emotion": ["anger", "sad", "angry", "joy"], "gender": "male"})
    >>> words(utterances, label(utterances, scheme("emotion2", utterances)))
    (array([0, 1, 0, 2]), (3, 3, 5))
    """
    pairs = list(zip(labels.tolist(), (_canonical(word) for word in utterances["emotion"]), strict=True))
    found = sorted({pair for pair in pairs if pair[0] >= 0})
    number = {pair: index for index, pair in enumerate(found)}
    return np.array([number.get(pair, -1) for pair in pairs], dtype=np.int64), tuple(of for of, _ in found)


def _bare(word: str) -> str:
    return word.strip().lower().replace(" ", "_")


def _canonical(word: str) -> str:
    return _CANONICAL[_bare(word)]


def _emotion2(word: str, gender: object) -> str:
    return f"{gender}_{_POLARITY[_canonical(word)]}"


def _emotion3(word: str, _: object) -> str:
    emotion = _canonical(word)
    return emotion if emotion in ("fear", "surprise", "sadness") else _POLARITY[emotion]


def _emotion8(word: str, _: object) -> str:
    return _OF_EIGHT.get(_canonical(word), "")


def _native(word: str, _: object) -> str:
    return _bare(word)


def _plain(name: str, polarity: Mapping[str, Polarity]) -> LabelScheme:
    """Return a scheme whose classes hold no gender, in the order of the mapping."""
    return LabelScheme(name, tuple(polarity), polarity, {word: word for word in polarity})


def _words(name: str, words: Iterable[str]) -> LabelScheme:
    return _plain(name, {word: _POLARITY[_canonical(word)] for word in words})


def _scheme2(_: pd.DataFrame) -> LabelScheme:
    parts: dict[str, Polarity] = {f"{gender}_{polarity}": polarity for gender in _GENDERS for polarity in _POLARITIES}
    return LabelScheme("emotion2", tuple(parts), parts, dict(parts))


def _scheme3(_: pd.DataFrame) -> LabelScheme:
    own: dict[str, Polarity] = {emotion: _POLARITY[emotion] for emotion in ("fear", "surprise", "sadness")}
    rest: dict[str, Polarity] = {"negative": "negative", "positive": "positive", "neutral": "neutral"}
    return _plain("emotion3", own | rest)


def _scheme8(_: pd.DataFrame) -> LabelScheme:
    return _words("emotion8", ravdess.EMOTIONS)


def _scheme_native(utterances: pd.DataFrame) -> LabelScheme:
    spellings: dict[str, set[str]] = {}
    for word in utterances["emotion"].unique():
        spellings.setdefault(_bare(word), set()).add(word)
    names = {word: min(found) if len(found) == 1 else word for word, found in spellings.items()}
    by_corpus = utterances["emotion"].groupby(utterances["corpus"], observed=True)
    vocabularies = {corpus: {names[_bare(word)] for word in rows.unique()} for corpus, rows in by_corpus}
    widest, *others = sorted(vocabularies, key=lambda corpus: (-len(vocabularies[corpus]), corpus))
    for corpus in others:
        strange = sorted(vocabularies[corpus] - vocabularies[widest])
        if strange:
            raise SettingsError(
                f"corpora with words of their own found ({corpus} has {', '.join(strange)}, {widest} has "
                f"{', '.join(sorted(vocabularies[widest]))}), expected one vocabulary for task native; "
                "take the corpora one by one, or the task emotion8"
            )
    return _words("native", sorted(vocabularies[widest]))


class _Task(NamedTuple):
    scheme: Callable[[pd.DataFrame], LabelScheme]
    class_of: Callable[[str, object], str]  # of a word and a gender, in lower case; what no class is called means none


_TASKS = {
    "emotion2": _Task(_scheme2, _emotion2),
    "emotion3": _Task(_scheme3, _emotion3),
    "emotion8": _Task(_scheme8, _emotion8),
    "native": _Task(_scheme_native, _native),
}
TASKS = tuple(_TASKS)
"""The tasks that a model can learn."""


def _refuse_unknown_words(utterances: pd.DataFrame) -> None:
    for (corpus, word), _ in utterances.groupby(["corpus", "emotion"], observed=True):
        if _bare(str(word)) not in _CANONICAL:
            raise SettingsError(
                f"emotion {word!r} found in corpus {corpus}, expected one of {', '.join(_CANONICAL)}; "
                "rename it in the corpus's table or drop its rows"
            )
