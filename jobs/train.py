"""`emolib train`: feature store -> model bundle."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter, validators

from emolib.corpora import labels, splits
from emolib.features.store import FeatureStore
from emolib.learning import bundle
from emolib.learning.batches import usable_rows
from emolib.learning.promise import Promise, further_speakers, validate_promise
from emolib.learning.recipes import RECIPES
from emolib.report.card import card, read_evaluations
from emolib.sound.variants import learnt_copies
from emolib.storage import resolve
from jobs.bounds import Epochs, Seed
from jobs.console import Result, epoch_progress, listed, say, table

TaskOption = Annotated[
    Literal["emotion2", "emotion3", "emotion8", "native"],
    Parameter(help="What to tell: gender and polarity, the article's six, RAVDESS's eight, or a corpus's own words."),
]
ArchitectureOption = Annotated[
    Literal["default", "article"], Parameter(help="The network: the project's own, or the article's CNN.")
]

PrecisionOption = Annotated[
    float | None,
    Parameter(
        validator=validators.Number(gt=0, lt=1),
        help="Share of the labels that should be right; a window that the model is less sure of gets none. One more "
        "network is trained to check that on further speakers; bundle.json and the card say what came of it. It is the "
        "share in the corpora's mixture, not in one that `score --priors` names.",
    ),
]


def train(
    store: str,
    *,
    task: TaskOption,
    model: str,
    architecture: ArchitectureOption = "default",
    seed: Seed = 0,
    speaker_dependent: Annotated[bool, Parameter(negative=())] = False,
    leave_out: str = "",
    epochs: Epochs = None,
    precision: PrecisionOption = None,
    evaluations: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=True)] = (),
) -> Result:
    """Train a model on a feature store and write its bundle.

    Some speakers are set aside at first: they say how sure a model that never heard them may be of itself. Then it
    learns anew from all. A training that was killed goes on after its last whole epoch when the same command is run
    again.

    Parameters
    ----------
    store
        A complete store, S.zarr.
    model
        The folder of the bundle to write.
    seed
        Decides weights, order and the speakers set aside; the same seed gives the same model on the same machine.
    speaker_dependent
        The calls are those of the corpus's own speakers, such as the agents of a call centre: learn their voices too.
    leave_out
        Speakers who are not learnt from at all, joined by commas, such as ravdess/03,ravdess/04: to judge the model by
        (`emolib benchmark`).
    epochs
        Passes over what is learnt from; without it as many as the architecture's recipe says.
    evaluations
        Folders that `emolib evaluate` made of the same task, architecture and store settings: for the model card.
    """
    bundle.refuse_existing(model)
    opened = FeatureStore.open(store)
    windows = opened.windows
    judged = read_evaluations(
        evaluations, expected=provenance(opened, task=task, architecture=architecture, epochs=epochs)
    )
    scheme = labels.scheme(task, windows)
    may = usable_rows(opened) & splits.without(windows, listed(leave_out))
    numbers = np.where(may, labels.label(windows, scheme), -1)
    labelled = numbers >= 0
    aside = splits.validation(windows, numbers, labelled, seed=seed)
    say(f"{int(labelled.sum())} windows with a label, {int(aside.sum())} of them set aside with their speakers")
    further = None if precision is None else further_speakers(windows, numbers, labelled & ~aside, seed=seed)
    if further is not None:
        say(f"{int(further.sum())} windows of further speakers check the promise: one more network learns without them")
    from emolib.learning import training  # TensorFlow takes its time: everything that can be wrong was looked at before

    with epoch_progress() as show:
        trained = training.fit(
            opened,
            scheme=scheme,
            labels=numbers,
            train=labelled & ~aside,
            validation=aside,
            further=further,
            architecture=architecture,
            seed=seed,
            speaker_dependent=speaker_dependent,
            epochs=epochs,
            checkpoint=resolve(model) / bundle.CHECKPOINT,
            on_epoch=show,
        )
    promise = None
    if precision is not None:
        public = trained.scheme.public_members
        of_further = None if trained.further is None else trained.further.merged(public)
        promise = validate_promise(trained.windows.merged(public), of_further, precision)
        _say_promise(promise)
    with warnings.catch_warnings():
        # keras 3.15 asks numpy for a name that tf2onnx misses: nothing that a user could mend.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        saved = bundle.save(
            model,
            trained,
            promise=promise,
            pages=partial(card, history=trained.history, evaluations=judged),
        )
    found = trained.metrics
    rows = [[name, each["support"], each["recall"], each["precision"]] for name, each in found["per_class"].items()]
    table("speakers set aside", ["class", "utterances", "recall", "precision"], rows)
    return Result(
        {
            "job": "train",
            "model": model,
            "model_id": saved.model_id,
            "task": task,
            "architecture": architecture,
            "epochs": trained.training["epochs"],
            "temperature": round(trained.temperature, 3),
            "abstention_threshold": saved.abstention_threshold,
            "promise": saved.promise,
            "validation": {name: round(found[name], 4) for name in ("n", "accuracy", "uar", "macro_f1")},
            "validation_speakers": trained.training["validation_speakers"],
        }
    )


def provenance(store: FeatureStore, *, task: str, architecture: str, epochs: int | None) -> dict[str, Any]:
    """Return what must be the same where figures are to say something of a model, in the words of evaluation.json."""
    return {
        "task": task,
        "architecture": architecture,
        "store_fingerprint": store.fingerprint,
        "recipe": RECIPES[architecture].fingerprint,
        "epochs": epochs,
        "copies": list(learnt_copies(store.windows["variant"])),
    }


def _say_promise(promise: Promise) -> None:
    chosen, checked = promise.chosen, promise.checked
    say(
        f"labels are given from a confidence of {promise.threshold:.3f} on: {chosen.precision:.1%} of them are right, "
        f"{chosen.coverage:.1%} of the windows get one (windows of the speakers set aside, by whom it was chosen)"
    )
    if checked is None:
        say("too few speakers to check that on others: the promise is not validated")
    elif checked.precision is None:
        say("no window of the further speakers gets a label: the promise is not validated")
    else:
        say(
            f"of {len(checked.speakers)} further speakers, whom the network had not heard: {checked.precision:.1%} of "
            f"their labels are right, {checked.coverage:.1%} of their windows get one; the promise is {promise.verdict}"
        )
