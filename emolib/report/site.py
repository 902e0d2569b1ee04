"""Predictions -> one HTML page with everything inside: no scripts, no fonts, no network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib import archive, figures
from emolib.archive import ledger
from emolib.archive.agreement import Agreement
from emolib.archive.drift import Drift
from emolib.archive.mixture import Mixture, mixture
from emolib.archive.run_settings import RunConfig
from emolib.errors import Outcome
from emolib.report.pages import render
from emolib.storage import AnyPath, new_folder, resolve, write_bytes

_ROWS_SHOWN = 50
_LEAST_SHARE = 0.001
_ENOUGH = 20  # calls and speakers, for an interval over them to hold what it says
_POLARITIES = ["polarity_negative", "polarity_neutral", "polarity_positive"]


def write_site(
    pred: AnyPath,
    out: AnyPath,
    *,
    runs: Collection[str] | None = None,
    drifts: Sequence[Drift] = (),
    agreement: Agreement | None = None,
) -> str:
    """Write the page of some predictions.

    Parameters
    ----------
    pred
        The predictions.
    out
        A new folder.
    runs
        Ids of the runs that it tells of; None: all.
    drifts
        What these runs brought against those before.
    agreement
        How a candidate that listened in stands to the model.

    Returns
    -------
    str
        Where the page lies.

    Raises
    ------
    SettingsError
        If the folder exists and is not empty, or there are no predictions.
    """
    folder = new_folder(out)
    tables = {name: archive.read(pred, table=name, runs=runs) for name in ("recordings", "channels", "windows")}
    page = render("page.html.j2", {**_content(pred, **tables), "drifts": drifts, "agreement": _agreement(agreement)})
    write_bytes(folder / "index.html", page.encode())
    return str(folder / "index.html")


def _content(pred: AnyPath, recordings: pd.DataFrame, channels: pd.DataFrame, windows: pd.DataFrame) -> dict[str, Any]:
    scored = channels[channels["outcome"] == Outcome.SCORED].merge(
        recordings[["recording_id", "uri", "decoded_s"]], on="recording_id", validate="many_to_one"
    )
    config = ledger.runs(pred)[-1].config if len(recordings) else None
    heard = None
    if config is not None:  # estimates are by the mistakes of one model: what was scored otherwise is left out
        alike = windows["scoring_fingerprint"] == config.scoring_fingerprint
        heard = mixture(windows[alike], recordings, config)
    dates = recordings["date"].dt.strftime("%Y-%m-%d")
    return {
        "name": resolve(pred).name,
        "models": sorted(recordings["model_id"].unique()),
        "first_date": dates.min() if len(dates) else "-",
        "last_date": dates.max() if len(dates) else "-",
        "recordings": len(recordings),
        "scored": int((recordings["outcome"] == Outcome.SCORED).sum()),
        "skipped": int((recordings["outcome"] == Outcome.SKIPPED).sum()),
        "failed": int((recordings["outcome"] == Outcome.FAILED).sum()),
        "hours": recordings["decoded_s"].sum() / 3600,
        "windows": len(windows),
        "abstained": int(windows["emotion"].isna().sum()),
        "outcomes": _outcomes(recordings),
        "mixture": None if heard is None or config is None else _mixture(heard, config),
        "pictures": _pictures(scored, windows),
        "worst": _records(scored.sort_values(["worst_negative", "uri"], ascending=[False, True])),
        "channels": _records(scored.assign(emotion=_dominant(scored)).sort_values(["date", "uri", "channel"])),
        "channels_total": len(scored),
        "bad": _records(recordings[recordings["outcome"] != Outcome.SCORED].sort_values(["outcome", "code", "uri"])),
        "bad_total": int((recordings["outcome"] != Outcome.SCORED).sum()),
    }


def _agreement(found: Agreement | None) -> dict[str, Any] | None:
    if found is None:
        return None
    figure = figures.confusion_matrix(found.counts, found.labels, rows="model", columns="candidate")
    return {**found.brief(), "svg": figures.to_svg(figure)}


def _outcomes(recordings: pd.DataFrame) -> list[dict[str, Any]]:
    grouped = recordings.groupby(["outcome", "code"]).agg(count=("uri", "size"), seconds=("decoded_s", "sum"))
    return _records(grouped.reset_index().sort_values(["outcome", "count"], ascending=[False, False]))


def _mixture(heard: Mixture, config: RunConfig) -> dict[str, Any]:
    """Return how frequent the emotions are: a table, a picture, and text for `emolib score --priors`."""
    found = heard.prevalence
    rows = [
        {
            "emotion": name,
            "estimate": found.estimate[number],
            "interval": None if found.interval is None else found.interval[number],
            "counted": heard.counted[number],
            "likely": heard.likely[number],
        }
        for number, name in enumerate(heard.classes)
    ]
    few = min(heard.calls, heard.speakers) < _ENOUGH
    # An estimate from the mistakes with two speakers would be a picture of these two.
    drawn = heard.likely if few else found.estimate
    order = np.argsort(-drawn)
    figure = figures.shares(
        [heard.classes[number] for number in order],
        drawn[order],
        interval=None if few or found.interval is None else found.interval[order],
        label="share of the speech, " + ("likeliest mixture" if few else "estimated"),
    )
    return {
        "rows": rows,
        "corrected": config.scoring_settings["priors"],
        "few": few,
        "calls": heard.calls,
        "speakers": heard.speakers,
        "priors": _spelt(heard, np.array(config.priors) > 0),
        "svg": figures.to_svg(figure),
    }


def _spelt(heard: Mixture, possible: NDArray[np.bool_]) -> str:
    """Return the likely mixture as the command line wants it, its sum 1 to the last digit.

    What the model may find at all keeps a share: with none it could never be found again.
    """
    shares = np.round(np.where(possible, np.maximum(heard.likely, _LEAST_SHARE), 0.0), 3)
    shares[shares.argmax()] += 1 - shares.sum()
    return ",".join(f"{name}={share:.3f}" for name, share in zip(heard.classes, shares, strict=True))


def _pictures(scored: pd.DataFrame, windows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return title and SVG of each picture; none where nothing is scored."""
    if scored.empty or windows.empty:
        return []
    by_date = scored.groupby(scored["date"].dt.strftime("%Y-%m-%d"))[_POLARITIES].mean()
    confidence = windows["confidence"].to_numpy(np.float64)
    drawn = {
        "Polarity by date of the call": figures.polarity_by_date(list(by_date.index), by_date.to_numpy()),
        "How sure the model was": figures.histogram(confidence, label="probability of the label"),
    }
    return [{"title": title, "svg": figures.to_svg(figure)} for title, figure in drawn.items()]


def _dominant(scored: pd.DataFrame) -> pd.Series:
    """Return the class with the largest share of each channel's sound."""
    shares = scored.filter(regex="^share_").fillna(0.0)
    return shares.idxmax(axis=1).str.removeprefix("share_") if len(scored) else pd.Series(dtype="str")


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the first rows as plain values, missing ones as None."""
    shown = rows.head(_ROWS_SHOWN).astype(object)
    records: list[dict[str, Any]] = shown.where(shown.notna(), None).to_dict("records")
    return records
