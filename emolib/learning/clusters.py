"""Do the classes show without being told? A feature store's utterances, clustered and held against their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.learning.batches import Shards, in_order

if TYPE_CHECKING:
    import pandas as pd


def functionals(
    store: Shards, windows: pd.DataFrame, rows: NDArray[np.int64]
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Describe each utterance by the mean and the standard deviation of every coefficient over its valid frames.

    A shard is read at a time. A frame that two windows share counts twice.

    Parameters
    ----------
    store
        Where features are read from.
    windows
        What each row of the store is, with the columns ``utterance_id`` and ``variant``.
    rows
        Numbers of the rows that hold sound, ascending, ``(row,)``.

    Returns
    -------
    tuple
        The first row of each utterance and variant, in the store's order, indexed by its number; and
        float64 ``(utterance, 2 * coefficient)``, the means and then the deviations.

    Examples
    --------
    >>> import pandas as pd
    >>> class Two:
    ...     shape, shards = (2, 2, 1), [(0, 2)]
    ...     def read(self, start, stop):
    ...         return np.array([[[1], [3]], [[5], [0]]], np.float32)[start:stop], np.array([2, 1])[start:stop]
    >>> windows = pd.DataFrame({"utterance_id": ["a", "a"], "variant": "clean"})
    >>> functionals(Two(), windows, np.arange(2))[1].round(3).tolist()
    [[3.0, 1.633]]
    """
    described = windows.iloc[rows]
    numbers = described.groupby(["utterance_id", "variant"], sort=False).ngroup().to_numpy()
    utterances = described.loc[~described.duplicated(["utterance_id", "variant"])]
    coefficients = store.shape[2]
    frames = np.zeros((len(utterances), 1))
    sums, squares = np.zeros((2, len(utterances), coefficients))
    done = 0
    for features, valid_frames in in_order(store, rows):
        part = numbers[done : done + len(features)]
        done += len(features)
        valid = (np.arange(features.shape[1]) < valid_frames[:, None])[:, :, None]
        values = np.where(valid, features, 0).astype(np.float64)
        np.add.at(frames, part, valid_frames[:, None])
        np.add.at(sums, part, values.sum(axis=1))
        np.add.at(squares, part, np.square(values).sum(axis=1))
    means = sums / frames
    deviations = np.sqrt(np.maximum(squares / frames - means**2, 0))
    return utterances, np.hstack([means, deviations])


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Utterances by k-means, beside the classes that they have.

    Attributes
    ----------
    cluster
        Of each utterance, ``(utterance,)``; 0 is the largest.
    components
        The first two principal components, ``(utterance, 2)``.
    explained
        Share of the variance that each of the two holds, ``(2,)``.
    table
        How many utterances of each class each cluster holds, ``(cluster, class)``.
    rand_index
        Adjusted Rand index of clusters and classes: 1 where they are the same, about 0 where they have nothing to do
        with each other.
    """

    cluster: NDArray[np.int64]
    components: NDArray[np.float64]
    explained: NDArray[np.float64]
    table: NDArray[np.int64]
    rand_index: float


def cluster(numbers: NDArray[np.float64], labels: NDArray[np.int64], *, classes: Sequence[str], seed: int) -> Clusters:
    """Cluster utterances by k-means into as many clusters as there are classes, and hold the two against each other.

    Parameters
    ----------
    numbers
        What describes each utterance, ``(utterance, number)``; each column is standardised first.
    labels
        Class of each utterance, ``(utterance,)``, an index into `classes`.
    classes
        Their names; each has an utterance.
    seed
        Decides where k-means begins, ten times; the best end counts.

    Raises
    ------
    SettingsError
        If there are fewer than two classes, or fewer utterances of different numbers than classes.

    References
    ----------
    Hubert, L., & Arabie, P. (1985). Comparing partitions. Journal of Classification, 2.

    Examples
    --------
    >>> numbers = np.array([[0.0, 0.1], [0.1, 0.0], [5.0, 5.1], [5.1, 5.0], [5.0, 5.0]])
    >>> found = cluster(numbers, np.array([0, 0, 1, 1, 1]), classes=["sad", "happy"], seed=0)
    >>> found.table.tolist(), found.rand_index
    ([[0, 3], [2, 0]], 1.0)
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score
    from sklearn.preprocessing import StandardScaler

    different = len(np.unique(numbers, axis=0))
    if len(classes) < 2 or different < len(classes):
        raise SettingsError(
            f"{different} different utterances of {len(classes)} classes found, expected at least two classes and as "
            "many utterances; take another task or a larger store"
        )
    standard = StandardScaler().fit_transform(numbers)
    found = KMeans(len(classes), n_init=10, random_state=seed).fit_predict(standard)
    by_size = np.argsort(-np.bincount(found, minlength=len(classes)), kind="stable")
    clusters = np.argsort(by_size)[found]
    table = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(table, (clusters, labels), 1)
    pca = PCA(2, svd_solver="full").fit(standard)
    return Clusters(
        cluster=clusters,
        components=pca.transform(standard),
        explained=pca.explained_variance_ratio_,
        table=table,
        rand_index=float(adjusted_rand_score(labels, clusters)),
    )
