"""`emolib evaluate`: how good an architecture is, fold by fold; or how good predictions are (`evaluate_archive`)."""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter

from emolib import figures
from emolib.errors import SettingsError
from emolib.features.store import FeatureStore
from emolib.figures import evaluation as pictures
from emolib.learning.crossvalidation import cross_validate
from emolib.learning.evaluation import Evaluation, FoldResult
from emolib.learning.progress import FOLDER, Progress
from emolib.storage import absolute, new_folder, write_bytes, write_json
from jobs.bounds import Epochs, Seed
from jobs.console import Result, epoch_progress, say, table
from jobs.evaluate_archive import evaluate_archive, interval
from jobs.train import ArchitectureOption, TaskOption, provenance

ProtocolOption = Annotated[
    Literal["random5", "speaker6", "ravdess6", "savee4", "corpus", "grouped"],
    Parameter(
        help="How to split. random5: speakers on both sides, as the article did; speaker6, ravdess6, savee4: the "
        "published folds, no speaker on both sides; corpus: leave one corpus out; grouped: speakers of your own table."
    ),
]
# Those that a killed evaluation has written already are written again.
_FILES = ("predictions.parquet", "confusion.svg", "reliability.svg", "evaluation.json")
_HEADLINE = ["n", "accuracy", "uar", "macro_f1"]
_SPREAD = {"mean": "fold_mean", "deviation": "fold_std"}


def evaluate(
    store: str | None = None,
    *,
    task: TaskOption | None = None,
    protocol: ProtocolOption | None = None,
    out: str,
    architecture: ArchitectureOption = "default",
    seed: Seed = 0,
    epochs: Epochs = None,
    learn_from_others: Annotated[bool, Parameter(negative=())] = False,
    archive: str | None = None,
    truth: str | None = None,
) -> Result:
    """Judge an architecture on a feature store, or the predictions of an archive whose calls are known.

    STORE, --task and --protocol: train and test it fold by fold, beside a support vector machine. Writes
    evaluation.json, predictions.parquet (what every figure was computed from), confusion.svg and reliability.svg.
    Variants to judge by (`extract --variants channels`) get a table of robustness. An evaluation that was killed goes
    on after its last whole epoch when the same command is run again.

    --archive and --truth: the labels of windows, the polarity of customers call by call, and speech activity against
    the truth. Writes evaluation.json, windows.parquet, calls.parquet, confusion.svg and polarity.svg.

    Parameters
    ----------
    store
        A complete store, S.zarr.
    out
        The folder to make.
    seed
        Decides weights, order and the speakers set aside.
    epochs
        Passes over each fold's training part; without it as many as the architecture's recipe says.
    learn_from_others
        Learn in every fold from the corpora of the store that the protocol does not test, too.
    archive
        The predictions that `emolib score` made of an archive, with a model that has never heard its speakers.
    truth
        Who speaks when in it, and with which emotion: the table truth.parquet that `emolib benchmark` writes.
    """
    folder = new_folder(out, mark=FOLDER, files=_FILES)
    if archive is not None and truth is not None and store is None and task is None and protocol is None:
        return evaluate_archive(archive, truth, out=out)
    if store is None or task is None or protocol is None or archive is not None or truth is not None:
        raise SettingsError(
            "expected STORE, --task and --protocol, to judge an architecture, or --archive and --truth, to judge "
            "predictions: give those of one of the two"
        )
    opened = FeatureStore.open(store)
    made_from = provenance(opened, task=task, architecture=architecture, epochs=epochs)
    asked = {"protocol": protocol, "seed": seed, "learn_from_others": learn_from_others}
    progress = Progress(folder, {**made_from, **asked, "store_windows": opened.windows_hash})
    with epoch_progress() as show:
        evaluation = cross_validate(
            opened,
            task=task,
            protocol=protocol,
            architecture=architecture,
            seed=seed,
            epochs=epochs,
            learn_from_others=learn_from_others,
            progress=progress,
            on_fold=_say_fold,
            on_epoch=show,
        )
    report = {**evaluation.report(), **made_from, "store": absolute(store)}
    buffer = io.BytesIO()
    evaluation.predictions.to_parquet(buffer, index=False)
    write_bytes(folder / "predictions.parquet", buffer.getvalue())
    matrix = np.array(report["pooled"]["confusion"])
    figure = figures.confusion_matrix(matrix, evaluation.classes, title=f"{task}, {protocol}, {architecture}")
    write_bytes(folder / "confusion.svg", figures.to_svg(figure).encode())
    found = report["calibration"]
    reliability = {name: np.array(values, float) for name, values in found["reliability"].items()}
    drawn = pictures.reliability_diagram(**reliability, error=found["error"])
    write_bytes(folder / "reliability.svg", figures.to_svg(drawn).encode())
    write_json(folder / "evaluation.json", report)
    progress.remove()
    _print(evaluation, report)
    return Result({"job": "evaluate", "out": out, **_summary(report)})


