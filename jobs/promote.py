"""`emolib promote`: a model takes over from the one that scores an archive."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from emolib.archive import ledger
from emolib.archive.agreement import Agreement, agreement
from emolib.archive.lock import Lock
from emolib.archive.predictions import require_predictions
from emolib.archive.promotion import in_force, record
from emolib.archive.run_settings import scoring_settings, shared_settings
from emolib.config import differences
from emolib.errors import SettingsError
from emolib.learning.bundle import ModelBundle
from emolib.storage import absolute, is_same
from jobs.console import EXIT_DONE, Result, say, table


def promote(pred: str, *, model: str, plan: Annotated[bool, Parameter(negative=())] = False) -> Result:
    """Compare a model with the one that scores an archive, and let it take over.

    From then on `score` and `nightly` score with it, also where their settings still name the model before it. Rows
    that are there stay, each with its model_id. Who promoted what, when, and how the two agreed where it had listened
    in (`--shadow`) is kept in _promotions.json. To go back, promote the model before.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    model
        The model bundle that is to take over; it must have the same features, windows and classes.
    plan
        Say how the two agree, and stop.
    """
    pred, model = absolute(pred), absolute(model)
    require_predictions(pred)
    bundle = ModelBundle.load(model)
    bundle.check_golden()
    before = _before(pred, bundle, model)
    found = agreement(pred, bundle.model_id, other=before)
    brief = None if found is None else found.brief()
    if found is None:
        say(f"model {bundle.model_id} has not listened in here: nothing says how it differs from {before}")
    else:
        show_agreement(found)
    if not plan:
        with Lock(pred) as lock:
            if _before(pred, bundle, model) != before:
                raise SettingsError(f"another model took over from {before} meanwhile; run the same command again")
            record(pred, replaced=before, model=model, model_id=bundle.model_id, agreement=brief, lock=lock)
        say(f"model {bundle.model_id} takes over from {before}")
    summary = {"job": "promote", "out": pred, "plan": plan, "model_id": bundle.model_id, "replaced": before}
    return Result({**summary, "agreement": brief}, EXIT_DONE)


def show_agreement(found: Agreement) -> None:
    """Say how a candidate's labels stand to the model's: a line for each label of the model."""
    rows = [[name, *map(int, counts)] for name, counts in zip(found.labels, found.counts, strict=True)]
    title = f"windows, as {found.other} labels them, by what {found.model_id} says"
    table(title, ["", *found.labels], rows)
    between = "" if found.interval is None else f" ({found.interval[0]:.3f} to {found.interval[1]:.3f})"
    chance = "" if found.kappa is None else f", kappa {found.kappa:.3f}"
    say(f"they agree on {found.share:.3f}{between} of {found.windows} windows of {found.calls} calls{chance}")


def _before(pred: str, bundle: ModelBundle, model: str) -> str:
    """Return the `model_id` of the model in force, whose place a bundle may take.

    Raises
    ------
    SettingsError
        If the bundle is that model and lies where it lay, or its rows could not stand beside those that are there.
    """
    runs, promoted = ledger.runs(pred), in_force(pred)
    if not runs:
        raise SettingsError(f"no run found in {pred}, expected one to replace the model of; score the archive first")
    config = runs[-1].config
    before = config.model_id if promoted is None else promoted.model_id
    if bundle.model_id == before and is_same(model, config.model if promoted is None else promoted.model):
        raise SettingsError(f"model {before} is in force in {pred}, expected another one")
    theirs = scoring_settings(bundle, config.scoring)
    if differs := differences(shared_settings(config.scoring_settings), shared_settings(theirs)):
        raise SettingsError(
            f"model {bundle.model_id} can't take over from {before}: {differs}; score with it to an --out of its own"
        )
    return before
