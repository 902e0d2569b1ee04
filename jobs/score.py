"""`emolib score`: an archive of calls -> predictions."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter

from emolib.archive.lock import Lock
from emolib.storage import absolute
from jobs.console import Result
from jobs.options import Options
from jobs.preview import show_plan
from jobs.runs import carry_out, summarise
from jobs.tasks import prepared


def score(archive: str, *, out: str, options: Options, plan: Annotated[bool, Parameter(negative=())] = False) -> Result:
    """Label an archive of calls; run it again and it continues.

    First it finishes what an interrupted run had planned, then it lists the archive and scores what has no row yet.
    Recordings that can't be scored get a row with the reason.

    Parameters
    ----------
    archive
        A folder or fsspec URL, walked recursively; it is only read.
    out
        The predictions: a new folder or URL, or the one to continue.
    plan
        Say what would be done, and stop.
    """
    out = absolute(out)
    with prepared(archive, out, options) as task:
        if plan:
            return show_plan(task, job="score")
        began = time.monotonic()
        with Lock(out) as lock:
            runs = carry_out(task, lock)
        seconds = time.monotonic() - began
        return summarise(task, runs, job="score", seconds=seconds, options=options)
