"""Workers that see another model or none, or compute other numbers, cost themselves and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.jobs.conftest import assert_same_rows, dask_process, in_process

pytestmark = pytest.mark.slow  # each starts a scheduler and its workers, which load all that scoring needs
# A path that every process finds in its own working directory: as a mount that is missing or old on one machine.
_MODEL = Path("/proc/self/cwd/model")
_ADDRESS = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")


def fit(model: Path, place: Path) -> Path:
    place.mkdir()
    (place / "model").symlink_to(model)
    return place


def without_model(_: Path, place: Path) -> Path:
    place.mkdir()
    return place


def with_another(model: Path, place: Path) -> Path:
    stored = shutil.copytree(model, place / "model") / "bundle.json"
    manifest = stored.read_text()
    start = manifest.index('"model_id": "') + len('"model_id": "')
    stored.write_text(manifest[:start] + ("0" if manifest[start] != "0" else "1") + manifest[start + 1 :])
    return place


def run_first(place: Path, code: str) -> Path:
    """Have Python run something there before anything else, in every process."""
    (place / "sitecustomize.py").write_text(code)
    return place


_OTHER_NUMBERS = """
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
run = onnxruntime.InferenceSession.run
def other(*arguments, **named):
    return [each[..., ::-1] for each in run(*arguments, **named)]
onnxruntime.InferenceSession.run = other
"""


def with_other_numbers(model: Path, place: Path) -> Path:
    """A machine that computes other probabilities."""
    return run_first(fit(model, place), _OTHER_NUMBERS)


_KILLED_ONCE = """
import os
from pathlib import Path
from emolib.sound import audio
stream, seen = audio.stream, Path(__file__).with_name("seen")
def injected(*arguments, **named):
    if not seen.exists():
        seen.touch()
        os.kill(os.getppid(), 9)
    return stream(*arguments, **named)
audio.stream = injected
"""


def fit_but_killed_once(model: Path, place: Path) -> Path:
    """A machine that loses its worker under the first recording, and starts another."""
    return run_first(fit(model, place), _KILLED_ONCE)


@contextmanager
def workers(folder: Path, *places: Path) -> Iterator[str]:
    """Give the address of a scheduler with a worker in each of several working directories."""
    with ExitStack() as processes:
        up = r"Scheduler at: +(tcp://127.0.0.1:\d+)"
        scheduler = dask_process("scheduler", "--port", "0", *_ADDRESS, until=up, folder=folder)
        address = processes.enter_context(scheduler)
        for place in places:
            worker = ("worker", address, "--nthreads", "1", *_ADDRESS)
            environment = {"PYTHONPATH": str(place)}
            processes.enter_context(
                dask_process(*worker, until="(Registered to)", folder=folder, cwd=place, environment=environment)
            )
        yield address


@pytest.fixture
def asked(calls: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | Path]:
    monkeypatch.chdir(fit(model, tmp_path / "driver"))
    return ["score", calls, "--model", _MODEL, "--out", tmp_path / "P", "--block-s", "20", "--failure-budget", "1"]


def test_unfit_workers_are_named_and_their_blocks_go_elsewhere(
    asked: list[str | Path], model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    kinds = (without_model, with_another, with_other_numbers)
    places = [fit(model, tmp_path / "fit"), *(kind(model, tmp_path / kind.__name__) for kind in kinds)]
    with workers(tmp_path, *places) as address:
        ended, said = in_process(*asked, "--cluster", address)
    assert ended.exit_code == 0, said
    assert_same_rows(tmp_path / "P", undisturbed)
    assert said.count("gets no more blocks") == 3, said


def test_a_fit_worker_that_dies_is_waited_for(
    asked: list[str | Path], model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    kinds = (with_other_numbers, without_model, fit_but_killed_once)
    with workers(tmp_path, *(kind(model, tmp_path / kind.__name__) for kind in kinds)) as address:
        ended, said = in_process(*asked, "--cluster", address)
    assert ended.exit_code == 0, said
    assert (tmp_path / "fit_but_killed_once/seen").exists()
    assert_same_rows(tmp_path / "P", undisturbed)


@pytest.mark.parametrize(("kind", "exit_code"), [(with_other_numbers, 4), (without_model, 2)])
def test_the_run_ends_when_no_worker_is_left(
    asked: list[str | Path], kind: object, exit_code: int, model: Path, tmp_path: Path
) -> None:
    assert callable(kind)
    with workers(tmp_path, *(kind(model, tmp_path / str(number)) for number in range(2))) as address:
        ended, said = in_process(*asked, "--cluster", address)
    assert (ended.exit_code, said.count("gets no more blocks")) == (exit_code, 2), said
