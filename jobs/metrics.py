"""Measures of a night for machines: an OpenMetrics file, such as Prometheus's node exporter collects from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.exposition import generate_latest

from emolib.errors import Code
from emolib.storage import AnyPath, write_bytes

_PLAIN = {
    "exit_code": ("exit_code", "Exit code of the last night"),
    "seconds": ("duration_seconds", "What the last night took"),
    "audio_s": ("audio_seconds", "Sound of the runs that the last night closed, whichever night decoded it"),
    "listed": ("recordings_listed", "Recordings in the archive"),
    "unreadable_folders": ("folders_unreadable", "Folders of the archive that could not be read"),
    "ambiguous": ("recordings_ambiguous", "Recordings that are files whose names differ only in their Unicode form"),
    "left_for_later": ("recordings_left", "Recordings that are left for a later night"),
    "table_rows_unread": ("calls_table_rows_unread", "Rows of the table of calls that can't be read"),
    "problems": ("verify_problems", "Problems that verify found"),
}


def write_metrics(path: AnyPath, summary: Mapping[str, Any], *, ended_s: float) -> None:
    """Write what the summary of a night says as OpenMetrics text; the file is whole at any time.

    Parameters
    ----------
    summary
        Of `emolib nightly`, with its exit code; what a night that failed does not know is left out.
    ended_s
        When it ended, in seconds since 1970.
    """
    registry = CollectorRegistry()
    Gauge("emolib_night_ended_timestamp_seconds", "End of the last night", registry=registry).set(ended_s)
    for key, (name, meaning) in _PLAIN.items():
        if key in summary:
            Gauge(f"emolib_night_{name}", meaning, registry=registry).set(summary[key])
    recordings = Gauge(
        "emolib_night_recordings",
        "Recordings of the runs that the last night closed",
        ["outcome", "code"],
        registry=registry,
    )
    for code in Code if "codes" in summary else ():
        recordings.labels(code.outcome.value, code.value).set(summary["codes"].get(code.value, 0))
    drift = Gauge(
        "emolib_night_drift_psi",
        "Population stability index of a measure that moved against the weeks before",
        ["site", "queue", "verdict", "measure"],
        registry=registry,
    )
    for group in summary.get("drift", ()):
        for measure, moved in group["moved"].items():
            drift.labels(group["site"] or "", group["queue"] or "", group["verdict"], measure).set(moved["psi"])
    if (shadow := summary.get("shadow")) is not None:
        agreement = Gauge(
            "emolib_night_shadow_agreement",
            "Share of the windows that a candidate labelled as the model did",
            ["model_id"],
            registry=registry,
        )
        agreement.labels(shadow["model_id"]).set(shadow["agreement"])
    write_bytes(path, generate_latest(registry))
