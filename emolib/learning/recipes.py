"""How each architecture is trained: found on validation speakers, see tests/benchmarks/experiments.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emolib.config import Profile, fingerprint
from emolib.features.windows import window_shape
from emolib.learning.augmentation import Augmentation

if TYPE_CHECKING:
    import pandas as pd

# So many that they differ little from one to the next, so few that their maps stay in the cache.
_VOICES = 31
# However small its corpus, a row is shown so often an epoch at most, and however rare its word, it weighs so much: what
# else there is would drown in it.
_MOST_TIMES = 10


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an architecture is trained.

    Attributes
    ----------
    epochs
        Passes over the training rows.
    least_steps, most_steps
        Minibatches: there are more passes where these would be fewer, and fewer where they would be more; None: as many
        as there are.
    batch_size
        Rows of a minibatch.
    learning_rate
        Of AdamW (Loshchilov and Hutter 2019). It rises over the first twentieth of the steps, and falls to zero along a
        cosine.
    weight_decay
        Of AdamW.
    augmentation
        What is done to every minibatch.
    evenness
        How evenly corpora of unequal size are learnt from: 0 takes every row once an epoch, 1 takes those of a small
        corpus so often that it counts as much as the largest.
    words
        Learn the emotions of each class as the corpora tell them apart, and sum them; else the classes alone.
    voice
        Natural logarithm of how many times as high a row's frequencies become while it is learnt from, at most: other
        vocal tracts (Jaitly and Hinton 2013).
    near_voice
        The same where the classes tell gender, as the tracts of women and men differ by about 15 % in length, and where
        the speakers are known.
    even_words
        Whether words weigh the same in the loss, each as much as any other, as they are about as frequent in a corpus.
        Else it is classes that do, and within a class its words.
    speech_s
        Seconds of speech that a row keeps while it is learnt from, a random stretch; None: everything. An epoch takes
        half as long, and no epoch shows a long row as the last one did.
    filters
        How wide the default network is; the article's is as wide as it is.
    near_filters
        The same where the speakers are known: there is more to remember of them than to learn of others.
    learn_again
        Whether another network learns anew from all rows, those that were set aside included, once these have said how
        sure the first may be of itself: more speakers teach more.
    """

    epochs: int
    least_steps: int
    most_steps: int | None
    batch_size: int
    learning_rate: float
    weight_decay: float
    augmentation: Augmentation
    words: bool
    evenness: float = 0.0
    voice: float = 0.0
    near_voice: float = 0.0
    even_words: bool = False
    speech_s: float | None = None
    filters: int = 64
    near_filters: int = 96
    learn_again: bool = False

    @property
    def fingerprint(self) -> str:
        """Tells this recipe from every other: what was judged with one says little of what is trained by another."""
        return fingerprint(asdict(self))

    def passes(self, batches: int) -> int:
        """Return how often so many minibatches, which are an epoch, are learnt from.

        Examples
        --------
        >>> [RECIPES["default"].passes(batches) for batches in (10, 50, 1000)]
        [240, 60, 5]
        """
        steps = max(self.epochs * batches, self.least_steps)
        return -(-min(steps, self.most_steps or steps) // batches)

    def frames(self, profile: Profile) -> int:
        """Return how many frames of a window are learnt from at a time."""
        frames, _ = window_shape(profile.features, profile.windows)
        if self.speech_s is None:
            return frames
        return min(frames, round(self.speech_s * profile.features.sampling_rate / profile.features.hop_length))

    def times(self, corpora: pd.Series, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return how often an epoch shows each row, ``(row,)``, by the corpus that it is of.

        The generator decides which rows are shown once more than others, where their number is not a whole one.
        """
        sizes = corpora.map(corpora.value_counts()).to_numpy(np.float64)
        times = np.minimum((sizes.max() / sizes) ** self.evenness, _MOST_TIMES)
        whole: NDArray[np.int64] = np.floor(times + generator.random(len(times))).astype(np.int64)
        return whole

    def adapted(self, *, speaker_dependent: bool, tells_gender: bool) -> Recipe:
        """Return the recipe for speakers that are known, or for classes that tell gender.

        What blurs who speaks is left out. Whoever knows the speakers knows the mixture of what they say as well: words
        weigh the same. Of others nothing is known: classes do.
        """
        if not (speaker_dependent or tells_gender):
            return self
        augmentation = replace(self.augmentation, style=0.0)
        return replace(
            self,
            voice=self.near_voice,
            augmentation=augmentation,
            even_words=speaker_dependent,
            filters=self.near_filters if speaker_dependent else self.filters,
        )

    def weights(self, counts: NDArray[np.int64], class_of: Sequence[int]) -> NDArray[np.float32]:
        """Return what a row of each word weighs in the loss, by how many there are, ``(word,)``; 1 in the mean.

        A word that is so rare that its rows would weigh more than `_MOST_TIMES` weighs less than the others: three rows
        are no basis for a share of what a network says.

        Parameters
        ----------
        counts
            Rows of each word, ``(word,)``.
        class_of
            The class of each word.

        Examples
        --------
        >>> recipe = RECIPES["default"]
        >>> recipe.weights(np.array([40, 40, 20]), (0, 0, 1)).tolist()
        [0.625, 0.625, 2.5]
        >>> replace(recipe, even_words=True).weights(np.array([48, 48, 1]), (0, 0, 1)).round(2)
        array([ 0.67,  0.67, 10.  ], dtype=float32)
        """
        heard = np.asarray(class_of)[counts > 0]
        words_of, classes = np.bincount(heard, minlength=max(class_of) + 1), len(set(heard.tolist()))
        times = np.full(len(counts), len(heard)) if self.even_words else classes * words_of[list(class_of)]
        weights: NDArray[np.float32] = np.minimum(counts.sum() / (times * counts).clip(1), _MOST_TIMES).astype(
            np.float32
        )
        return weights

    def voices(self) -> NDArray[np.float64]:
        """Return by what the frequencies of rows are multiplied, ``(voice,)``; none where they stay as they are."""
        return np.exp(np.linspace(-self.voice, self.voice, _VOICES if self.voice else 0))


RECIPES = {
    "article": Recipe(30, 2000, None, 32, 1e-3, 0.0, Augmentation(), words=False),
    "default": Recipe(
        epochs=60,
        least_steps=2400,
        most_steps=4800,
        batch_size=64,
        learning_rate=1e-3,
        weight_decay=1e-4,
        augmentation=Augmentation(label_smoothing=0.1, time_masks=2, longest_mask=20, tempo=0.16, style=0.5),
        words=True,
        evenness=0.7,
        voice=0.16,
        near_voice=0.06,
        speech_s=2.4,
        learn_again=True,
    ),
}
