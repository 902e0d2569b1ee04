"""Run one benchmark in this process and write its rows: `python -m tests.benchmarks.one NAME ROWS.json`.

A benchmark is a module with a function `measure()` that returns rows, or a dict of figures by name, nested or not: its
numbers become rows, and all of it, lists too, goes into the JSON as it is.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from tests.benchmarks.rows import as_rows, at_least, at_most

# What the figures of benchmarks that return them by name are held against: the trainer's input gives rows at least 5
# times as fast, from disk, as the default network takes them, which waits less than 5 % of its time.
_TARGETS = {"streaming": {"times_consumption": at_least(5), "waiting_share: disk": at_most(0.05, "")}}


def main(name: str, out: str) -> None:
    measured = importlib.import_module(f"tests.benchmarks.{name}").measure()
    is_named = isinstance(measured, dict)
    rows = as_rows(measured, _TARGETS.get(name, {}), prefix=name) if is_named else measured
    written = {"rows": [row.model_dump(mode="json") for row in rows], "details": measured if is_named else None}
    Path(out).write_text(json.dumps(written))


if __name__ == "__main__":
    main(*sys.argv[1:])
