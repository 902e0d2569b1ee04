"""Damaged headers and bodies of every format at hand: an outcome each; no crash, no hang, no flood of memory."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emolib.errors import Code
from tests.faults.mutations import mutated
from tests.jobs.conftest import run_emolib

# Seconds of processor time, as others may be at work on the machine; a file that waits for something is given longer.
_LONGEST_S, _STUCK_S, _MOST_MB = 5.0, 60.0, 500
_SEED = 20240501


def _decoded(first: int, last: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Decode files in processes apart, a new one after each that died; return what came of each, and what is wrong."""
    results: list[dict[str, Any]] = []
    wrong: list[str] = []
    while first < last:
        command = [sys.executable, "-W", "error", "-m", "tests.faults.fuzzing", str(_SEED), str(first), str(last)]
        root = Path(__file__).parents[2]
        path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            command,
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_pass_on, args=(process.stdout, lines))
        reader.start()
        begun: dict[str, Any] = {}
        try:
            while line := lines.get(timeout=_STUCK_S):
                said = json.loads(line)
                if "begins" in said:
                    begun = said
                else:
                    results.append({"format": begun["format"], **said})
            ending = f"died with {process.wait(_STUCK_S)}"
        except queue.Empty:
            ending = f"hung for {_STUCK_S:.0f} s"
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        first = begun.get("begins", last) + 1
        if not results or results[-1]["ended"] != begun.get("begins"):
            wrong.append(f"file {begun.get('begins')}, {begun.get('format')}: {ending}")
    return results, wrong


def _pass_on(stream: Any, lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _assert_outcomes(count: int) -> None:
    results, wrong = _decoded(0, count)
    for each in results:
        what = f"file {each['ended']}, {each['format']}"
        if "raised" in each:
            wrong.append(f"{what}: {each['raised']}")
        if each["seconds"] > _LONGEST_S:
            wrong.append(f"{what}: {each['seconds']} s")
        if each["mb"] > _MOST_MB:
            wrong.append(f"{what}: {each['mb']} MB")
    codes = Counter(each.get("code") for each in results)
    print(f"{len(results)} files of {len({each['format'] for each in results})} formats: {dict(codes)}")
    print(f"at most {max(each['seconds'] for each in results)} s and {max(each['mb'] for each in results)} MB")
    assert not wrong, f"{len(wrong)} of {count}: " + "; ".join(wrong[:20])
    assert [each["ended"] for each in results] == list(range(count))
    assert set(codes) <= {str(code) for code in Code}
    assert {"ok", "truncated", "corrupt", "unsupported"} <= set(codes)


def test_a_few_damaged_files() -> None:
    _assert_outcomes(200)


@pytest.mark.fault
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [pytest.param(4000, marks=pytest.mark.sample), 10_000])
def test_thousands_of_damaged_files(count: int) -> None:
    _assert_outcomes(count)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A function that makes a folder of so many damaged files, which is an archive and a corpus."""

    def make(count: int) -> Path:
        folder = tmp_path_factory.mktemp("damaged")
        for number in range(count):
            name, data = mutated(_SEED, number)
            (folder / f"{number:05d}{Path(name).suffix}").write_bytes(data)
        clips = pd.DataFrame({"path": sorted(path.name for path in folder.iterdir())})
        clips.assign(speaker="s", emotion="anger").to_csv(folder / "corpus.csv", index=False)
        return folder

    return cache(make)


@pytest.mark.fault
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("count", [pytest.param(200, marks=pytest.mark.sample), 10_000])
@pytest.mark.parametrize("command", ["extract", "score"])
def test_whole_jobs_over_damaged_files(
    command: str, count: int, damaged: Callable[[int], Path], model: Path, tmp_path: Path
) -> None:
    """Each has its outcome; none crashes a job, or holds it up."""
    folder, out = damaged(count), tmp_path / "out"
    options = {"extract": ["--store", out], "score": ["--model", model, "--out", out, "--exclude", "corpus.csv"]}
    ended = run_emolib(command, folder, *options[command], "--failure-budget", "1", "--recording-s", "120")
    assert ended.exit_code == 0
    codes = ended.summary["codes"]
    print(f"{command}: {count} files in {ended.summary.get('seconds')} s: {codes}")
    assert sum(codes.values()) == count
    assert {"timeout", "internal"}.isdisjoint(codes)
    assert run_emolib("verify", out).exit_code == 0
