"""Measure what emolib promises: `python -m tests.benchmarks [NAME…] [--quick] [--json FILE]`.

Each benchmark runs in a process of its own with one thread per core-bound library, so that the memory, the threads or
the TensorFlow of one do not disturb another. Everything they make lies in one temporary folder, removed at the end. The
table goes to stdout; the JSON has every figure (median, least, number of runs), the machine and the versions.

What a figure is and how it is computed stands at the head of each benchmark's module. Absolute figures hold for the
machine of the run; what can be compared between machines is the ratios, which come from alternating runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from tests.benchmarks.rows import Row, print_rows
from tests.benchmarks.timing import ONE_THREAD, QUICK
from tests.benchmarks.world import FOLDER, ROOT

BENCHMARKS = ("mfcc", "extraction", "scoring", "streaming", "store", "memory", "startup", "activity", "known_audio")
_PACKAGES = (
    "emolib", "numpy", "scipy", "librosa", "numba", "soxr", "soundfile", "dask", "distributed", "zarr", "pyarrow",
    "pandas", "onnxruntime", "keras", "tensorflow-cpu", "tensorflow", "python-speech-features", "kaldi-native-fbank",
    "opensmile",
)  # fmt: skip
_LONGEST_S = 1800
# What `jobs.cluster` gives to workers, here for both sides: peers allocate as freely as emolib does.
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(128 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which, of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--quick", action="store_true", help="small inputs and few rounds: does it run?")
    parser.add_argument("--json", default="bench.json", metavar="FILE", help="where to write the figures (bench.json)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"{', '.join(sorted(unknown))} found, expected some of {', '.join(BENCHMARKS)}")
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    header = describe(quick=options.quick)
    rows: list[dict[str, Any]] = []
    measured: list[Row] = []
    details: dict[str, Any] = {}
    failed = False
    with tempfile.TemporaryDirectory(prefix="emolib-bench-") as folder:
        for name in options.names or BENCHMARKS:
            began = time.monotonic()
            found, named, died = run(name, Path(folder), quick=options.quick)
            failed |= died
            measured += found
            if named is not None:
                details[name] = named
            rows += [{"benchmark": name, **row.to_json()} for row in found]
            Console(stderr=True).print(f"{name}: {time.monotonic() - began:.0f} s", highlight=False)
    document = {**header, "load_after": os.getloadavg(), "rows": rows, "details": details}
    Path(options.json).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print_rows(console, title(header), measured)
    return int(failed)


def run(name: str, folder: Path, *, quick: bool) -> tuple[list[Row], dict[str, Any] | None, bool]:
    """Run a benchmark in a process of its own; return its rows, figures by name if any, and whether it died."""
    if importlib.util.find_spec(f"tests.benchmarks.{name}") is None:
        return [Row(what=name, missing=True, note="There is no such benchmark in this tree.")], None, False
    out, log = folder / f"{name}.json", folder / f"{name}.log"
    # TMPDIR: what a library leaves lying about goes with the folder.
    environment = {**os.environ, **ONE_THREAD, **_ALLOCATOR, FOLDER: str(folder), "TMPDIR": str(folder)}
    if quick:
        environment[QUICK] = "1"
    command = [sys.executable, "-m", "tests.benchmarks.one", name, str(out)]
    with log.open("w", encoding="utf-8") as stream:
        try:
            subprocess.run(
                command, cwd=ROOT, env=environment, stdout=stream, stderr=stream, check=True, timeout=_LONGEST_S
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            Console(stderr=True).print("\n".join(lines[-30:]), markup=False, highlight=False)
            reason = lines[-1] if lines and isinstance(error, subprocess.CalledProcessError) else str(error)
            return [Row(what=name, missing=True, note=f"{name} ended without figures: {reason}")], None, True
    written = json.loads(out.read_text())
    return [Row.model_validate(row) for row in written["rows"]], written["details"], False


def describe(*, quick: bool) -> dict[str, Any]:
    """Return the machine, the versions, the commit and the date."""
    return {
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "load_before": os.getloadavg(),
    }


def title(header: dict[str, Any]) -> str:
    machine = header["machine"]
    commit = (header["commit"] or "no commit")[:10] + (" with changes" if header["changed"] else "")
    quick = "; QUICK: too little work for figures to mean anything" if header["quick"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB, Python {machine['python']}; "
        f"{commit}, {header['date'][:10]}{quick}"
    )


def _cpu() -> str:
    """Return the model of the CPU."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown CPU"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
