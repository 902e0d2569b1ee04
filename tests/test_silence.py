"""Law 9: nothing talks to anybody, and nothing is written but outputs and temporary files."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults.world import untrained_model
from tests.tracing import require_strace, trespasses

_SCORES = """
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "0"
from emolib.learning.bundle import ModelBundle
bundle = ModelBundle.load(sys.argv[1])
bundle.check_golden()
"""


def test_the_library_alone_is_silent(tmp_path: Path) -> None:
    model = untrained_model(tmp_path / "model")
    assert trespasses([sys.executable, "-c", _SCORES, str(model)], tmp_path) == ""
    require_strace()


_TRESPASSES = """
import os, pathlib, socket
pathlib.Path("left").mkdir()
(pathlib.Path.home() / "id").write_text("me")
os.rename(os.environ["TMPDIR"], os.environ["TMPDIR"] + "-moved")
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 53))  # no packet leaves
pathlib.Path("/etc/resolv.conf").exists() and open("/etc/resolv.conf")
"""


def test_what_is_not_silent_is_found(tmp_path: Path) -> None:
    found = trespasses([sys.executable, "-c", _TRESPASSES], tmp_path)
    assert f"{tmp_path}/home/id" in found
    assert f"{tmp_path}/work/left" in found
    require_strace()
    assert f"rename {tmp_path}/tmp-moved" in found
    assert "connect 192.0.2.1" in found
    assert "a name looked up" in found
