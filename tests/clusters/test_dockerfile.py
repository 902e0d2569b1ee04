"""The steps of the Dockerfile, outside a container: its commands make an environment, and what it is for runs there.

No engine is needed. What is not seen here: the base image itself, and that its system has the libraries which wheels
expect (of those that are loaded, only ones of glibc, gcc and zlib lie outside the environment: that is looked at).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emolib.archive.verification import verify
from tests.jobs.conftest import assert_same_rows

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

_PROJECT = Path(__file__).parents[2]
_NOBODY = 65534
# What python:3.12-slim has: Debian's essential packages.
_OF_THE_SYSTEM = re.compile(r"lib(c|m|mvec|dl|rt|util|pthread|resolv|gcc_s|stdc\+\+|z)\.so\.|ld-linux")


@dataclass(frozen=True)
class Image:
    """What the Dockerfile's last stage would hold, under a folder.

    Attributes
    ----------
    root
        Stands for ``/``.
    environment
        Of its processes.
    """

    root: Path
    environment: dict[str, str]

    @property
    def tmp(self) -> Path:
        """What stands for ``/tmp``."""
        return self.root / "tmp"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as nobody, in a folder that can't be written to."""
        apart = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
        if apart and _has_namespaces():  # then nothing at all can be written to, but what stands for /tmp
            script = (
                "mount --make-rprivate / && mount --bind $0 $0 && mount -o remount,ro,bind / && "
                'mount -o remount,rw,bind $0 && exec "$@"'
            )
            apart = ["unshare", "--mount", "sh", "-c", script, str(self.tmp), *apart]
        return subprocess.run(
            [*apart, *command], cwd="/", env=self.environment, capture_output=True, text=True, check=False, timeout=600
        )


def _has_namespaces() -> bool:
    done = subprocess.run(["unshare", "--mount", "mount", "--make-rprivate", "/"], capture_output=True, check=False)
    return done.returncode == 0


