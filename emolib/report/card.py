"""The model card: what a model was made from, how good it is, what it must not be used for (Mitchell et al. 2019)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emolib import figures
from emolib.config import differences
from emolib.errors import SettingsError
from emolib.figures import evaluation as pictures
from emolib.report.pages import render
from emolib.storage import AnyPath, read_json, resolve

LICENCES = {
    "ravdess": "CC BY-NC-SA 4.0, Livingstone and Russo 2018: not for commercial use",
    "savee": "research only, Haq and Jackson 2010",
    "tess": "research only, Pichora-Fuller and Dupuis 2020: not for commercial use",
}
"""Under which licences the known corpora are published; a model is bound by what it was made from."""

NOT_FOR = (
    "Decisions about a single person: it guesses what a voice sounds like, not what somebody feels.",
    "Emotions of employees at work or of students: prohibited in the European Union (AI Act, Article 5(1)(f)). "
    "Of customers it is a high-risk use, with the duties that go with it.",
    "Languages, ages and ways of speaking that the corpora lack: a few actors read a few English sentences, and acted "
    "emotions are stronger than those of calls.",
    "Counting emotions as they are labelled: corpora are balanced and calls mostly neutral. emolib report estimates.",
)
_FIGURES = ("accuracy", "uar")


def read_evaluations(folders: Sequence[AnyPath], *, expected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what `emolib evaluate` found of the recipe that a model is made by.

    Parameters
    ----------
    folders
        That `emolib evaluate` wrote.
    expected
        What is to be trained, in the words of ``evaluation.json``.

    Raises
    ------
    SettingsError
        If a folder holds no evaluation, or one of something else.
    """
    reports = []
    for folder in folders:
        place = resolve(folder) / "evaluation.json"
        if not place.exists():
            raise SettingsError(f"{place} not found, expected what `emolib evaluate --out {folder}` writes")
        report = read_json(place)
        if differs := differences({name: report.get(name) for name in expected}, expected):
            raise SettingsError(f"{place} is of something else: {differs}; evaluate what is to be trained")
        reports.append(report)
    return reports


def card(
    manifest: Mapping[str, Any], *, history: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    """Return the files of a model card, ``card.json`` and ``card.html``, by their names.

    Parameters
    ----------
    manifest
        What `bundle.json` holds.
    history
        Of the training, one entry an epoch.
    evaluations
        Reports of `emolib.learning.evaluation.Evaluation`, of the same recipe.
    """
    training = manifest["training"]
    values = {
        "model_id": manifest["model_id"],
        "task": manifest["labels"]["name"],
        "classes": manifest["labels"]["classes"],
        "polarity": manifest["labels"]["polarity"],
        "architecture": training["architecture"],
        "profile": manifest["profile"],
        "data": {name: LICENCES.get(name, "as its owner says") for name in training["corpora"]},
        "training": {name: value for name, value in training.items() if name not in ("corpora", "architecture")},
        "history": list(history),
        "temperature": manifest["temperature"],
        "abstention_threshold": manifest["abstention_threshold"],
        "promise": manifest["promise"],
        "priors": manifest["priors"],
        "validation": manifest["metrics"],
        "evaluations": list(evaluations),
        "not_for": list(NOT_FOR),
        "versions": manifest["versions"],
    }
    page = render("card.html.j2", {"name": f"model {values['model_id']}", **values, **_drawn(values)})
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    return {"card.json": text.encode(), "card.html": page.encode()}


def _drawn(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "curves": figures.to_svg(pictures.training_curves(values["history"])),
        "judged": [_judged(report) for report in values["evaluations"]],
    }


def _judged(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables and the pictures of an evaluation."""
    parts = {"all": {**report["pooled"], "baseline": report["baseline"]}}
    if "without_tess" in report:
        parts["without TESS"] = report["without_tess"]
    parts |= {f"corpus {name}": found for name, found in report["per_corpus"].items()} | report["per_gender"]
    found = report["calibration"]
    reliability = {name: np.array(each, float) for name, each in found["reliability"].items()}
    confusion = figures.confusion_matrix(np.array(report["pooled"]["confusion"]), report["classes"])
    drawn = pictures.reliability_diagram(**reliability, error=found["error"])
    return {
        "report": report,
        "parts": [_row(name, part) for name, part in parts.items()],
        "confusion": figures.to_svg(confusion),
        "reliability": figures.to_svg(drawn),
    }


def _row(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    def interval(figure: str) -> str:
        found = part["intervals"]
        return "" if found is None else f"{found[figure][0]:.3f} to {found[figure][1]:.3f}"

    own = {figure: (part[figure], interval(figure)) for figure in _FIGURES}
    return {"name": name, "n": part["n"], "own": own, "baseline": {name: part["baseline"][name] for name in _FIGURES}}
