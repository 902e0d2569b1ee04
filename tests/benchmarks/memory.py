"""(f) Peak memory of scoring one call against its length: 1 min, 1 h, 8 h.

Per length, one µ-law stereo call at 8 kHz and a stored run over it; then a process of its own calls `score_block`, as a
worker does, and says the most memory that it ever held (VmHWM, imports and model included). The target is held against
the difference between the longest call and the shortest. The store's share of (f) is measured in `store.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from tests.benchmarks import world
from tests.benchmarks.rows import Figure, Row, at_most
from tests.benchmarks.timing import is_quick

_MINUTES = {"1 min": 1, "1 h": 60, "8 h": 480}
_QUICK_MINUTES = {"1 min": 1, "10 min": 10}
_BLOCK = """
import json, sys, time
from emolib.archive.blocks import score_block
from tests.benchmarks.timing import peak_mb
began = time.perf_counter()
result = score_block(sys.argv[1], sys.argv[2], 0)
assert set(result.by_code) == {"ok"}, result.by_code
print(json.dumps({"peak_mb": peak_mb(), "seconds": time.perf_counter() - began}))
"""


def measure() -> list[Row]:
    rows, peaks = [], {}
    for length, minutes in (_QUICK_MINUTES if is_quick() else _MINUTES).items():
        what = f"peak memory of scoring a stereo call of {length}"
        archive = world.calls(f"call-{minutes}", count=1, seconds=60 * minutes)
        run = world.planned_run(archive, predictions=f"predictions-{minutes}")
        command = [sys.executable, "-c", _BLOCK, str(run.pred), run.run_id]
        done = subprocess.run(command, cwd=world.ROOT, capture_output=True, text=True, check=False)
        shutil.rmtree(archive)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            rows.append(Row(what=what, missing=True, note=f"The process of {length} died: {last}"))
            continue
        found = json.loads(done.stdout)
        peaks[length] = found["peak_mb"]
        what += f" ({found['seconds']:.1f} s)"
        rows.append(Row(what=what, emolib=Figure.of([found["peak_mb"]], "MB")))
    growth = Figure.of([peaks["8 h"] - peaks["1 min"]], "MB") if {"8 h", "1 min"} <= peaks.keys() else None
    return [*rows, Row(what="peak memory: 8 h above 1 min", emolib=growth, target=at_most(50, "MB"))]
