"""What file systems put into folders is no output of anybody, and one place has many spellings."""

from __future__ import annotations

import shutil
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


def test_another_spelling_of_archive_model_and_output_goes_on(
    calls: Path, model: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal recordings are found again: nothing is scored twice, and nothing refused."""
    out = shutil.copytree(undisturbed, tmp_path / "P")
    (tmp_path / "calls").symlink_to(calls)
    (tmp_path / "model").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for archive, bundle, place in (
        (f"{calls}/../{calls.name}/", f"{model}//./", "P/"),
        ("calls", "./model", "../" + tmp_path.name + "/P"),
        (f"file://{calls}", f"file://{model}", f"file://{out}"),
        ("~/calls", "~/model", "~/P"),
    ):
        ended = run_emolib("score", archive, "--model", bundle, "--out", place)
        assert (ended.exit_code, ended.summary["runs"]) == (0, []), ended.summary
        assert ended.summary["left_for_later"] == 0
    refused(run_emolib("promote", "P", "--model", "calls/../none"), str(calls.parent / "none"))  # as files are found
    refused(run_emolib("promote", "P", "--model", "./model"), "is in force")


def test_another_spelling_of_a_corpus_goes_on(store: Path, corpus: Path, cluster: tuple[str, str]) -> None:
    again = (f"{corpus.parent}/./{corpus.name}/../{corpus.name}/", "--store", f"{store}/", "--resume")
    assert run_emolib("extract", *again, *cluster).exit_code == 0
    refused(run_emolib("extract", corpus, corpus, "--store", store, "--resume"), "corpora")


def test_an_evaluation_names_its_store_for_any_working_directory(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(undisturbed.parent)
    refused(run_emolib("evaluate", "--archive", undisturbed.name, "--truth", "no.parquet", "--out", tmp_path / "E"))
    page = run_emolib("report", undisturbed.name, "--out", tmp_path / "page").summary["page"]
    assert page == str(tmp_path / "page" / "index.html")


@pytest.mark.parametrize("source", ["loop", "loop/2024", "x" * 300, "caf\udce9"])
def test_an_archive_that_cannot_be(source: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    place = f"{tmp_path}/{source}"
    refused(run_emolib("score", place, "--model", model, "--out", tmp_path / "P"))
    refused(run_emolib("extract", place, "--store", tmp_path / "S.zarr"))
    refused(run_emolib("verify", place))
    refused(run_emolib("report", place, "--out", tmp_path / "page"))
    refused(run_emolib("explore", place, "--out", tmp_path / "page"))
    refused(run_emolib("known-audio", place, "--out", tmp_path / "k.npz"))
    refused(run_emolib("benchmark", place, "--out", tmp_path / "B"))
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]
