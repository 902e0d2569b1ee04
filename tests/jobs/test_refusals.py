"""Bad input: one clear line, exit 2, no traceback, and nothing written before it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.jobs.conftest import Ended, in_process, run_emolib


def refused(ended: Ended, *words: str) -> None:
    message = ended.summary["error"]
    assert ended.exit_code == 2, message
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_one_line_and_no_traceback(tmp_path: Path) -> None:
    ended, stderr = in_process("train", tmp_path / "S.zarr", "--task", "emotion3", "--model", tmp_path / "M")
    refused(ended, "S.zarr", "expected")
    assert stderr.strip() == f"emolib: {ended.summary['error']}"


def test_a_missing_path(tmp_path: Path, model: Path) -> None:
    nowhere = tmp_path / "nowhere"
    refused(run_emolib("extract", nowhere, "--store", tmp_path / "S.zarr"), "nowhere", "expected")
    refused(run_emolib("score", nowhere, "--model", model, "--out", tmp_path / "P"), "nowhere", "expected")
    refused(run_emolib("train", nowhere, "--task", "emotion2", "--model", tmp_path / "M"), "nowhere", "expected")
    refused(run_emolib("verify", nowhere), "nowhere", "expected")
    refused(run_emolib("report", nowhere, "--out", tmp_path / "R"), "nowhere", "expected")
    refused(run_emolib("score", tmp_path, "--model", nowhere, "--out", tmp_path / "P"), "nowhere", "expected")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder(tmp_path: Path, model: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(run_emolib("extract", empty, "--store", tmp_path / "S.zarr"), "empty", "expected")
    refused(run_emolib("score", empty, "--model", model, "--out", tmp_path / "P"), "empty", "expected")
    assert list(tmp_path.iterdir()) == [empty]


def test_one_speaker_for_a_speaker_protocol(corpus: Path, cluster: tuple[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    rows = pd.read_csv(folder / "corpus.csv")
    rows[rows["speaker"] == rows["speaker"][0]].to_csv(folder / "corpus.csv", index=False)
    assert run_emolib("extract", folder, "--store", tmp_path / "S.zarr", *cluster).exit_code == 0
    judged = run_emolib(
        "evaluate", tmp_path / "S.zarr", "--task", "emotion3", "--protocol", "grouped", "--out", tmp_path / "E"
    )
    refused(judged, "speaker", "expected")
    refused(run_emolib("train", tmp_path / "S.zarr", "--task", "emotion3", "--model", tmp_path / "M"), "speaker")
    assert not (tmp_path / "E").exists()
    assert not (tmp_path / "M").exists()


def test_an_unknown_task_protocol_option_or_command(store: Path, tmp_path: Path) -> None:
    refused(run_emolib("train", store, "--task", "emotion9", "--model", tmp_path / "M"), "emotion9", "emotion2")
    unknown = ("--protocol", "speaker7", "--out", tmp_path / "E")
    refused(run_emolib("evaluate", store, "--task", "emotion2", *unknown), "speaker7", "speaker6")
    refused(run_emolib("extract", "--stor", "S.zarr"), "--stor")
    refused(run_emolib("scroe"), "scroe")


def test_a_protocol_whose_corpora_are_not_there(store: Path, tmp_path: Path) -> None:
    asked = ("--task", "emotion3", "--protocol", "ravdess6", "--out", tmp_path / "E")
    refused(run_emolib("evaluate", store, *asked), "ravdess", "expected")


def test_an_output_that_exists(store: Path, model: Path, corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    refused(run_emolib("extract", corpus, "--store", store), "exists", "--resume")
    refused(run_emolib("train", store, "--task", "emotion3", "--model", model), "exists", "--model")
    judged = ("--task", "emotion3", "--protocol", "grouped", "--out", model)
    refused(run_emolib("evaluate", store, *judged), "exists", "--out")
    refused(run_emolib("report", undisturbed, "--out", model), "exists", "--out")
    refused(run_emolib("demo", "--out", model), "exists", "--out")


def test_a_store_continued_with_other_settings(store: Path, corpus: Path) -> None:
    other = ("--store", store, "--resume", "--profile", "wideband")
    refused(run_emolib("extract", corpus, *other), "sampling_rate is 16000, expected 8000", "telephone")


def test_a_bundle_that_was_tampered_with(calls: Path, model: Path, tmp_path: Path) -> None:
    """Its settings differ from those that its weights were trained with."""
    folder = shutil.copytree(model, tmp_path / "model")
    stored = json.loads((folder / "bundle.json").read_text())
    stored["profile"]["features"]["fmin"] = 50.0
    (folder / "bundle.json").write_text(json.dumps(stored))
    refused(run_emolib("score", calls, "--model", folder, "--out", tmp_path / "P"), "bundle.json", "changed")
    assert not (tmp_path / "P").exists()


def test_predictions_of_another_label_scheme_or_scoring(
    calls: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    common = ("score", calls, "--model", model, "--out", undisturbed)
    refused(run_emolib(*common, "--channels", "0=agent,1=customer"), "channels", "--out")
    refused(run_emolib(*common, "--hop-s", "4"), "hop_s", "--out")


def test_predictions_of_another_archive(calls: Path, model: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Equal paths in two archives are one recording_id: the second archive's calls would pass for scored."""
    other = shutil.copytree(calls, tmp_path / "calls")
    refused(run_emolib("score", other, "--model", model, "--out", undisturbed), str(calls), str(other), "--out")


