"""Law 2: a block, or a shard, that two processes work on at once is as if one had, whenever either of them stops."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolib import archive
from emolib.archive.blocks import score_block
from emolib.archive.ledger import Run, known
from emolib.archive.planning import plan
from emolib.archive.run_settings import run_config
from emolib.archive.schemas import TABLES
from emolib.archive.verification import verify
from emolib.config import TELEPHONE, ScoringConfig
from emolib.features import store as stores
from emolib.features.extraction import extract_shard, plan_windows, probe_clips
from emolib.features.store import FeatureStore
from emolib.learning.bundle import ModelBundle
from emolib.sound.manifest import list_recordings
from tests.archive.conftest import holding, voice, write_call
from tests.faults.world import untrained_model

pytestmark = pytest.mark.slow
_ROOT = Path(__file__).parents[2]
# Files that a block writes: what is decided, and a part of each table; and a shard: that, and a chunk of each array.
_OF_BLOCK, _OF_SHARD = 4, 4
_BLOCKS, _SHARDS = _OF_BLOCK + 2, _OF_SHARD + 2


@dataclass
class Process:
    """A process that makes attempts, see `tests.laws.attempt`."""

    process: subprocess.Popen[str]

    def begin(self, call: str, *arguments: object, waits_at: int = 0) -> None:
        """Let it call a function; before the nth file that is whole gets its name, it waits."""
        self._tell(json.dumps({"call": call, "arguments": arguments, "waits_at": waits_at}, default=str))

    def go_on(self) -> None:
        """Let it go on from where it waits."""
        self._tell("")

    def says(self) -> str:
        """Wait for the next thing that it says: `ready`, `waits` or `ended`."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}"
        return str(json.loads(line))

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)


@contextmanager
def _started() -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.laws.attempt"],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Process(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Process, Process]]:
    with ExitStack() as stack:
        one, other = (stack.enter_context(_started()) for _ in range(2))
        assert [one.says(), other.says()] == ["ready", "ready"]
        yield one, other


