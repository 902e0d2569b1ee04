"""Everything in an object store (moto's S3 server): corpus, features, model, calls, predictions, page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from emolib.archive.verification import verify
from tests.faults.proxy import Store, object_store
from tests.jobs.conftest import assert_same_rows, run_emolib

pytest.importorskip("s3fs")
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with object_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def bucket(store: Store) -> str:
    name = f"bucket-{uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


def test_nothing_lies_on_a_disk(bucket: str, corpus: Path, calls: Path, tmp_path: Path) -> None:
    """A table names the clips, as a corpus of a user's own has it; `calls` and `corpus` lie there as they lie here."""
    system = fsspec.filesystem("s3")
    for folder, name in ((corpus, "corpus"), (calls, "calls")):
        system.put(f"{folder}/", f"{bucket}/{name}/", recursive=True)
    places = {"local": (corpus, calls, tmp_path), "remote": (f"{bucket}/corpus", f"{bucket}/calls", bucket)}
    for clips, recordings, out in places.values():
        asked = (
            ("extract", clips, "--store", f"{out}/S.zarr", "--workers", "2"),
            ("train", f"{out}/S.zarr", "--task", "emotion3", "--model", f"{out}/model", "--epochs", "2"),
            ("score", recordings, "--model", f"{out}/model", "--out", f"{out}/P", "--failure-budget", "1"),
            ("verify", f"{out}/P"),
            ("verify", f"{out}/S.zarr"),
            ("report", f"{out}/P", "--out", f"{out}/page"),
        )
        for command in asked:
            ended = run_emolib(*command)
            assert ended.exit_code == 0, (command, ended.summary)
    assert_same_rows(f"{bucket}/P", tmp_path / "P")
    assert verify(f"{bucket}/P").counts["recordings"] == 26
    assert system.exists(f"{bucket}/page/index.html")
