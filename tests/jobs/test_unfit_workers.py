"""Workers that see another model or none, or compute other numbers, cost themselves and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from emolib.sound.synthetic import write_calls
from tests.jobs.conftest import assert_same_rows, dask_process, in_process, run_emolib

Kind: TypeAlias = Callable[[Path], None]
"""Makes something of a machine's working directory other than it should be."""
Machine: TypeAlias = Callable[..., Path]

pytestmark = pytest.mark.slow  # each starts a scheduler and its workers, which load all that scoring needs
# A path that every process finds in its own working directory: as a mount that is missing or old on one machine.
_MODEL = Path("/proc/self/cwd/model")
_ADDRESS = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")


def without_model(place: Path) -> None:
    (place / "model").unlink()


def with_another(place: Path) -> None:
    model = (place / "model").resolve()
    (place / "model").unlink()
    stored = shutil.copytree(model, place / "model") / "bundle.json"
    manifest = stored.read_text()
    start = manifest.index('"model_id": "') + len('"model_id": "')
    stored.write_text(manifest[:start] + ("0" if manifest[start] != "0" else "1") + manifest[start + 1 :])


def that_runs(code: str, name: str) -> Kind:
    """Have Python run something before anything else, in every process."""

    def kind(place: Path) -> None:
        (place / "sitecustomize.py").write_text(code)

    kind.__name__ = name
    return kind


with_other_numbers = that_runs(
    """
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
run = onnxruntime.InferenceSession.run
def other(*arguments, **named):
    return [each[..., ::-1] for each in run(*arguments, **named)]
onnxruntime.InferenceSession.run = other
""",
    "with_other_numbers",
)
killed_once = that_runs(
    """
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
""",
    "killed_once",
)
that_decodes_nothing = that_runs(
    """
from emolib.sound import audio
def injected(*arguments, **named):
    raise KeyError("nobody thought of this")
audio.stream = injected
""",
    "that_decodes_nothing",
)
that_writes_nothing = that_runs(
    """
import errno
from emolib import storage
def injected(*arguments, **named):
    raise OSError(errno.EROFS, "Read-only file system")
storage.create_bytes = injected
""",
    "that_writes_nothing",
)


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
def machine(model: Path, tmp_path: Path) -> Machine:
    """Make a working directory in which all is as it should be but for one thing."""

    def make(kind: Kind | None = None) -> Path:
        place = tmp_path / f"machine-{len(list(tmp_path.glob('machine-*')))}"
        place.mkdir()
        (place / "model").symlink_to(model)
        if kind is not None:
            kind(place)
        return place

    return make


@pytest.fixture
def asked(calls: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | Path]:
    monkeypatch.chdir(machine())
    return ["score", calls, "--model", _MODEL, "--out", tmp_path / "P", "--block-s", "20", "--failure-budget", "1"]


def test_unfit_workers_are_named_and_their_blocks_go_elsewhere(
    asked: list[str | Path], machine: Machine, undisturbed: Path, tmp_path: Path
) -> None:
    kinds = (None, without_model, with_another, with_other_numbers, that_writes_nothing)
    with workers(tmp_path, *map(machine, kinds)) as address:
        ended, said = in_process(*asked, "--cluster", address)
    assert ended.exit_code == 0, said
    assert_same_rows(tmp_path / "P", undisturbed)
    assert said.count("gets no more blocks") == 4, said


def test_a_worker_that_nobody_foresaw_costs_no_recording_its_row(
    asked: list[str | Path], machine: Machine, tmp_path: Path
) -> None:
    """It fails at all of the thirty recordings of a block."""
    asked[1] = tmp_path / "many"
    write_calls(asked[1], calls=90, broken=0, seed=4)
    asked[asked.index("--block-s") + 1] = "10000"  # a block for each of three days
    with workers(tmp_path, machine(), machine(that_decodes_nothing)) as address:
        ended, said = in_process(*asked, "--cluster", address)
    assert ended.exit_code == 0, said
    assert ended.summary["codes"] == {"ok": 90}
    assert said.count("gets no more blocks") == 1, said
    assert run_emolib("verify", tmp_path / "P").exit_code == 0


def test_a_fit_worker_that_dies_is_waited_for(
    asked: list[str | Path], machine: Machine, undisturbed: Path, tmp_path: Path
) -> None:
    with workers(tmp_path, *map(machine, (with_other_numbers, without_model, killed_once))) as address:
        ended, said = in_process(*asked, "--cluster", address)
    assert ended.exit_code == 0, said
    assert len(list(tmp_path.glob("machine-*/seen"))) == 1
    assert_same_rows(tmp_path / "P", undisturbed)


@pytest.mark.parametrize(("kind", "exit_code"), [(with_other_numbers, 4), (without_model, 2)])
def test_the_run_ends_when_no_worker_is_left(
    kind: Kind, exit_code: int, asked: list[str | Path], machine: Machine, tmp_path: Path
) -> None:
    with workers(tmp_path, machine(kind), machine(kind)) as address:
        ended, said = in_process(*asked, "--cluster", address)
    assert (ended.exit_code, said.count("gets no more blocks")) == (exit_code, 2), said
