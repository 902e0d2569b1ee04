"""Features and predictions are the same bits on every Python that has an environment beside this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emolib.features.store import FeatureStore
from emolib.sound.synthetic import write_calls, write_corpus
from tests.conftest import PATIENCE_S
from tests.faults.world import untrained_model
from tests.jobs.conftest import assert_same_rows

_ROOT = Path(__file__).parents[2]
_OTHERS = sorted(ready.parent for ready in _ROOT.glob(".venv*/.ready") if not ready.parent.samefile(sys.prefix))
_NONE = pytest.mark.skip(reason="no environment of another Python: make setup PYTHON=python3.13 VENV=.venv-3.13")
_PROFILES = ("telephone", "article")
_JOBS = f"""
import sys
from jobs.command import run
from jobs.cluster import connect
from jobs.specs import cluster_spec

if __name__ == "__main__":
    world, out = sys.argv[1:]
    with connect(cluster_spec(None, workers=1)) as client:
        on = "--cluster", client.scheduler.address
        for profile in {_PROFILES}:
            store = f"{{out}}/{{profile}}.zarr"
            assert run(["extract", f"{{world}}/corpus", "--profile", profile, "--store", store, *on]).exit_code == 0
        asked = "--model", f"{{world}}/model", "--out", f"{{out}}/P", "--failure-budget", "1"
        assert run(["score", f"{{world}}/calls", *asked, *on]).exit_code == 0
"""


def extract_and_score(python: str | Path, world: Path, out: Path) -> Path:
    """Run the jobs on a Python, in processes of their own."""
    out.mkdir()
    done = subprocess.run(
        [python, "-c", _JOBS, world, out], cwd=_ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    write_corpus(folder / "corpus", speakers=2, utterances=1, seed=0)
    write_calls(folder / "calls", calls=4, broken=5, seed=0)
    untrained_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def own(world: Path) -> Path:
    return extract_and_score(sys.executable, world, world / "own")


@pytest.mark.slow
@pytest.mark.parametrize("other", _OTHERS or [pytest.param(None, marks=_NONE)], ids=lambda other: other and other.name)
def test_another_python_gives_the_same_bits(other: Path, world: Path, own: Path) -> None:
    found = extract_and_score(other / "bin" / "python", world, world / other.name)
    for profile in _PROFILES:
        here, there = (FeatureStore.open(place / f"{profile}.zarr") for place in (own, found))
        assert here.shape[0] > 0
        assert here.fingerprint == there.fingerprint
        for array, other_array in zip(here.read(0, here.shape[0]), there.read(0, there.shape[0]), strict=True):
            assert array.tobytes() == other_array.tobytes()
    assert_same_rows(found / "P", own / "P")
