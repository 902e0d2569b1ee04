"""Law 8: the library prints nothing and leaves the process that uses it as it was, but for telemetry that is off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.broken import BYTES, write_broken
from tests.faults.world import untrained_model
from tests.sound.test_formats import encode

_ROOT = Path(__file__).parents[2]
_TELEMETRY = ["import", "environment: ORT_DISABLE_TELEMETRY", "None", "'1'"]


def _changes(folder: Path, scope: str) -> list[list[str]]:
    """Import and call the library in a process of its own; return what that changed in it. It may say nothing."""
    untrained_model(folder / "model")
    (folder / "calls").mkdir()
    for container, codec in (("ipod", "aac"), ("webm", "libopus")):
        (folder / f"calls/a.{container}").write_bytes(encode(container, codec, 48_000, 1, None))
    for way in BYTES:
        write_broken(folder / "calls", way, 0)
    # Not the surroundings of the tests: they set what a user's process does not have. But TensorFlow speaks as soon as
    # it is imported, and Keras warns of itself.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.laws.library_calls", folder, scope],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "MPLCONFIGDIR": str(folder)}
        | (quiet if scope == "training" else {}),
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    changes: list[list[str]] = json.loads((folder / "changes.json").read_text())
    return changes


def test_who_reads_scores_and_looks_finds_the_process_as_it_was(tmp_path: Path) -> None:
    assert _changes(tmp_path, "scoring") == [_TELEMETRY]


@pytest.mark.slow
@pytest.mark.usefixtures("training")
def test_who_trains_finds_the_process_as_it_was(tmp_path: Path) -> None:
    assert _changes(tmp_path, "training") == [_TELEMETRY]


@pytest.mark.slow
def test_what_a_library_must_not_do_is_found(tmp_path: Path) -> None:
    found = [(after, what) for after, what, _, _ in _changes(tmp_path, "trespasses")[1:]]
    assert found == [
        ("_trespass_environment", "environment: EMOLIB"),
        ("_trespass_logging", "logger: "),
        ("_trespass_logger", "logger: distributed"),
        ("_trespass_warnings", "warnings"),
        ("_trespass_random", "random"),
        ("_trespass_numpy_random", "numpy.random"),
        ("_trespass_numpy", "numpy's errors"),
        ("_trespass_fsspec", "fsspec, registered: s3"),
        ("_trespass_signal", "signal: SIGTERM"),
        ("_trespass_locale", "locale"),
        ("_trespass_umask", "umask"),
        ("_trespass_directory", "working directory"),
        ("_trespass_ffmpeg", "FFmpeg's logs"),
        ("_trespass_matplotlib", "matplotlib: svg.fonttype"),
        ("_trespass_pandas", "pandas"),
        ("_trespass_pyarrow", "pyarrow"),
        ("_trespass_limits", "limit: RLIMIT_CORE"),
    ]
