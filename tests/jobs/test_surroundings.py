"""What file systems put into folders is no output of anybody, and one place has many spellings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.conftest import run_emolib
from tests.jobs.test_refusals import refused

OF_FILE_SYSTEMS = ("lost+found", ".Trash-1000", ".snapshot", "System Volume Information", "$RECYCLE.BIN")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A file system that was made a moment ago."""
    for name in OF_FILE_SYSTEMS:
        (tmp_path / "fresh" / name).mkdir(parents=True)
        (tmp_path / "fresh" / name / "deleted.wav").write_bytes(b"RIFF")
    (tmp_path / "fresh" / ".DS_Store").write_bytes(b"Bud1")
    return tmp_path / "fresh"


def _whole(fresh: Path) -> None:
    """Nobody took away what was there."""
    assert all((fresh / name / "deleted.wav").exists() for name in OF_FILE_SYSTEMS)
    assert (fresh / ".DS_Store").exists()


@pytest.mark.parametrize(
    "command",
    [
        *("extract", "train", "evaluate", "evaluate --archive", "explore"),
        *("benchmark", "certs", "report", "export", "score"),
    ],
)
def test_a_fresh_file_system_is_an_empty_folder(
    command: str,
    fresh: Path,
    corpus: Path,
    store: Path,
    model: Path,
    calls: Path,
    undisturbed: Path,
    cluster: tuple[str, str],
) -> None:
    clip = next(corpus.rglob("*.wav"))
    asked = {
        "extract": ("extract", corpus, "--store", fresh, *cluster),
        # Refused for something else, which is looked at later: they would train for long.
        "train": ("train", store, "--task", "emotion3", "--model", fresh, "--leave-out", "nobody/1"),
        "evaluate": ("evaluate", store, "--task", "emotion3", "--protocol", "ravdess6", "--out", fresh),
        "evaluate --archive": ("evaluate", "--archive", undisturbed, "--truth", "no.parquet", "--out", fresh),
        "explore": ("explore", clip, "--out", fresh),
        "benchmark": ("benchmark", corpus, "--calls", "1", "--duration-s", "10", "--out", fresh),
        "certs": ("certs", "--out", fresh),
        "report": ("report", undisturbed, "--out", fresh),
        "export": ("export", undisturbed, "--out", fresh),
        "score": ("score", calls, "--model", model, "--out", fresh, "--plan"),
    }
    ended = run_emolib(*asked[command])
    assert ended.exit_code == 0 or "fresh" not in ended.summary["error"], ended.summary
    assert ended.exit_code == (2 if command in ("train", "evaluate", "evaluate --archive") else 0), ended.summary
    _whole(fresh)


def test_what_file_systems_keep_for_themselves_is_no_recording(fresh: Path, model: Path, tmp_path: Path) -> None:
    refused(run_emolib("score", fresh, "--model", model, "--out", tmp_path / "P"), "no recordings")


@pytest.mark.parametrize("kind", ["a file", "a link to nothing", "a link to itself"])
def test_an_output_that_is_no_folder(kind: str, undisturbed: Path, corpus: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "a file":
        out.write_text("keep me")
    else:
        out.symlink_to(out if kind == "a link to itself" else tmp_path / "nowhere")
    for asked in (
        ("report", undisturbed, "--out", out),
        ("export", undisturbed, "--out", out),
        ("benchmark", corpus, "--out", out),
        ("certs", "--out", out),
        ("demo", "--out", out),
        ("train", store, "--task", "emotion3", "--model", out),
        ("evaluate", store, "--task", "emotion3", "--protocol", "grouped", "--out", out),
        ("extract", corpus, "--store", out),
    ):
        refused(run_emolib(*asked), "out", "exists", "expected a new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
