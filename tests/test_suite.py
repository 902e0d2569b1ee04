"""The suite itself: what it leaves out holds nothing to test."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hypothesis import settings

_ROOT = Path(__file__).parents[1]


def test_modules_that_are_not_searched_for_examples_hold_none() -> None:
    options = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    ignored = [_ROOT / option.removeprefix("--ignore=") for option in options if "--ignore" in option]
    assert ignored
    for path in ignored:
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            assert ">>>" not in file.read_text(), file


def test_no_example_has_a_deadline() -> None:
    assert settings().deadline is None
    assert settings().derandomize
