"""What jobs hold on this machine's disk goes with them, or with the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobs.scratch import scratch

_HOLDS = """
import sys
from jobs.scratch import scratch
with scratch() as folder:
    (folder / "calls").write_text("of somebody")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_job_left_goes_and_what_another_one_holds_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command, environment = [sys.executable, "-c", _HOLDS], {**os.environ, "TMPDIR": str(tmp_path)}
    jobs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    folders = []
    for job in jobs:
        assert job.stdout is not None
        folders.append(Path(job.stdout.readline().strip()))
        os.utime(folders[-1] / "emolib.lock", (0, 0))  # long ago
    jobs[0].kill()
    jobs[0].wait()
    (other := tmp_path / "emolib-job-of-somebody").mkdir()
    os.mkfifo(other / "emolib.lock")
    with scratch() as own:
        assert own.is_dir()
        assert not folders[0].exists()
        assert (folders[1] / "calls").exists()
    jobs[1].kill()
    for job in jobs:
        job.communicate()
    assert not own.exists()
    assert other.is_dir()
