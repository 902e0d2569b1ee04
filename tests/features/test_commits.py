"""Attempts at one shard that are at work at the same time, or wake up late, with different outcomes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib.config import TELEPHONE
from emolib.errors import AudioError, Code
from emolib.features import commits
from emolib.features.extraction import extract_shard, plan_windows, probe_clips
from emolib.features.store import FeatureStore, verify, windows_path
from emolib.sound import variants
from tests.conftest import damages, sampled
from tests.features.test_extraction import utterances

READ = variants.read
# An attempt creates its record, then looks, and writes, for features, valid frames and status.
STEPS = range(4)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    listed = utterances(tmp_path, {"a": 2.0, "b": 3.0, "c": 2.5})
    planned = plan_windows(listed, probe_clips(list(listed["uri"])), profile=TELEPHONE)
    return FeatureStore.create(tmp_path / "S.zarr", profile=TELEPHONE, windows=planned)


def attempt(store: FeatureStore, *, hears: bool = True) -> None:
    """Fill the shard; an attempt that can't hear the clip b has other features and another status."""

    def fails(uri: Any, *arguments: Any, **named: Any) -> Any:
        if Path(uri).stem == "b":
            raise AudioError(Code.UNREADABLE, "the disk said no, expected bytes")
        return READ(uri, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "read", READ if hears else fails)
        extract_shard(store.path, 0)


@contextmanager
def before_step(number: int, happens: Callable[[], object]) -> Iterator[None]:
    """Let something happen before a step of whoever commits next."""
    create, look, steps = commits.create_bytes, commits.exists, iter(range(100))

    def reached(step: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*arguments: Any) -> Any:
            if next(steps) == number:
                with pytest.MonkeyPatch.context() as undisturbed:
                    undisturbed.setattr(commits, "create_bytes", create)
                    undisturbed.setattr(commits, "exists", look)
                    happens()
            return step(*arguments)

        return stepping

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "create_bytes", reached(create))
        patch.setattr(commits, "exists", reached(look))
        yield


def dies() -> None:
    raise KeyboardInterrupt


def assert_of_one_attempt(store: FeatureStore) -> None:
    """Check that each row has features if it says so, and that nothing is left when all is done."""
    attempt(store)  # as the next run does, where one died, or could not hear
    store.finish()
    assert verify(FeatureStore.open(store.path)) == []
    assert store.status().tolist() == [Code.OK.status] * 3
    features, valid_frames = store.read(0, 3)
    assert (features.any(axis=(1, 2)) & (valid_frames > 0)).all()
    assert not (store.path / "commits").exists()


@pytest.mark.parametrize("case", sampled(product(STEPS, [True, False]), keep=(2, False)), ids=str)
def test_one_attempt_overtakes_another(store: FeatureStore, case: tuple[int, bool]) -> None:
    step, quicker_hears = case
    with before_step(step, lambda: attempt(store, hears=quicker_hears)):
        attempt(store, hears=not quicker_hears)
    heard = store.status() == Code.OK.status
    features, valid_frames = store.read(0, 3)
    np.testing.assert_array_equal(features.any(axis=(1, 2)), heard)
    np.testing.assert_array_equal(valid_frames > 0, heard)
    assert heard.sum() == (3 if (quicker_hears if step == 0 else not quicker_hears) else 2), "who creates it decides"
    assert_of_one_attempt(store)


@pytest.mark.parametrize("case", sampled(product(STEPS, STEPS), keep=(2, 3)), ids=str)
def test_one_attempt_dies_while_another_is_at_work(store: FeatureStore, case: tuple[int, int]) -> None:
    step, dies_at = case

    def other() -> None:
        with suppress(KeyboardInterrupt), before_step(dies_at, dies):
            attempt(store, hears=False)

    with before_step(step, other):
        attempt(store)
    assert_of_one_attempt(store)


def test_a_record_that_a_disk_damaged_decides_nothing(store: FeatureStore) -> None:
    with suppress(KeyboardInterrupt), before_step(2, dies):
        attempt(store, hears=False)
    (record,) = (store.path / "commits").iterdir()
    whole, place = record.read_bytes(), Path(store.path.path)
    for number, damaged in enumerate(damages(whole)):
        copy = shutil.copytree(place, place.with_name(f"{number}.zarr"))
        shutil.copy(windows_path(place).path, windows_path(copy).path)
        (copy / "commits" / record.name).write_bytes(damaged)
        with suppress(Exception):  # whoever meets it; whoever tries again does not
            attempt(FeatureStore.open(copy))
        assert_of_one_attempt(FeatureStore.open(copy))


def test_rows_are_on_the_disk_before_their_status(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut what is not may be gone, whatever order it was written in."""
    synced, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(store.path.path))  # noqa: PTH115
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    attempt(store)
    arrays = [place.parts[0] for place in synced if place.parts]
    assert [name for name, _ in groupby(arrays)] == ["commits", "features", "valid_frames", "status"]


@pytest.mark.parametrize("step", sampled(STEPS, keep=2))
def test_a_late_attempt_takes_nothing_from_a_store_that_was_continued(store: FeatureStore, step: int) -> None:
    """It could not hear a clip; meanwhile the run ended without that clip, and the next run heard it."""

    def meanwhile() -> None:
        attempt(store, hears=False)
        store.finish()
        store.reopen()
        attempt(store)

    with before_step(step, meanwhile):
        attempt(store, hears=False)
    assert_of_one_attempt(store)