def test_a_store_continued_from_another_corpus(store: Path, corpus: Path, tmp_path: Path) -> None:
    other = shutil.copytree(corpus, tmp_path / "other")
    refused(run_emolib("extract", other, "--store", store, "--resume"), "corpora", "other")
    refused(run_emolib("extract", corpus, "--store", store, "--resume", "--seed", "7"), "seed is 7, expected 0")


def test_predictions_beside_other_files(calls: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    refused(run_emolib("score", calls, "--model", model, "--out", tmp_path), "letter.txt", "--out")


@pytest.mark.parametrize("text", ["0:agent", "agent", "0=manager", "0=agent,0=customer"])
def test_channels_that_say_nothing(calls: Path, model: Path, tmp_path: Path, text: str) -> None:
    refused(run_emolib("score", calls, "--model", model, "--out", tmp_path / "P", "--channels", text), "channels")


@pytest.mark.parametrize("text", ["neutral", "neutral=1,neutral=0", "neutral=most", "neutral=1", "neutral=-1,anger=2"])
def test_priors_that_are_no_mixture(calls: Path, model: Path, tmp_path: Path, text: str) -> None:
    refused(run_emolib("score", calls, "--model", model, "--out", tmp_path / "P", "--priors", text), "priors")


@pytest.mark.parametrize("text", [".ul", ".ul=mp3", ".ul=ulaw:eight", ".ul=ulaw,.ul=alaw", ".g722=g722:8000"])
def test_headerless_formats_that_are_none(calls: Path, model: Path, tmp_path: Path, text: str) -> None:
    asked = ("score", calls, "--model", model, "--out", tmp_path / "P", "--headerless", text)
    refused(run_emolib(*asked), "headerless", "ulaw" if "mp3" in text else "expected")


def test_a_cluster_file_that_is_none(corpus: Path, tmp_path: Path) -> None:
    asked = ("extract", corpus, "--store", tmp_path / "S.zarr", "--cluster")
    refused(run_emolib(*asked, tmp_path / "nowhere.toml"), "nowhere.toml", "expected")
    (tmp_path / "c.toml").write_text('[cluster]\nkind = "abacus"\n')
    refused(run_emolib(*asked, tmp_path / "c.toml"), "kind", "local")


def test_options_from_a_file_that_is_none(calls: Path, tmp_path: Path) -> None:
    refused(run_emolib("score", calls, "--config", tmp_path / "nowhere.toml"), "nowhere.toml")
    (tmp_path / "night.toml").write_text("[score\nmodel = ")
    refused(run_emolib("score", calls, "--config", tmp_path / "night.toml"), "night.toml", "TOML")
    (tmp_path / "typo.toml").write_text('[score]\nmodell = "m"\nout = "p"\n')
    refused(run_emolib("score", calls, "--config", tmp_path / "typo.toml"), "modell")
    (tmp_path / "table.toml").write_text('[scoer]\nmodel = "m"\n')
    refused(run_emolib("score", calls, "--config", tmp_path / "table.toml"), "scoer", "score")


@pytest.mark.parametrize("hop_s", ["1e-9", "0.01", "2.0001"])
def test_a_hop_that_is_none_of_the_frames(calls: Path, model: Path, tmp_path: Path, hop_s: str) -> None:
    refused(run_emolib("score", calls, "--model", model, "--out", tmp_path / "P", "--hop-s", hop_s), "hop", "expected")
    assert not (tmp_path / "P").exists()


@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf"])
def test_blocks_of_no_length(calls: Path, model: Path, tmp_path: Path, number: str) -> None:
    refused(run_emolib("score", calls, "--model", model, "--out", tmp_path / "P", f"--block-s={number}"), "--block-s")


def test_places_that_cannot_be(corpus: Path, calls: Path, model: Path, tmp_path: Path) -> None:
    refused(run_emolib("extract", corpus, "--store", "bogus://x/S.zarr"), "bogus://x", "expected")
    refused(run_emolib("score", calls, "--model", model, "--out", "bogus://x"), "bogus://x", "expected")
    refused(run_emolib("score", calls, "--model", "bogus://x", "--out", tmp_path / "P"), "bogus://x", "expected")
    (tmp_path / "file").write_text("keep me")
    refused(run_emolib("score", calls, "--model", model, "--out", tmp_path / "file" / "P"), "file")


SECRET = "wJalrXUtnFEMIK7MDENG"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/calls",
        f"s3://AKIAEXAMPLE:a/{SECRET}@bucket/calls",
        f"https://user:{SECRET}@host.invalid/calls",
        f"https://{SECRET}@host.invalid/calls",
        f"https://host.invalid/calls?X-Amz-Credential=a&X-Amz-Signature={SECRET}",
        f"az://container/calls?sv=2024&sig={SECRET}",
        f"ftp://user:{SECRET}@host.invalid/calls",
        f"simplecache::s3://AKIAEXAMPLE:{SECRET}@bucket/calls",
    ],
)
def test_a_url_with_credentials(
    url: str, calls: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It would be written down with the results: one line says how credentials are given, and does not repeat them."""
    out, used = tmp_path / "out", ("--model", model, "--workers", "1")
    asked = (
        ("score", url, "--out", out, *used),
        ("score", calls, "--out", url, *used),
        ("score", calls, "--out", out, "--model", url),
        ("score", calls, "--out", out, *used, "--calls-table", url),
        ("score", calls, "--out", out, *used, "--known-audio", url),
        ("score", calls, "--out", out, *used, "--pseudonyms", url),
        ("nightly", calls, "--out", out, *used, "--report", url),
        ("nightly", calls, "--out", out, *used, "--metrics", url),
        ("--log-format", "json", "nightly", url, "--out", out, *used),
        ("extract", url, "--store", out),
        ("extract", calls, "--store", url),
        ("train", url, "--task", "emotion3", "--model", out),
        ("verify", url),
        ("report", url, "--out", out),
        ("export", url, "--out", out),
        ("erase", url, "--call-id", "17"),
        ("explore", url, "--out", out),
        ("known-audio", url, "--out", tmp_path / "known.npz"),
    )
    for command in asked:
        ended = run_emolib(*command)
        refused(ended, "with credentials in it found", "environment, profile or role")
        assert SECRET not in json.dumps(ended.summary), command
    assert not list(tmp_path.iterdir())
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("url", "module", "extra"), [("gs://b/a", "gcsfs", "gs"), ("az://c/a", "adlfs", "az")])
def test_a_store_whose_package_is_missing(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    refused(run_emolib("verify", url), module, f"pip install 'emolib[{extra}]'")


def test_a_demo_that_could_not_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as on Python 3.14
    refused(run_emolib("demo", "--out", tmp_path / "demo"), "tensorflow", "with Python 3.11 to 3.13", "emolib[train]")
    assert not (tmp_path / "demo").exists()


def test_certificates_on_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a folder of this machine that is called as the bucket is."""
    monkeypatch.chdir(tmp_path)
    for out in ("memory://certs/tls", "https://127.0.0.1/tls"):
        refused(run_emolib("certs", "--out", out), "--out", "expected a folder of this machine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["limit-hours", "backfill-hours", "settle-s", "block-s"])
def test_a_number_too_large_to_be_one(option: str, tmp_path: Path) -> None:
    """Python reads it as infinity."""
    ended = run_emolib("nightly", tmp_path, "--model", tmp_path, "--out", tmp_path / "P", f"--{option}", "1e999")
    refused(ended, f"1e999 found for --{option}", "expected a number")


def test_what_stops_a_command_while_it_is_imported(tmp_path: Path) -> None:
    """Dask reads its files when it is imported, and cyclopts imports commands before it calls any."""
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "mine.yaml").write_text("distributed: [\n")
    ended, stderr = in_process("score", tmp_path, environment={"DASK_CONFIG": str(tmp_path / "dask")})
    assert ended.exit_code == 70
    assert "mine.yaml" in ended.summary["error"]
    assert stderr.strip() == f"emolib: {ended.summary['error']}"