def _instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, of all stages."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (_PROJECT / "cluster/Dockerfile").read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def _python(root: Path) -> str:
    """Return an interpreter that nobody may run: that of `PYTHON`, one of the image's version, or another one."""
    wanted = re.search(r"FROM python:(3\.\d+)", (_PROJECT / "cluster/Dockerfile").read_text())
    assert wanted
    names = [f"/usr/bin/python{wanted[1]}", f"/usr/local/bin/python{wanted[1]}", "/usr/bin/python3"]
    if named := os.environ.get("PYTHON"):  # it may lie where nobody may look: then a copy of it
        script = "import sys; print(sys.base_prefix, f'{sys.version_info[0]}.{sys.version_info[1]}')"
        prefix, version = subprocess.run(
            [named, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
        shutil.copytree(prefix, root / "python", symlinks=True, ignore=shutil.ignore_patterns("test", "site-packages"))
        names = [str(root / f"python/bin/python{version}")]
    for name in names:
        if Path(name).exists() and subprocess.run([name, "-m", "ensurepip", "--version"], check=False).returncode == 0:
            return name
    pytest.skip(f"no Python with venv found, expected one of {names}")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Follow the Dockerfile, under a folder that stands for the root."""
    root = Path(tempfile.mkdtemp(prefix="emolib-image-"))
    try:
        root.chmod(0o755)
        yield _built(root)
    finally:
        shutil.rmtree(root)


def _built(root: Path) -> Image:
    (root / "bin").mkdir()
    (root / "bin/python").write_text(f'#!/bin/sh\nexec {_python(root)} "$@"\n')
    (root / "bin/python").chmod(0o755)
    place, stages = root, 0
    variables: dict[str, str] = {}
    for name, rest in _instructions():
        if name == "FROM":
            stages += 1
            variables = {"PATH": f"{root / 'bin'}:/usr/bin:/bin"}
        elif name == "ARG":
            key, value = rest.split("=", 1)
            variables[key] = value.strip('"')
        elif name == "ENV":
            for key, value in re.findall(r"(\w+)=(\S+)", rest):
                variables[key] = _under(root, value)
        elif name == "WORKDIR":
            place = root / rest.lstrip("/")
            place.mkdir(exist_ok=True)
        elif name == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                _copy(_PROJECT / source, place / _under(root, target) if len(sources) == 1 else place / source)
        elif name == "RUN":
            network = {
                key: held for key, held in os.environ.items() if re.search("(?i)proxy|index|find_links|cert", key)
            }
            command = _under(root, rest)
            done = subprocess.run(
                ["sh", "-euc", command],
                cwd=place,
                env={**network, **variables},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert stages == 2
    (root / "tmp").mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(root / "tmp", _NOBODY, _NOBODY)
    shutil.rmtree(root / "build")  # the last stage has only the environment
    shutil.rmtree(root / "opt/uv")
    if (root / "python").exists():  # its library is looked for where it was copied from
        variables["LD_LIBRARY_PATH"] = str(root / "python/lib")
    return Image(root, variables | {"TMPDIR": str(root / "tmp"), "LANG": "C.UTF-8"})


def _under(root: Path, text: str) -> str:
    """Put a text's absolute paths of the image under the folder that stands for its root."""
    return re.sub(r"(?<![\w.])/(opt|build|tmp)\b", lambda found: f"{root}/{found[1]}", text)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def test_the_command_runs_and_tensorflow_is_not_there(image: Image) -> None:
    (command,) = (json.loads(rest) for name, rest in _instructions() if name == "CMD")
    done = image.run(*command)
    assert (done.returncode, "emolib nightly" in done.stdout) == (0, True), done.stderr
    for module in ("tensorflow", "keras", "tf2onnx", "pytest", "pip"):
        done = image.run("python", "-c", f"import {module}")
        assert (done.returncode, "ModuleNotFoundError" in done.stderr) == (1, True), module


def test_what_is_installed_is_what_the_lock_says(image: Image) -> None:
    script = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    installed = json.loads(image.run("python", "-c", script).stdout)
    locked = set(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", (_PROJECT / "requirements.lock").read_text()))
    assert installed.pop("emolib")
    extras = {(name.lower().replace("_", "-"), number) for name, number in installed.items()} - locked
    assert extras == set()
    assert {"s3fs", "kr8s", "cryptography", "pyyaml"} <= {name.lower() for name in installed}


def test_dask_reads_its_settings(image: Image) -> None:
    script = "import dask, distributed; print(dask.config.get('distributed.worker.profile.enabled'))"
    assert image.run("python", "-c", script).stdout == "False\n"
    for kind in ("scheduler", "worker"):
        done = image.run("dask", kind, "--help")
        assert (done.returncode, "--tls-ca-file" in done.stdout) == (0, True), done.stderr


def test_a_night_with_a_root_that_is_only_read(
    image: Image, calls: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    for name, source in (("calls", calls), ("model", model)):
        shutil.copytree(source, image.root / name)
        for path in (image.root / name).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (image.root / name).chmod(0o755)
    where = {name: str(image.root / name) for name in ("calls", "model")}
    out = image.tmp / "P"
    done = image.run(
        *("emolib", "nightly", where["calls"], "--model", where["model"], "--out", str(out), "--workers", "2"),
        *("--settle-s", "0", "--failure-budget", "1", "--report", str(image.tmp / "nights"), "--block-s", "1"),
    )
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout.splitlines()[-1])["page"]
    assert page
    assert Path(page).exists()
    shutil.copytree(out, tmp_path / "P")
    assert_same_rows(tmp_path / "P", undisturbed)
    assert verify(tmp_path / "P").problems == []
    assert not list((image.root / "opt").rglob("*.nbi"))
    written = {path.name for path in image.root.iterdir()}
    assert written <= {"bin", "python", "opt", "tmp", "calls", "model"}


def test_a_root_that_is_only_read_is_one(image: Image) -> None:
    for place in ("/", str(image.root), str(image.root / "opt/emolib")):
        done = image.run("python", "-c", f"open('{place}/x', 'w')")
        assert (done.returncode, "Error" in done.stderr) == (1, True)
    assert image.run("python", "-c", f"open('{image.tmp}/x', 'w')").returncode == 0


def test_libraries_outside_the_environment_are_those_of_every_system(image: Image) -> None:
    folder = image.root / "opt/emolib/lib"
    libraries = [path for path in folder.rglob("*.so*") if path.is_file() and not path.is_symlink()]
    own, outside = {path.name for path in libraries}, set()
    for library in libraries:
        if re.match("(tbb|omp)pool", library.name):  # numba takes its own where these can't be loaded
            continue
        done = subprocess.run(["ldd", library], capture_output=True, text=True, check=False)
        for name, path in re.findall(r"(\S+) => (not found|/\S+)", done.stdout):
            if name not in own and not path.startswith(str(folder)):
                outside.add(name)
    assert outside
    assert {name for name in outside if not _OF_THE_SYSTEM.match(name)} == set()
