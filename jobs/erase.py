"""`emolib erase`: a call that somebody wants forgotten."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from emolib.archive.forgetting import bury, forget, recordings_of
from emolib.archive.ledger import check_key, known
from emolib.archive.lock import Lock
from emolib.archive.predictions import require_predictions
from emolib.archive.pseudonyms import Pseudonyms
from emolib.archive.verification import verify
from emolib.errors import SettingsError
from emolib.storage import absolute
from jobs.console import EXIT_DONE, EXIT_VERIFY, Result, say
from jobs.scratch import scratch


def erase(
    pred: str, *, call_id: Annotated[tuple[str, ...], Parameter(negative=())], pseudonyms: str | None = None
) -> Result:
    """Remove all that predictions hold of some calls, and never score them again.

    Their rows go from every table, plan and verdict, and a keyed hash of each recording stays, so that no later run
    plans it. Other calls whose recordings are known to be copies of theirs (`--find-duplicates`) are named, and stay:
    once the original is gone a copy is scored itself. The recordings themselves are not touched, nor are pages and
    exports that were made before.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    call_id
        A call, as the column call_id has it; may be given several times.
    pseudonyms
        The file with the key, where the tables hold pseudonyms and the calls are named by what they are really called.
    """
    pred = absolute(pred)
    require_predictions(pred)
    given = None if pseudonyms is None else Pseudonyms.load(pseudonyms)
    if given is not None:  # without a key calls are named as the tables name them
        check_key(pred, given.key_id)
    in_tables = {name: name if given is None else given.of(name) for name in call_id}
    with Lock(pred) as lock, scratch() as folder:
        of_call = {name: recordings_of(pred, there) for name, there in in_tables.items()}
        unknown = [name for name, recordings in of_call.items() if not recordings]
        if len(unknown) == len(of_call):
            raise SettingsError(
                f"nothing found of call {unknown[0]} in {pred}, expected a call_id of its tables, or --pseudonyms "
                "where those hold pseudonyms; erased calls are gone"
            )
        for name in unknown:
            say(f"nothing found of call {name}: it was erased before, or is spelt otherwise")
        recordings = set().union(*of_call.values())
        same = _same_sound(pred, recordings)
        gone = {in_tables[name] for name in of_call if name not in unknown}
        bury(pred, {*recordings, *gone}, lock=lock)  # first: whatever happens now, nobody plans it again
        rows = forget(pred, recordings, lock=lock)
        problems = verify(pred, folder=folder).damage
    if same:
        say(f"calls that have the same sound, and stay: {', '.join(same)}")
    for problem in problems[:5]:
        say(problem)
    summary = {
        "job": "erase",
        "out": pred,
        "calls": len(of_call) - len(unknown),
        "recordings": len(recordings),
        "recordings_with_rows": rows,
        "same_sound": same,
        "problems": len(problems),
    }
    return Result(summary, EXIT_VERIFY if problems else EXIT_DONE)


def _same_sound(pred: str, recordings: set[str]) -> list[str]:
    """Return the call_id of other calls with a recording that is a copy of one of these, or the other way round."""
    rows = known(pred, "call_id")
    copied = rows["duplicate_of"].isin(recordings) | rows["recording_id"].isin(
        rows.loc[rows["recording_id"].isin(recordings), "duplicate_of"].dropna()
    )
    return sorted(rows.loc[copied & ~rows["recording_id"].isin(recordings), "call_id"].unique())
