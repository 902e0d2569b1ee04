"""`emolib verify`: prove that predictions, or a feature store, are whole."""

from __future__ import annotations

from emolib.archive.verification import verify as verify_predictions
from emolib.errors import SettingsError
from emolib.features.store import FeatureStore, verify as verify_store
from emolib.storage import resolve
from jobs.console import EXIT_DONE, EXIT_VERIFY, Result, say
from jobs.scratch import scratch

_SHOWN = 20


def verify(path: str) -> Result:
    """Prove that predictions, or a feature store, are whole.

    Predictions: every planned recording has exactly one row, no row stands twice, the tables agree with each other,
    nothing uncommitted lies about. A store: every row has its outcome and finite numbers.

    Parameters
    ----------
    path
        The predictions or the store, a path or an fsspec URL.
    """
    if not resolve(path).exists():
        raise SettingsError(f"nothing found at {path}, expected predictions or a feature store")
    if FeatureStore.is_planned(path):
        store = FeatureStore.open(path)
        problems, counts = verify_store(store), {"windows": store.shape[0], "utterances": len(store.utterance_codes())}
    else:
        with scratch() as folder:
            verification = verify_predictions(path, folder=folder)
        problems, counts = verification.problems, dict(verification.counts)
    for problem in problems[:_SHOWN]:
        say(problem)
    if len(problems) > _SHOWN:
        say(f"and {len(problems) - _SHOWN} problems more")
    say(f"{path}: {'whole' if not problems else f'{len(problems)} problems'}")
    summary = {"job": "verify", "path": path, "whole": not problems, "problems": len(problems), "counts": counts}
    return Result(summary, EXIT_VERIFY if problems else EXIT_DONE)