def _say_fold(fold: FoldResult) -> None:
    say(
        f"fold {fold.name}: UAR {fold.metrics['uar']:.3f}, accuracy {fold.metrics['accuracy']:.3f}, "
        f"temperature {fold.temperature:.2f} ({fold.seconds / 60:.1f} min)"
    )


def _print(evaluation: Evaluation, report: dict[str, Any]) -> None:
    kept_apart = "speakers kept apart" if evaluation.speaker_independent else "the SAME SPEAKERS in training and test"
    parts = {"pooled": {**report["pooled"], "baseline": report["baseline"]}}
    if "without_tess" in report:
        parts["without TESS"] = report["without_tess"]
    parts |= {f"corpus {name}": found for name, found in report["per_corpus"].items()}
    parts |= report["per_gender"]
    table(
        f"{evaluation.task}, {evaluation.protocol}: {kept_apart}; 95 % intervals over speakers; SVM: the baseline",
        ["", "n", "accuracy", "95 %", "UAR", "95 %", "SVM accuracy", "SVM UAR"],
        [
            [
                name,
                found["n"],
                found["accuracy"],
                interval(found, "accuracy"),
                found["uar"],
                interval(found, "uar"),
                found["baseline"]["accuracy"],
                found["baseline"]["uar"],
            ]
            for name, found in parts.items()
        ],
    )
    folds = [[fold.name, *(fold.metrics[name] for name in _HEADLINE)] for fold in evaluation.folds]
    folds += [[name, None, *(report[key][column] for column in _HEADLINE[1:])] for name, key in _SPREAD.items()]
    table("folds", ["fold", "n", "accuracy", "UAR", "macro-F1"], folds)
    classes = [
        [name, each["support"], each["recall"], each["precision"], each["f1"]]
        for name, each in report["pooled"]["per_class"].items()
    ]
    table("classes", ["class", "n", "recall", "precision", "F1"], classes)
    if len(report["variants"]) > 1:
        rows = [
            [name, *(found[c] for c in ("n", "accuracy", "uar", "drop"))] for name, found in report["variants"].items()
        ]
        table("robustness", ["variant", "n", "accuracy", "UAR", "UAR lost, points"], rows)
    found = report["calibration"]
    say(
        f"calibration error {found['error']:.3f}; {found['uncalibrated_error']:.3f} before the probabilities were "
        "softened"
    )
    wanted = [[f"{row['wanted']:.0%} right", row["precision"], row["coverage"]] for row in report["abstention"]]
    table("labels only where the model is sure", ["wanted", "right", "share with a label"], wanted)
    if not evaluation.speaker_independent:
        say("These figures say how well known speakers are told; for new ones see --protocol speaker6 or grouped.")


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """Leave matrices, diagrams and the folds' details to evaluation.json: the summary is one line."""
    pooled = {name: value for name, value in report["pooled"].items() if name != "confusion"}
    folds = [{"name": fold["name"]} | {n: fold["metrics"][n] for n in _HEADLINE} for fold in report["folds"]]
    error = {"error": report["calibration"]["error"]}
    return {**report, "pooled": pooled, "folds": folds, "calibration": error}
