"""An object store in the place of the disk: the same rows, also where it fails for a while."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pandas as pd
import pytest

from emolib import archive
from emolib.archive.verification import verify
from emolib.sound.manifest import NAMELESS, list_recordings
from emolib.storage import resolve
from tests.conftest import PATIENCE_S
from tests.faults.proxy import Fault, Store, object_store, put
from tests.faults.world import assert_whole, files_of, job, paused, run_apart
from tests.jobs.conftest import tables
from tests.sound.real_files import DECODED, scored

pytest.importorskip("s3fs")
pytestmark = pytest.mark.timeout(3600)
RECORDINGS = 26


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with object_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        patch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 30}})
        yield store


@pytest.fixture
def bucket(store: Store) -> str:
    """The URL of a new bucket."""
    name = f"bucket-{uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.mark.fault
def test_real_calls_and_broken_files_from_a_store(
    shared: Path, model: Path, store: Store, bucket: str, tmp_path: Path
) -> None:
    """Everything that lies in `calls` and `broken`, by a path that has its date: same rows, from folder and store."""
    for name in DECODED:
        shutil.copytree(shared / name, tmp_path / "archive/2024-05-01" / name)
    count = files_of(tmp_path / "archive")
    put(tmp_path / "archive", f"{bucket}/archive")
    common = ("--model", model, "--workers", "2", "--failure-budget", "1")
    for root, out in ((tmp_path / "archive", tmp_path / "P"), (f"{bucket}/archive", f"{bucket}/P")):
        code, ended, said = run_apart("score", root, "--out", out, *common, environment=store.environment)
        assert code == 0, said
        assert ended["recordings"] == count == ended["listed"]
        assert not verify(out).problems
    found, expected = tables(f"{bucket}/P"), tables(tmp_path / "P")
    for name, rows in expected.items():
        pd.testing.assert_frame_equal(found[name], rows, check_exact=True, obj=name)
    codes = {f"2024-05-01/{folder}/{name}": code.value for folder in DECODED for name, code in scored(folder).items()}
    assert dict(zip(expected["recordings"]["uri"], expected["recordings"]["code"], strict=True)) == codes
    assert len(expected["recordings"]) == count == len(codes)
    assert set(expected["recordings"]["date_source"]) == {"path"}
    print(f"{count} recordings, {len(expected['windows'])} windows from a folder and a store:", end=" ")
    print(expected["recordings"]["code"].value_counts().to_dict())


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["500", pytest.param("503", marks=pytest.mark.sample), "hangs", "breaks off"])
def test_a_store_that_fails_for_a_moment(
    fault: Fault, calls: Path, model: Path, store: Store, bucket: str, undisturbed: Path
) -> None:
    """Requests that fail are sent again: nobody notices."""
    put(calls, f"{bucket}/archive")
    common = ("--model", model, "--block-s", "8", "--workers", "2", "--failure-budget", "1")
    command = ("score", f"{bucket}/archive", "--out", f"{bucket}/P", *common)
    with paused(*command, environment=store.environment) as (running, go_on):
        store.break_down(fault, until_failed=6)
        go_on()
        code, said = running.end()
    store.mend()
    assert code == 0, said
    assert store.failed[fault] >= 6
    _assert_same(f"{bucket}/P", undisturbed)


@pytest.mark.fault
def test_a_store_that_answers_nothing_for_minutes(
    calls: Path, model: Path, store: Store, bucket: str, undisturbed: Path
) -> None:
    """Every request waits for its time-out, and is sent again: the run takes longer, and that is all."""
    put(calls, f"{bucket}/archive")
    common = ("--model", model, "--block-s", "8", "--workers", "2", "--failure-budget", "1")
    command = ("score", f"{bucket}/archive", "--out", f"{bucket}/P", *common)
    with paused(*command, environment=store.environment) as (running, go_on):
        store.break_down("hangs")
        go_on()
        time.sleep(150)
        assert running.process.poll() is None, running.end()
        store.mend()
        code, said = running.end(PATIENCE_S)
    assert code == 0, said
    assert store.failed["hangs"] > 0
    _assert_same(f"{bucket}/P", undisturbed)


@pytest.mark.fault
def test_a_store_that_is_down_for_long(calls: Path, model: Path, store: Store, bucket: str, undisturbed: Path) -> None:
    """The run ends, says what to do, and the next one goes on."""
    put(calls, f"{bucket}/archive")
    common = ("--model", model, "--block-s", "8", "--workers", "2", "--failure-budget", "1")
    command = ("score", f"{bucket}/archive", "--out", f"{bucket}/P", *common)
    with paused(*command, environment=store.environment) as (running, go_on):
        store.break_down("500")
        go_on()
        code, said = running.end(PATIENCE_S)
    store.mend()
    assert code == 5, said
    assert "run the same command again" in said
    assert _parts(bucket) >= 1
    with job(*command, environment=store.environment) as running:
        code, said = running.end()
    assert code == 0, said
    _assert_same(f"{bucket}/P", undisturbed)
    assert len(archive.ledger.runs(f"{bucket}/P")) == 1


def _parts(bucket: str) -> int:
    return len(archive.predictions.committed(f"{bucket}/P"))


def _assert_same(pred: str, expected: Path) -> None:
    assert_whole(pred, expected, recordings=RECORDINGS)


def test_a_lock_in_a_store_that_remembers_its_listings(bucket: str) -> None:
    """A client may not hold on to the files that it saw before."""
    system = resolve(bucket).fs
    with archive.lock.Lock(f"{bucket}/P", interval_s=0.1) as lock:
        system.ls(f"{bucket}/P", detail=True)
        for _ in range(5):
            time.sleep(0.15)
            lock.check()
    assert not system.exists(f"{bucket}/P/_lock.json")


def test_folders_without_a_name_are_counted(bucket: str) -> None:
    """No path leads to `a//b.wav`: somebody has to know of it."""
    system = resolve(bucket).fs
    for key in ("a.wav", "2024//b.wav", "2024/c.wav", "/d.wav"):
        system.call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key=key, Body=b"RIFF")
    listing = list_recordings(bucket)
    assert [each.uri for each in listing] == ["a.wav", "2024/c.wav"]
    assert listing.left_out == {NAMELESS: 2}


def test_the_environment_is_the_stores(store: Store) -> None:
    """Nothing here goes to another store than the one that was started."""
    assert os.environ["AWS_ENDPOINT_URL"] == store.url
