"""The classical baseline that keeps every network honest: functionals of the MFCCs and a support vector machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emolib.learning.batches import Shards, in_order

_PERCENTILES = (10, 25, 50, 75, 90)
# A support vector machine takes time with the square of its rows: beyond these it learns from a seeded sample.
_MOST_ROWS = 20_000


class Baseline:
    """Functionals of the coefficients, standardised, and an RBF support vector machine (Cortes and Vapnik 1995).

    Its hyper-parameters are scikit-learn's, but for ``C = 10``, and stay as they are: nothing is tuned.

    Parameters
    ----------
    store
        Where features are read from.
    rows
        Numbers of the rows to learn from, ascending.
    labels
        Class of every row of the store, ``(window,)``.
    seed
        Decides which rows are taken where there are more than 20,000.
    """

    def __init__(self, store: Shards, rows: NDArray[np.int64], labels: NDArray[np.int64], *, seed: int) -> None:
        # The import takes as long as scoring a call; only training needs it.
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        self._store = store
        if len(rows) > _MOST_ROWS:
            rows = np.sort(np.random.default_rng(seed).choice(rows, _MOST_ROWS, replace=False))
        self._machine: Any = make_pipeline(StandardScaler(), SVC(C=10.0))
        self._machine.fit(_functionals(store, rows), labels[rows])

    def predict(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class of some rows, whose numbers are ascending, ``(row,)``."""
        predicted: NDArray[np.int64] = self._machine.predict(_functionals(self._store, rows))
        return predicted


def functionals(features: NDArray[np.float32], valid_frames: int) -> NDArray[np.float32]:
    """Return mean, deviation and percentiles of each coefficient and of its slope over the real frames of a window.

    Parameters
    ----------
    features
        Shape ``(frame, coefficient)``.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(14 * coefficient,)``.

    Examples
    --------
    >>> functionals(np.arange(12, dtype=np.float32).reshape(6, 2), 4)[:4]
    array([3.      , 4.      , 2.236068, 2.236068], dtype=float32)
    """
    real = features[:valid_frames]
    around = np.pad(real, ((2, 2), (0, 0)), mode="edge")
    slope = (around[3:-1] - around[1:-3] + 2 * (around[4:] - around[:-4])) / 10
    parts = [
        part
        for values in (real, slope)
        for part in (values.mean(axis=0), values.std(axis=0), *np.percentile(values, _PERCENTILES, axis=0))
    ]
    return np.concatenate(parts).astype(np.float32)


def _functionals(store: Shards, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    parts = [
        functionals(window, frames)
        for features, valid_frames in in_order(store, rows)
        for window, frames in zip(features, valid_frames.tolist(), strict=True)
    ]
    return np.stack(parts)
