"""What the doctor sees, and that it leaves nothing."""

from __future__ import annotations

from pathlib import Path

from tests.jobs.conftest import run_emolib


def test_all_is_well(calls: Path, model: Path, cluster: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "P"
    ended = run_emolib("doctor", "--archive", calls, "--model", model, "--out", out, *cluster)
    assert (ended.exit_code, ended.summary["ill"]) == (0, [])
    found = ended.summary["checks"]
    assert found["cluster"].startswith("2 workers of these versions")
    assert {f"{name}, from the workers" for name in ("model", "archive", "output")} < set(found)
    assert "numpy" in found["emolib"]
    assert list(tmp_path.iterdir()) == [], "it left something"


def test_each_illness_is_named(cluster: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    (tmp_path / "file").write_text("no folder")
    asked = ("--archive", tmp_path / "calls", "--model", tmp_path / "model", "--out", tmp_path / "file/P")
    ended = run_emolib("doctor", *asked, *cluster)
    assert ended.exit_code == 2
    names = ["model", "archive", "output"]
    assert ended.summary["ill"] == [*names, *(f"{name}, from the workers" for name in names)]
    assert "none of 0 recordings" in ended.summary["checks"]["archive"]
    gone = run_emolib("doctor", "--cluster", tmp_path / "none.toml")
    assert gone.summary["ill"] == ["cluster"]