def _rows(pred: Path) -> dict[str, pd.DataFrame]:
    return {table: archive.read(pred, table=table) for table in TABLES}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A planned run of some blocks, and a copy of it, `alone`, that one process has carried out."""
    for number in range(_BLOCKS):
        write_call(tmp_path / f"calls/2024-05-0{number + 1}/a.wav", voice(9, seed=number), voice(9, seed=9 + number))
    write_call(tmp_path / "calls/2024-05-01/text.wav", b"this is no sound " * 100)
    model = untrained_model(tmp_path / "model")
    config = run_config(
        ModelBundle.load(model), model=model, archive=tmp_path / "calls", scoring=ScoringConfig(), block_s=1e6
    )
    listing = list_recordings(tmp_path / "calls")
    planned = Run.create(tmp_path / "P", config=config, plan=[plan(listing, known(tmp_path / "P"), block_s=1e6)])
    assert list(planned.blocks()["block"]) == list(range(_BLOCKS))
    shutil.copytree(tmp_path / "P", tmp_path / "alone")
    alone = Run.open(tmp_path / "alone", planned.run_id)
    for block in range(_BLOCKS):
        score_block(str(alone.pred), alone.run_id, block)
    holding(alone.pred, alone.close, {})
    return planned


def test_a_block_that_two_processes_score_at_once(two: tuple[Process, Process], run: Run, tmp_path: Path) -> None:
    """One wakes up late, at each of its writes, when the other is done; and both write in the same moment."""
    one, other = two
    pred, whole = tmp_path / "P", _rows(tmp_path / "alone")

    def committed(blocks: int) -> None:
        """Whoever reads now finds the rows of so many blocks, which are those of so many days, and no other."""
        for table, rows in _rows(pred).items():
            if table == "calls":  # is made when a run is closed
                continue
            before = pd.Timestamp(f"2024-05-0{1 + blocks}")
            expected = whole[table][whole[table]["date"] < before].reset_index(drop=True)
            if len(expected):
                pd.testing.assert_frame_equal(rows, expected, check_exact=True, obj=f"{table} of {blocks} blocks")
            else:
                assert rows.empty

    for block in range(_OF_BLOCK):
        asked = ("score_block", pred, run.run_id, block)
        one.begin(*asked, waits_at=block + 1)
        assert one.says() == "waits"
        committed(block)
        other.begin(*asked)
        assert other.says() == "ended"
        committed(block + 1)
        one.go_on()
        assert one.says() == "ended"
        committed(block + 1)
    # Before what is decided has its name; and before a part has it, which is the first file of whoever comes second.
    for block, moments in enumerate([(1, 1), (2, 1)], start=_OF_BLOCK):
        for each, moment in zip(two, moments, strict=True):
            each.begin("score_block", pred, run.run_id, block, waits_at=moment)
            assert each.says() == "waits"
        committed(block)
        for each in two:
            each.go_on()
        assert [each.says() for each in two] == ["ended", "ended"]
        committed(block + 1)
    holding(run.pred, run.close, {})
    assert verify(pred).problems == []
    for table, rows in _rows(pred).items():
        pd.testing.assert_frame_equal(rows, whole[table], check_exact=True, obj=table)
    assert [path.name for path in pred.rglob("*") if ".partial" in path.name] == []


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """A planned store of some shards, and a copy of it, `alone.zarr`, that one process has filled."""
    rng = np.random.default_rng(3)
    names = [f"{number:02d}.wav" for number in range(8 * _SHARDS)]
    for name in names:
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(12_000), 16_000)
    (tmp_path / names[5]).write_bytes(b"RIFF\xff\0\0\0WAVEfmt \x10\0\0\0")
    common = {"corpus": "c", "speaker": "s", "gender": None, "emotion": "sad", "code": "ok"}
    listed = pd.DataFrame([{"utterance_id": f"c/{name}", "uri": str(tmp_path / name), **common} for name in names])
    planned = plan_windows(listed, probe_clips(list(listed["uri"])), profile=TELEPHONE)
    stored = [
        FeatureStore.create(
            tmp_path / f"{name}.zarr", profile=TELEPHONE, windows=planned, shard_windows=8, chunk_windows=8
        )
        for name in ("S", "alone")
    ]
    for shard in range(_SHARDS):
        extract_shard(stored[1].path, shard)
    stored[1].finish()
    return stored[0]


def test_a_shard_that_two_processes_fill_at_once(
    two: tuple[Process, Process], store: FeatureStore, tmp_path: Path
) -> None:
    one, other = two
    alone = FeatureStore.open(tmp_path / "alone.zarr")
    expected, outcomes = alone.read(0, alone.shape[0]), alone.status()

    def filled(shards: int) -> None:
        """So many shards have all of their rows, and no other has one of which it says so."""
        rows = 8 * shards
        found = FeatureStore.open(store.path)
        np.testing.assert_array_equal(found.status(), np.where(np.arange(len(outcomes)) < rows, outcomes, 0))
        for ours, theirs in zip(found.read(0, rows), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs[:rows])

    assert len(store.shards) == _SHARDS
    for shard in range(_OF_SHARD):
        asked = ("extract_shard", store.path, shard)
        one.begin(*asked, waits_at=shard + 1)
        assert one.says() == "waits"
        filled(shard)
        other.begin(*asked)
        assert other.says() == "ended"
        filled(shard + 1)
        one.go_on()
        assert one.says() == "ended"
        filled(shard + 1)
    # Before what is decided has its name; and before the last chunk has, which is the third file of who comes second.
    for shard, moments in enumerate([(1, 1), (_OF_SHARD, _OF_SHARD - 1)], start=_OF_SHARD):
        for each, moment in zip(two, moments, strict=True):
            each.begin("extract_shard", store.path, shard, waits_at=moment)
            assert each.says() == "waits"
        filled(shard)
        for each in two:
            each.go_on()
        assert [each.says() for each in two] == ["ended", "ended"]
        filled(shard + 1)
    store.finish()
    assert stores.verify(FeatureStore.open(store.path)) == []
    assert [path.name for path in tmp_path.rglob("*") if ".partial" in path.name] == []
