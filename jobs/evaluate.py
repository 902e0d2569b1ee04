"""`emolib evaluate`: how good an architecture is, fold by fold."""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from emolib import figures
from emolib.errors import SettingsError
from emolib.features.store import FeatureStore
from emolib.learning.evaluation import Evaluation, FoldResult, cross_validate
from emolib.storage import resolve, write_bytes, write_json
from jobs.console import Result, say, table
from jobs.train import ArchitectureOption, TaskOption, say_epoch

ProtocolOption = Annotated[
    Literal["random5", "speaker6", "ravdess6", "savee4", "corpus", "grouped"],
    Parameter(
        help="How to split. random5: speakers on both sides, as the article did; speaker6, ravdess6, savee4: the "
        "published folds, no speaker on both sides; corpus: leave one corpus out; grouped: speakers of your own table."
    ),
]
_HEADLINE = ["n", "accuracy", "uar", "macro_f1"]


def evaluate(
    store: str,
    *,
    task: TaskOption,
    protocol: ProtocolOption,
    out: str,
    architecture: ArchitectureOption = "default",
    seed: NonNegativeInt = 0,
    epochs: PositiveInt | None = None,
) -> Result:
    """Judge an architecture on a feature store: train and test it fold by fold.

    Writes evaluation.json, predictions.parquet (what every figure was computed from) and confusion.svg.

    Parameters
    ----------
    store
        A complete store, S.zarr.
    out
        The folder to make.
    seed
        Decides weights, order and the speakers set aside to stop by.
    epochs
        At most so many passes over each fold's training part.
    """
    folder = resolve(out)
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{out} exists and is not empty, expected a new folder: name another --out")
    opened = FeatureStore.open(store)
    evaluation = cross_validate(
        opened,
        task=task,
        protocol=protocol,
        architecture=architecture,
        seed=seed,
        epochs=epochs,
        on_fold=_say_fold,
        on_epoch=say_epoch,
    )
    made_from = {"store": store, "store_fingerprint": opened.fingerprint, "epochs_at_most": epochs}
    report = {**evaluation.report(), **made_from}
    buffer = io.BytesIO()
    evaluation.predictions.to_parquet(buffer, index=False)
    write_bytes(folder / "predictions.parquet", buffer.getvalue())
    matrix = np.array(report["pooled"]["confusion"])
    figure = figures.confusion_matrix(matrix, evaluation.classes, title=f"{task}, {protocol}, {architecture}")
    write_bytes(folder / "confusion.svg", figures.to_svg(figure).encode())
    write_json(folder / "evaluation.json", report)
    _print(evaluation, report)
    return Result({"job": "evaluate", "out": out, **_without_confusion(report)})


def _say_fold(fold: FoldResult) -> None:
    say(f"fold {fold.name}: UAR {fold.metrics['uar']:.3f}, accuracy {fold.metrics['accuracy']:.3f}")


def _print(evaluation: Evaluation, report: dict[str, Any]) -> None:
    def row(name: str, found: dict[str, Any]) -> list[Any]:
        return [name, *(found[column] for column in _HEADLINE)]

    rows = [row("pooled", report["pooled"])]
    if "without_tess" in report:
        rows.append(row("without TESS", report["without_tess"]))
    rows += [row(f"corpus {name}", found) for name, found in report["per_corpus"].items()]
    rows += [row(name, found) for name, found in report["per_gender"].items()]
    rows += [row(f"fold {fold.name}", fold.metrics) for fold in evaluation.folds]
    rows += [["fold mean", None, *(report["fold_mean"][name] for name in _HEADLINE[1:])]]
    rows += [["fold deviation", None, *(report["fold_std"][name] for name in _HEADLINE[1:])]]
    kept_apart = "speakers kept apart" if evaluation.speaker_independent else "the SAME SPEAKERS in training and test"
    table(f"{evaluation.task}, {evaluation.protocol}: {kept_apart}", ["", "n", "accuracy", "UAR", "macro-F1"], rows)
    classes = [
        [name, each["support"], each["recall"], each["precision"], each["f1"]]
        for name, each in report["pooled"]["per_class"].items()
    ]
    table("classes", ["class", "n", "recall", "precision", "F1"], classes)
    if not evaluation.speaker_independent:
        say("These figures say how well known speakers are told; for new ones see --protocol speaker6 or grouped.")


def _without_confusion(report: dict[str, Any]) -> dict[str, Any]:
    """Leave the matrices to evaluation.json: the summary is one line."""
    pooled = {name: value for name, value in report["pooled"].items() if name != "confusion"}
    folds = [{"name": fold["name"]} | {n: fold["metrics"][n] for n in _HEADLINE} for fold in report["folds"]]
    return {**report, "pooled": pooled, "folds": folds}
