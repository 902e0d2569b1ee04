"""Which Python `make` takes of those on the PATH (here: scripts that answer as a Python of some version)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_TOOLS = ("sh", "make", "rm", "mkdir", "cp", "touch", "chmod")
_PYTHON = """#!/bin/sh
case "$1 $2" in
"-c "*) echo {version} ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo '#!/bin/sh' > "$3/bin/uv" && chmod +x "$3/bin/uv" ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return tmp_path / "environment"


def stands(place: Path, version: str) -> Path:
    """Write a Python of a version, or, without one, a command that only says that it is not there (as pyenv's do)."""
    place.parent.mkdir(exist_ok=True)
    place.write_text(_PYTHON.format(version=version) if version else "#!/bin/sh\necho not found >&2\nexit 127\n")
    place.chmod(0o755)
    return place


def make(venv: Path, *arguments: str, **pythons: str) -> tuple[int, str, str]:
    """Run `make setup` where these Pythons stand; return its exit code, its Python and its stderr."""
    path = venv.parent / "path"
    path.mkdir(exist_ok=True)
    for name in _TOOLS:
        if not (path / name).exists():
            (path / name).symlink_to(str(shutil.which(name)))
    for name, version in pythons.items():
        stands(path / name.replace("_", "."), version)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    done = subprocess.run(
        [path / "make", "--no-print-directory", "--silent", "setup", f"VENV={venv}", *arguments],
        cwd=_ROOT,
        env={**environment, "PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    made = venv / "bin" / "python"
    version = (
        subprocess.run([made, "-c", ""], capture_output=True, text=True, check=True).stdout if made.exists() else ""
    )
    return done.returncode, version.strip(), done.stderr


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": "3.11"}, "3.11"),
        ({"python3": "3.12", "python3_13": "3.13"}, "3.12"),
        ({"python3": "3.14", "python3_13": "", "python3_12": "3.12"}, "3.12"),
        ({"python3": "3.10", "python3_11": "3.11"}, "3.11"),
        ({"python3_13": "3.13"}, "3.13"),
    ],
)
def test_the_first_python_that_trains_is_taken_and_named(venv: Path, pythons: dict[str, str], taken: str) -> None:
    exit_code, version, said = make(venv, **pythons)
    assert (exit_code, version) == (0, taken)
    assert len(said.splitlines()) == 1
    assert f"is Python {taken}; " in said
    assert make(venv, **pythons) == (0, taken, "")  # nothing is said, nor made, again


@pytest.mark.parametrize("pythons", [{"python3": "3.14"}, {"python3": "3.10", "python3_13": ""}, {}])
def test_a_python_that_does_not_train_is_refused_in_a_line(venv: Path, pythons: dict[str, str]) -> None:
    exit_code, version, said = make(venv, **pythons)
    assert (exit_code, version) == (2, "")
    first = said.splitlines()[0]
    assert f"python3 is Python {pythons['python3']}" in first if pythons else "python3 does not run" in first
    assert "expected Python 3.11 to 3.13" in first
    assert "make PYTHON=/path/to/python3.13" in first


@pytest.mark.parametrize(("version", "exit_code"), [("3.12", 0), ("3.14", 0), ("3.10", 2), ("3.15", 2), ("", 2)])
def test_a_python_that_is_named_is_taken_even_if_it_only_scores(venv: Path, version: str, exit_code: int) -> None:
    named = stands(venv.parent / "other pythons" / "python", version)
    found = make(venv, f"PYTHON={named}", python3="3.11")
    assert found[:2] == (exit_code, "" if exit_code else version)
    assert str(named) in found[2].splitlines()[0]


def test_an_environment_of_another_python_is_not_taken_for_the_one_that_is_named(venv: Path) -> None:
    make(venv, python3="3.11")
    exit_code, version, said = make(venv, "PYTHON=python3.13", python3_13="3.13")
    assert (exit_code, version) == (2, "3.11")
    assert "add VENV=.venv-3.13" in said.splitlines()[0]


def test_an_environment_whose_python_is_gone_is_made_anew(venv: Path) -> None:
    make(venv, python3="3.11")
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to(venv.parent / "gone")
    assert make(venv, python3="3.12")[:2] == (0, "3.12")
