"""Everything in an object store: corpus, features, model, calls, predictions, page; of each kind, by its emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from emolib.archive.lock import Lock
from emolib.archive.verification import verify
from emolib.errors import LockedError
from emolib.sound.manifest import list_recordings
from emolib.storage import resolve
from jobs.console import EXIT_SETTINGS
from tests.clusters.conftest import RECORDINGS
from tests.clusters.emulators import EMULATORS, Emulator
from tests.faults.world import paused
from tests.jobs.conftest import assert_same_rows, run_emolib

# The warning: what the clients of Google and Azure send, they send through aiohttp, which would have it in pieces.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]


@pytest.fixture(scope="module", params=EMULATORS)
def store(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with EMULATORS[request.param]() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        patch.setitem(fsspec.config.conf, store.scheme, dict(store.options))
        yield store


@pytest.fixture
def bucket(store: Emulator) -> str:
    name = f"bucket-{uuid4().hex}"
    fsspec.filesystem(store.scheme).mkdir(name)
    return f"{store.scheme}://{name}"


def test_nothing_lies_on_a_disk(bucket: str, corpus: Path, calls: Path, tmp_path: Path) -> None:
    """A table names the clips, as a corpus of a user's own has it; `calls` and `corpus` lie there as they lie here."""
    system = resolve(bucket).fs
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
    assert verify(f"{bucket}/P").counts["recordings"] == RECORDINGS
    assert system.exists(f"{bucket}/page/index.html")


def test_each_recording_is_listed_once_whatever_marks_lie_there(store: Emulator, bucket: str) -> None:
    """What other tools leave to show a folder, and a folder called as a recording is."""
    system = resolve(bucket).fs
    for name in ("a/x.wav", "a/x.wav/y.wav", "a/x.wav/b/z.wav", "a/b/w.wav"):
        system.pipe_file(f"{bucket}/calls/{name}", b"RIFF")
    if store.scheme == "az":
        for folder in ("a", "a/b"):
            with system.open(f"{bucket}/calls/{folder}", "wb", metadata={"hdi_isfolder": "true"}):
                pass
    listing = list_recordings(f"{bucket}/calls")
    assert sorted(each.uri for each in listing) == ["a/b/w.wav", "a/x.wav", "a/x.wav/b/z.wav", "a/x.wav/y.wav"]
    assert not listing.left_out


def test_a_bucket_that_is_not_there_is_a_wrong_setting(store: Emulator, calls: Path, model: Path) -> None:
    asked = ("score", calls, "--model", model, "--out", f"{store.scheme}://nosuchbucket/P")
    ended = run_emolib(*asked)
    assert ended.exit_code == EXIT_SETTINGS
    assert "no bucket or container found" in ended.summary["error"]


def test_a_run_that_is_killed_goes_on(bucket: str, calls: Path, model: Path, undisturbed: Path) -> None:
    """The lock lies there too: nobody writes beside a run that lives, and a dead one keeps nobody away."""
    system = resolve(bucket).fs
    for folder, name in ((calls, "calls"), (model, "model")):
        system.put(f"{folder}/", f"{bucket}/{name}/", recursive=True)
    asked = ("score", f"{bucket}/calls", "--model", f"{bucket}/model", "--out", f"{bucket}/P", "--failure-budget", "1")
    asked = (*asked, "--block-s", "1", "--workers", "2")

    def done() -> int:
        system.invalidate_cache()
        return len(system.glob(f"{bucket}/P/recordings/*/part-*.parquet"))

    with paused(*asked, blocks=3) as (driver, _):
        with pytest.raises(LockedError), Lock(f"{bucket}/P"):
            pass
        driver.process.kill()
        driver.end()
    print(f"killed with {done()} of {RECORDINGS} blocks done")
    assert done() < RECORDINGS
    assert run_emolib(*asked).exit_code == 0
    assert not verify(f"{bucket}/P").problems
    assert_same_rows(f"{bucket}/P", undisturbed)
