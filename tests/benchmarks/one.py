"""Run one benchmark in this process and write its rows: `python -m tests.benchmarks.one NAME ROWS.json`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from tests.benchmarks.rows import as_rows


def main(name: str, out: str) -> None:
    measured = importlib.import_module(f"tests.benchmarks.{name}").measure()
    Path(out).write_text(json.dumps([row.model_dump(mode="json") for row in as_rows(name, measured)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
