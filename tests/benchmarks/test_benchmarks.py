from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_quick_run_prints_one_table_and_writes_one_json(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--json", str(out), "mfcc"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "MFCC of 60 s, telephone" in done.stdout
    assert "held?" in done.stdout
    found = json.loads(out.read_text())
    assert found["machine"]["cores"]
    assert found["versions"]["librosa"] != "missing"
    rows = found["rows"]
    assert {row["benchmark"] for row in rows} == {"mfcc"}
    assert all(row["emolib"]["median"] > 0 and row["emolib"]["runs"] > 0 for row in rows)
    # A library that is not installed has its row all the same.
    peers = {row["peer"]: row for row in rows}
    assert {"librosa", "python_speech_features", "kaldi-native-fbank", "openSMILE"} <= peers.keys()
    assert all(row["held"] == "not measured" for row in rows if row["missing"])
    assert peers["librosa"]["ratio"] > 0
