"""The world that runs on other machines, or what stands for them; made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emolib.sound.synthetic import write_corpus
from tests.faults.world import untrained_model, write_archive
from tests.jobs.conftest import run_emolib

RECORDINGS = 26


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("clusters") / "model")


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 recordings, 4 of them bad, of three days."""
    return write_archive(tmp_path_factory.mktemp("archive") / "calls", recordings=22)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clusters") / "corpus"
    write_corpus(folder, speakers=4, utterances=2, seed=1)
    return folder


@pytest.fixture(scope="session")
def undisturbed(calls: Path, model: Path) -> Path:
    """What every other cluster's rows are compared with."""
    place = calls.parent / "undisturbed"
    common = ("--model", model, "--block-s", "1", "--failure-budget", "1", "--workers", "2")
    assert run_emolib("score", calls, "--out", place, *common).exit_code == 0
    return place


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret") / "tls"
    assert run_emolib("certs", "--out", folder).exit_code == 0
    return folder


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Path]:
    """Write a cluster file."""

    def write(**values: Any) -> Path:
        place = tmp_path / f"{values['kind']}.toml"
        lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
        place.write_text("\n".join(["[cluster]", *lines, ""]))
        return place

    return write


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value) if isinstance(value, (int, float)) else f'"{value}"'
