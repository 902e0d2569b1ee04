"""`emolib report`: predictions -> a page for people."""

from __future__ import annotations

from emolib.report.site import write_site
from jobs.console import Result, say


def report(pred: str, *, out: str) -> Result:
    """Make a page from predictions: what was scored, what was not and why, and what the calls sound like.

    Parameters
    ----------
    pred
        The predictions that `emolib score` wrote.
    out
        The folder to make; one plain HTML file with its pictures inside.
    """
    page = write_site(pred, out)
    say(f"page: {page}")
    return Result({"job": "report", "pred": pred, "page": str(page)})
