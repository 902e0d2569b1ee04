"""`emolib evaluate --archive`: how well predictions agree with what is known of the calls."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from emolib import figures
from emolib.archive.judging import Judgement, judge
from emolib.archive.truth import NOT_COUNTED
from emolib.figures import evaluation as pictures
from emolib.storage import absolute, resolve, write_bytes, write_json
from jobs.console import Result, say, table

_SAY_EVERY_S = 30.0
_TALK = {
    "agent_talk_s": "agent's talk",
    "customer_talk_s": "customer's talk",
    "overlap_s": "both at once",
    "non_talk_s": "silence of more than 3 s",
}


def evaluate_archive(archive: str, truth: str, *, out: str) -> Result:
    """Compare predictions with a truth; write and print what was found (see `jobs.evaluate.evaluate`)."""
    said = time.monotonic()

    def listened(count: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            say(f"{count} of {total} recordings listened to, for speech activity")

    judged = judge(archive, truth, on_recording=listened)
    report = {"archive": absolute(archive), "truth": absolute(truth), **judged.report}
    folder = resolve(out)
    for name, rows in (("windows", judged.windows), ("calls", judged.calls)):
        write_bytes(folder / f"{name}.parquet", _parquet(rows))
    for name, drawn in _pictures(judged).items():
        write_bytes(folder / f"{name}.svg", figures.to_svg(drawn).encode())
    write_json(folder / "evaluation.json", report)
    _print(report)
    return Result({"job": "evaluate", "out": out, **_summary(report)})


def interval(found: Mapping[str, Any], name: str) -> str:
    """Return the interval of a figure as text."""
    bounds = found["intervals"]
    return "-" if bounds is None else f"{bounds[name][0]:.3f} to {bounds[name][1]:.3f}"


def _parquet(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _pictures(judged: Judgement) -> dict[str, Any]:
    report, classes = judged.report, judged.classes
    whole, polarity = report["windows"]["all"], report["polarity"]
    both = judged.calls.dropna(subset=["polarity_true", "polarity_found"])
    drawn = {}
    if whole["n"]:
        title = f"{whole['n']} windows of {len(report['speakers'])} speakers, {report['task']}"
        drawn["confusion"] = figures.confusion_matrix(np.array(whole["confusion"]), classes, title=title)
    if len(both):
        pearson = polarity["pearson"]
        title = f"{len(both)} calls" + ("" if pearson is None else f", Pearson's correlation {pearson:.2f}")
        values = [both[name].to_numpy(np.float64) for name in ("polarity_true", "polarity_found")]
        drawn["polarity"] = pictures.agreement(*values, label="customer's mean polarity", title=title)
    return drawn


def _print(report: Mapping[str, Any]) -> None:
    windows, polarity = report["windows"], report["polarity"]
    table(
        "windows; 95 % intervals over speakers, unknown to the model",
        ["", "n", "accuracy", "95 %", "UAR", "95 %"],
        [
            [name, part["n"], part["accuracy"], interval(part, "accuracy"), part["uar"], interval(part, "uar")]
            for name, part in windows.items()
            if part["n"]
        ],
    )
    whole = windows["all"]
    table(
        "scored windows that do not count",
        ["", "windows"],
        [
            *([about, whole["not_counted"][name]] for name, about in NOT_COUNTED.items()),
            ["no label", whole["abstained"]],
        ],
    )
    if whole["n"]:
        rows = [[name, each["support"], each["recall"], each["precision"]] for name, each in whole["per_class"].items()]
        table("classes", ["class", "n", "recall", "precision"], rows)
    names = {"pearson": "Pearson", "spearman": "Spearman"}
    table(
        "customer's mean polarity",
        ["correlation", "calls", "customers", "found", "95 %"],
        [
            [label, polarity["calls"], polarity["customers"], polarity[name], interval(polarity, name)]
            for name, label in names.items()
        ],
    )
    speech = [
        [name, part["speech_s"] / 60, part["missed"], part["false_alarm"], part["error"]]
        for name, part in report["speech"].items()
    ]
    table("speech activity, against all speech", ["", "minutes", "missed", "false alarm", "sum"], speech)
    talk = [
        [_TALK[name], each["true"], each["found"], each["error"], each["absolute_error"]]
        for name, each in report["talk"].items()
    ]
    table("seconds of a call", ["", "true", "found", "error", "absolute error"], talk)


def _summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """Leave matrices and classes to evaluation.json: the summary is one line."""
    windows = {
        name: {key: value for key, value in part.items() if key not in ("confusion", "per_class")}
        for name, part in report["windows"].items()
    }
    return {**report, "windows": windows}
