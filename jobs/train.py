"""`emolib train`: feature store -> model bundle."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from emolib.corpora import labels, splits
from emolib.features.store import FeatureStore
from emolib.learning import bundle
from emolib.learning.batches import usable_rows
from jobs.console import Result, say, table

TaskOption = Annotated[
    Literal["emotion2", "emotion3", "emotion8", "native"],
    Parameter(help="What to tell: gender and polarity, the article's six, RAVDESS's eight, or a corpus's own words."),
]
ArchitectureOption = Annotated[
    Literal["default", "article"], Parameter(help="The network: the project's own, or the article's CNN.")
]


def train(
    store: str,
    *,
    task: TaskOption,
    model: str,
    architecture: ArchitectureOption = "default",
    seed: NonNegativeInt = 0,
    epochs: PositiveInt | None = None,
) -> Result:
    """Train a model on a feature store and write its bundle.

    Some speakers are set aside to decide when to stop; the model never learns from them.

    Parameters
    ----------
    store
        A complete store, S.zarr.
    model
        The folder of the bundle to write.
    seed
        Decides weights, order and the speakers set aside; the same seed gives the same model on the same machine.
    epochs
        At most so many passes over the store.
    """
    bundle.refuse_existing(model)
    opened = FeatureStore.open(store)
    windows = opened.windows
    scheme = labels.scheme(task, windows)
    numbers = np.where(usable_rows(opened), labels.label(windows, scheme), -1)
    labelled = numbers >= 0
    aside = splits.validation(windows, numbers, labelled, seed=seed)
    say(f"{int(labelled.sum())} windows with a label, {int(aside.sum())} of them set aside with their speakers")
    from emolib.learning import training  # TensorFlow takes its time: everything that can be wrong was looked at before

    trained = training.fit(
        opened,
        scheme=scheme,
        labels=numbers,
        train=labelled & ~aside,
        validation=aside,
        architecture=architecture,
        seed=seed,
        epochs=epochs,
        on_epoch=say_epoch,
    )
    with warnings.catch_warnings():
        # keras 3.15 asks numpy for a name that tf2onnx misses: nothing that a user could mend.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        saved = bundle.save(model, trained)
    found = trained.metrics
    rows = [[name, each["support"], each["recall"], each["precision"]] for name, each in found["per_class"].items()]
    table("speakers set aside (they chose the epoch)", ["class", "utterances", "recall", "precision"], rows)
    return Result(
        {
            "job": "train",
            "model": model,
            "model_id": saved.model_id,
            "task": task,
            "architecture": architecture,
            "epochs": trained.training["epochs"],
            "validation": {name: round(found[name], 4) for name in ("n", "accuracy", "uar", "macro_f1")},
            "validation_speakers": trained.training["validation_speakers"],
        }
    )


def say_epoch(entry: dict[str, float]) -> None:
    """Print how an epoch went."""
    say(
        f"epoch {entry['epoch']:.0f}: loss {entry['loss']:.3f}, set aside: loss {entry['val_loss']:.3f}, "
        f"UAR {entry['val_uar']:.3f} ({entry['seconds']:.1f} s)"
    )
