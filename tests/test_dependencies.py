"""What pyproject.toml and requirements.lock ask for on each Python."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[1]
_LOCK = (_ROOT / "requirements.lock").read_text()


def _locked(version: str) -> list[Requirement]:
    """Return what the lock installs on Linux, with a Python."""
    there = {"python_full_version": f"{version}.0", "sys_platform": "linux", "platform_machine": "x86_64"}
    lines = [Requirement(line) for line in re.findall(r"^(\S+==.*?) \\$", _LOCK, flags=re.MULTILINE)]
    return [line for line in lines if line.marker is None or line.marker.evaluate(there)]


@pytest.mark.parametrize("extra", ["train", "gpu"])
def test_training_asks_for_nothing_where_only_nightlies_would_do(extra: str) -> None:
    asked = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    markers = [Requirement(line).marker or Marker("python_version > '3'") for line in asked]
    assert not any(marker.evaluate({"python_version": "3.14"}) for marker in markers)
    linux = {"sys_platform": "linux", "platform_machine": "x86_64"}
    assert sum(marker.evaluate({"python_version": "3.13", **linux}) for marker in markers) == 4


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_holds_one_release_of_each_package_for_each_python(version: str) -> None:
    locked = _locked(version)
    assert [name for name, times in Counter(line.name for line in locked).items() if times > 1] == []
    assert [str(line) for line in locked if line.specifier.prereleases] == []
    names = {line.name for line in locked}
    assert {"numpy", "onnx", "onnxruntime", "pyarrow", "zarr"} <= names
    assert ({"keras", "tensorflow-cpu", "tf2onnx"} <= names) == (version != "3.14")
    assert not names & {"keras-nightly", "tf-nightly"}
