"""Predictions -> one HTML page with everything inside: no scripts, no fonts, no network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from emolib import archive, figures
from emolib.errors import Outcome
from emolib.report.pages import new_folder, render
from emolib.storage import AnyPath, resolve, write_bytes

_ROWS_SHOWN = 50
_POLARITIES = ["polarity_negative", "polarity_neutral", "polarity_positive"]


def write_site(pred: AnyPath, out: AnyPath) -> str:
    """Write the page of some predictions.

    Parameters
    ----------
    pred
        The predictions.
    out
        A new folder.

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
    tables = {name: archive.read(pred, table=name) for name in ("recordings", "channels", "windows")}
    page = render("page.html.j2", _content(pred, **tables))
    write_bytes(folder / "index.html", page.encode())
    return str(folder / "index.html")


def _content(pred: AnyPath, recordings: pd.DataFrame, channels: pd.DataFrame, windows: pd.DataFrame) -> dict[str, Any]:
    scored = channels[channels["outcome"] == Outcome.SCORED].merge(
        recordings[["recording_id", "uri", "decoded_s"]], on="recording_id", validate="many_to_one"
    )
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
        "pictures": _pictures(scored, windows),
        "worst": _records(scored.sort_values(["worst_negative", "uri"], ascending=[False, True])),
        "channels": _records(scored.assign(emotion=_dominant(scored)).sort_values(["date", "uri", "channel"])),
        "channels_total": len(scored),
        "bad": _records(recordings[recordings["outcome"] != Outcome.SCORED].sort_values(["outcome", "code", "uri"])),
        "bad_total": int((recordings["outcome"] != Outcome.SCORED).sum()),
    }


def _outcomes(recordings: pd.DataFrame) -> list[dict[str, Any]]:
    grouped = recordings.groupby(["outcome", "code"]).agg(count=("uri", "size"), seconds=("decoded_s", "sum"))
    return _records(grouped.reset_index().sort_values(["outcome", "count"], ascending=[False, False]))


def _pictures(scored: pd.DataFrame, windows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return title and SVG of each picture; none where nothing is scored."""
    if scored.empty or windows.empty:
        return []
    counts = windows["emotion"].value_counts(normalize=True).sort_values(ascending=False)
    by_date = scored.groupby(scored["date"].dt.strftime("%Y-%m-%d"))[_POLARITIES].mean()
    confidence = windows["confidence"].to_numpy(np.float64)
    drawn = {
        "What was heard": figures.shares(list(counts.index), counts.tolist(), label="share of labelled windows"),
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
