"""The command itself: what it imports, where its settings come from, and how it runs without TensorFlow."""

from __future__ import annotations

import errno
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from emolib.errors import SettingsError
from jobs import console
from jobs.command import _COMMANDS, app, ended_by, run
from tests.jobs.conftest import in_process, run_emolib

_HEAVY = ("dask", "distributed", "keras", "librosa", "matplotlib", "onnxruntime", "pandas", "tensorflow", "zarr")


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, jobs.__main__, jobs.command; print([name for name in {_HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_help_teaches_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    shown = subprocess.run([sys.executable, "-m", "jobs", "--help"], capture_output=True, text=True, check=True)
    assert {"demo", "extract", "train", "evaluate", "score", "nightly", "verify", "report"} <= set(_COMMANDS)
    for name in _COMMANDS:
        assert name in shown.stdout
        assert run([name, "--help"]) is None
        assert f"Usage: emolib {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", _COMMANDS)
def test_help_loses_nothing_to_markup(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An asterisk of a pattern is no emphasis."""
    monkeypatch.setattr(app, "console", Console(width=5000))  # each option in a line
    run([name, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for argument in app[name].assemble_argument_collection(parse_docstring=True).filter_by(show=True):
        assert " ".join((argument.parameter.help or "").replace("`", "").split()) in shown
    assert _COMMANDS[name] in shown


def test_no_time_is_estimated_from_nothing(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_LOG_EVERY_S", -1.0)
    with console.audio_progress("score", 36_000.0) as progress:
        progress.advance(0.0)
        progress.advance(36.0)
        progress.advance(3564.0)
    first, second, third = capfd.readouterr().err.splitlines()
    assert (first, second) == ("0.00 of 10.00 h of audio", "0.01 of 10.00 h of audio")
    assert third.startswith("1.00 of 10.00 h of audio, about ")


def test_a_file_gives_options_and_flags_come_before_it(calls: Path, model: Path, tmp_path: Path) -> None:
    settings = tmp_path / "night.toml"
    settings.write_text(f'[score]\nmodel = "{model}"\nout = "{tmp_path / "P"}"\nplan = true\nblock_s = 20\n')
    by_file = run_emolib("score", calls, "--config", settings)
    assert by_file.exit_code == 0
    by_flag = run_emolib("score", calls, "--config", settings, "--block-s", "7200")
    assert by_file.summary["blocks"] > by_flag.summary["blocks"]


@pytest.mark.slow
def test_machines_read_what_is_said(calls: Path, model: Path, tmp_path: Path) -> None:
    asked = ("--log-format", "json", "score", calls, "--model", model, "--out", tmp_path / "P", "--plan")
    ended, said = in_process(*asked)
    assert ended.exit_code == 0
    lines = [json.loads(line) for line in said.strip().splitlines()]
    assert all({"time", "message"} <= set(line) for line in lines)
    assert lines[-1]["message"] == "plan"
    assert sum(row["recordings"] for row in lines[-1]["rows"]) == ended.summary["to_score"]


def _of_azure(status: int, code: str = "") -> Exception:
    from azure.core.exceptions import HttpResponseError

    error = HttpResponseError("what the store says")
    error.status_code, error.error_code = status, code
    return error


def _by_adlfs(cause: Exception) -> Exception:
    return _caused_by(RuntimeError("Failed to upload block"), cause)


def _caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _in_a_circle() -> Exception:
    error = RuntimeError("no end")
    return _caused_by(error, _caused_by(RuntimeError("no beginning"), error))


def _of(module: str, name: str, *arguments: Any, **named: Any) -> Exception:
    error: Exception = getattr(importlib.import_module(module), name)(*arguments, **named)
    return error


@pytest.mark.parametrize(
    ("make", "code", "advice"),
    [
        (lambda: _of_azure(403, "AuthenticationFailed"), 5, "renew the credentials"),
        (lambda: _by_adlfs(_of_azure(403, "AuthenticationFailed")), 5, "renew the credentials"),
        (lambda: _of("gcsfs.retry", "HttpError", {"code": 401, "message": "no"}), 5, "renew the credentials"),
        (lambda: _of("azure.core.exceptions", "ServiceRequestError", "no"), 5, "see that it works"),
        (lambda: _by_adlfs(_of_azure(503)), 5, "see that it works"),
        (lambda: _of("gcsfs.retry", "HttpError", {"code": 503, "message": "no"}), 5, "see that it works"),
        (lambda: _of("aiohttp", "ClientConnectionError", "no"), 5, "see that it works"),
        (lambda: _of("botocore.exceptions", "EndpointConnectionError", endpoint_url="no"), 5, "see that it works"),
        (lambda: _of("gcsfs.retry", "HttpError", {"code": "429", "message": "no"}), 5, "see that it works"),
        (lambda: _of("requests", "ReadTimeout", "no"), 5, "see that it works"),
        (lambda: OSError("Forbidden: https://store/calls"), 2, "give it the rights"),  # gcsfs
        (lambda: _of_azure(403, "AuthorizationPermissionMismatch"), 2, "give it the rights"),
        (lambda: _caused_by(TypeError("a bug"), TimeoutError()), 70, "--debug shows where"),
        (lambda: _caused_by(SettingsError("give another --out"), TimeoutError()), 2, "give another --out"),
        (lambda: _in_a_circle(), 70, "--debug shows where"),
        (lambda: _of("requests.exceptions", "SSLError", "a wrong certificate"), 70, "--debug shows where"),
        (lambda: _of("httpx", "UnsupportedProtocol", "no"), 70, "--debug shows where"),
        (lambda: _of_azure(409, "BlobImmutableDueToPolicy"), 70, "--debug shows where"),
        (lambda: _of("gcsfs.retry", "HttpError", {"code": 409, "message": "no"}), 70, "--debug shows where"),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_what_a_store_ends_a_job_with_says_what_to_do(
    make: Callable[[], Exception], code: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = make()

    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("jobs.verify.resolve", fails)
    ended = run_emolib("verify", tmp_path)
    assert ended.exit_code == code
    assert advice in ended.summary["error"]


@pytest.mark.parametrize(
    ("number", "code", "advice"),
    [
        (errno.ENOSPC, 5, "make room, then run the same command again"),
        (errno.EIO, 5, "run the same command again"),
        (console._REMOTE, 5, "run the same command again"),  # an object store's "internal server error"
        (errno.ECONNRESET, 5, "run the same command again"),
        (errno.EROFS, 2, "expected a place that may be written to"),
        (errno.EMFILE, 70, "--debug shows where"),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_what_a_disk_ends_a_job_with_says_what_to_do(
    number: int, code: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise OSError(number, "what the system says")

    monkeypatch.setattr("jobs.verify.resolve", fails)
    ended = run_emolib("verify", tmp_path)
    assert ended.exit_code == code
    assert "what the system says" in ended.summary["error"]
    assert advice in ended.summary["error"]


@pytest.mark.slow
def test_extract_and_score_do_without_tensorflow(corpus: Path, calls: Path, model: Path, tmp_path: Path) -> None:
    """A worker image without TensorFlow works: here no process of the job can import it."""
    blocked = ("tensorflow", "keras", "tf2onnx", "onnx")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n")
    without = {"PYTHONPATH": str(tmp_path)}
    store = tmp_path / "S.zarr"
    one = ("--workers", "1")
    extracted, stderr = in_process("extract", corpus, "--store", store, *one, environment=without)
    assert extracted.exit_code == 0, stderr
    asked = ("--model", model, "--out", tmp_path / "P", "--failure-budget", "1", *one)
    scored, stderr = in_process("score", calls, *asked, environment=without)
    assert scored.exit_code == 0, stderr
    training = ("train", store, "--task", "emotion3", "--model", tmp_path / "M")
    refused, stderr = in_process(*training, environment=without)
    assert refused.exit_code == 2, stderr
    assert "emolib[train]" in refused.summary["error"]


@pytest.mark.slow
@pytest.mark.usefixtures("training")
def test_the_demo_learns(tmp_path: Path) -> None:
    ended = run_emolib("demo", "--out", tmp_path / "demo")
    assert ended.exit_code == 0
    assert ended.summary["uar"] > 3 * ended.summary["chance"]
    page = (tmp_path / "demo" / "page" / "index.html").read_text()
    assert "<svg" in page
    assert "empty" in page


def test_who_is_interrupted_is_told_how_to_go_on() -> None:
    assert "run the same command again" in ended_by(KeyboardInterrupt(), "score").summary["error"]
    assert "with a new --out" in ended_by(KeyboardInterrupt(), "report").summary["error"]
