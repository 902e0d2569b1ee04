"""Attempts at one block that are at work at the same time, or wake up late, with different outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emolib.archive import blocks, commits, forgetting, read, rewriting
from emolib.archive.ledger import Run
from emolib.archive.verification import verify
from emolib.errors import AudioError, Code
from emolib.sound import audio
from tests.archive.conftest import holding, voice, write_call
from tests.conftest import damages, sampled

BLOCK, STREAM = 0, audio.stream
# An attempt creates its record, then a part of windows, channels and recordings; then it removes the record.
STEPS = range(5)


def attempt(run: Run, *, hears: bool = True) -> None:
    """Score the block, begun before any other was done with it.

    An attempt that can't hear one of its recordings has other outcomes in each table.
    """

    def fails(place: Any, **named: Any) -> Any:
        if place.name == "1.wav":
            raise AudioError(Code.UNREADABLE, "the disk said no, expected bytes")
        return STREAM(place, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "stream", STREAM if hears else fails)
        patch.setattr(blocks, "exists", lambda path: False)
        blocks.score_block(str(run.pred), run.run_id, BLOCK)


@contextmanager
def before_step(number: int, happens: Callable[[], object]) -> Iterator[None]:
    """Let something happen before a step of whoever commits next."""
    create, steps = commits.create_bytes, iter(range(100))
    unlink = commits.UPath.unlink
    with pytest.MonkeyPatch.context() as patch:

        def reached() -> None:
            if next(steps) == number:
                with pytest.MonkeyPatch.context() as undisturbed:
                    undisturbed.setattr(commits, "create_bytes", create)
                    undisturbed.setattr(type(commits.resolve("/")), "unlink", unlink)
                    happens()

        def creates(path: Any, data: bytes) -> bool:
            reached()
            return create(path, data)

        def unlinks(path: Any, **named: Any) -> None:
            reached()
            unlink(path, **named)

        patch.setattr(commits, "create_bytes", creates)
        patch.setattr(type(commits.resolve("/")), "unlink", unlinks)
        yield
    assert next(steps) > number, "nothing happened"


def dies() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def run(start: Any, tmp_path: Path) -> Run:
    """A run whose first block has the three recordings of the first day."""
    run: Run = start(tmp_path / "late", block_s=1e6)
    assert len(run.planned(BLOCK)) == 3
    return run


def codes(pred: Any) -> dict[str, str]:
    rows = read(pred, table="recordings")
    return dict(zip(rows["uri"], rows["code"], strict=True))


def assert_one_of(run: Run, finish: Any, start: Any) -> None:
    """Check that the block holds what one attempt made, and nothing else; the next night then mends what failed."""
    finish(run)
    assert verify(run.pred).problems == []
    assert not list((Path(run.folder) / "commits").glob("*"))
    heard = set(read(run.pred, table="windows")["recording_id"])
    rows = read(run.pred, table="recordings")
    assert set(rows.loc[rows["outcome"] == "scored", "recording_id"]) == heard
    assert codes(run.pred)["2024-05-01/1.wav"] in {"ok", "unreadable"}


@pytest.mark.parametrize("case", sampled(product(STEPS, [True, False]), keep=(2, False)), ids=str)
def test_one_attempt_overtakes_another(run: Run, start: Any, finish: Any, case: tuple[int, bool]) -> None:
    step, quicker_hears = case
    with before_step(step, lambda: attempt(run, hears=quicker_hears)):
        attempt(run, hears=not quicker_hears)
    assert_one_of(run, finish, start)
    decided = quicker_hears if step == 0 else not quicker_hears  # by who creates the record
    assert codes(run.pred)["2024-05-01/1.wav"] == ("ok" if decided else "unreadable")


# Behind the last step of one the other finds the block committed, and has but two steps of its own.
_DEATHS = [(step, dies_at) for step, dies_at in product(STEPS, STEPS) if step < 4 or dies_at < 2]


@pytest.mark.parametrize("case", sampled(_DEATHS, keep=(2, 3)), ids=str)
def test_one_attempt_dies_while_another_is_at_work(run: Run, start: Any, finish: Any, case: tuple[int, int]) -> None:
    step, dies_at = case

    def other() -> None:
        with suppress(KeyboardInterrupt), before_step(dies_at, dies):
            attempt(run, hears=False)

    with before_step(step, other):
        attempt(run)
    assert_one_of(run, finish, start)


@pytest.mark.parametrize("step", sampled(STEPS, keep=2))
def test_what_a_dead_attempt_decided_stands(run: Run, start: Any, finish: Any, step: int) -> None:
    with suppress(KeyboardInterrupt), before_step(step, dies):
        attempt(run, hears=False)
    holding(run.pred, run.commits.settle)
    attempt(run)
    assert_one_of(run, finish, start)
    assert codes(run.pred)["2024-05-01/1.wav"] == ("ok" if step == 0 else "unreadable")


def test_a_record_that_a_disk_damaged_decides_nothing(run: Run, start: Any, finish: Any) -> None:
    with suppress(KeyboardInterrupt), before_step(2, dies):
        attempt(run, hears=False)
    (record,) = (Path(run.folder) / "commits").iterdir()
    for damaged in damages(record.read_bytes()):
        record.write_bytes(damaged)
        holding(run.pred, run.commits.settle)
        assert not record.exists()
    attempt(run)
    assert_one_of(run, finish, start)


@pytest.mark.parametrize("step", sampled(STEPS, keep=2))
def test_a_run_goes_on_while_a_late_attempt_is_at_work(run: Run, start: Any, finish: Any, step: int) -> None:
    with before_step(step, lambda: holding(run.pred, run.commits.settle)):
        attempt(run)
    assert_one_of(run, finish, start)


@pytest.mark.parametrize("step", sampled(STEPS, keep=2))
def test_a_late_attempt_brings_back_no_row_that_was_replaced(
    run: Run, start: Any, finish: Any, archive: Path, step: int
) -> None:
    newer: list[Run] = []

    def meanwhile() -> None:
        attempt(run)
        finish(run)
        write_call(archive / "2024-05-01/0.wav", voice(15, seed=70), voice(15, seed=71))
        newer.append(start(run.pred))
        holding(run.pred, rewriting.make_room, newer[0])
        finish(newer[0])
        newer.append(read(run.pred, table="windows"))

    with before_step(step, meanwhile):
        attempt(run, hears=False)
    assert verify(run.pred).problems == []
    pd.testing.assert_frame_equal(read(run.pred, table="windows"), newer[1])
    assert not list((Path(run.folder) / "commits").glob("*"))


@pytest.mark.parametrize("step", sampled(STEPS, keep=2))
def test_a_late_attempt_of_an_abandoned_run(run: Run, start: Any, finish: Any, step: int) -> None:
    """What was decided counts when the run is closed; what was not is planned anew, and comes too late."""
    planned: list[int] = []

    def meanwhile() -> None:
        holding(run.pred, run.close, {}, abandoned=True)
        newer = start(run.pred)
        planned.append(len(newer.plan()))
        finish(newer)

    with before_step(step, meanwhile):
        attempt(run)
    assert planned == [8 if step == 0 else 5]
    assert verify(run.pred).problems == []
    assert len(codes(run.pred)) == 8
    assert not list((Path(run.folder) / "commits").glob("*"))


@pytest.mark.parametrize("step", sampled(STEPS, keep=2))
def test_a_late_attempt_brings_back_no_row_that_was_erased(run: Run, finish: Any, step: int) -> None:
    gone = {each.recording_id for each in run.planned(BLOCK) if each.uri == "2024-05-01/0.wav"}

    def meanwhile() -> None:
        attempt(run)
        finish(run)
        holding(run.pred, forgetting.forget, run.pred, gone)

    with before_step(step, meanwhile):
        attempt(run)
    assert verify(run.pred).problems == []
    assert "2024-05-01/0.wav" not in codes(run.pred)
    assert not list((Path(run.folder) / "commits").glob("*"))


def test_a_close_that_was_killed_is_no_reason_to_lose_a_block(run: Run, finish: Any) -> None:
    """A seal says that nobody publishes any more; a run that goes on is unsealed first."""
    attempt(run)
    holding(run.pred, run.commits.seal, {"abandoned": False})
    for table in ("windows", "channels", "recordings"):
        for path in (Path(run.pred) / table).rglob("*.parquet"):
            path.unlink()
    attempt(run)
    assert len(run.todo()) == len(run.blocks()), "it was sealed"
    holding(run.pred, run.commits.unseal)
    finish(run)
    assert verify(run.pred).problems == []


def test_what_was_decided_before_the_seal_is_published_whoever_comes_between(run: Run, start: Any, finish: Any) -> None:
    """One attempt decided and died; another was about to publish that; a third found the run sealed."""
    with suppress(KeyboardInterrupt), before_step(1, dies):
        attempt(run)

    def meanwhile() -> None:
        holding(run.pred, run.commits.seal, {"abandoned": True})
        attempt(run, hears=False)
        holding(run.pred, run.close, {}, abandoned=True)
        finish(start(run.pred))

    with before_step(1, meanwhile):
        attempt(run)
    assert verify(run.pred).problems == []
    assert len(codes(run.pred)) == 8
    assert not list((Path(run.folder) / "commits").glob("*"))


def test_what_was_decided_of_an_erased_call_is_not_published(run: Run, start: Any, finish: Any) -> None:
    """An attempt that began before the erasure decides after it, and dies."""
    gone = {each.recording_id for each in run.planned(BLOCK) if each.uri == "2024-05-01/0.wav"}

    def erased() -> None:
        holding(run.pred, forgetting.bury, run.pred, gone)
        holding(run.pred, forgetting.forget, run.pred, gone)

    with suppress(KeyboardInterrupt), before_step(0, erased), before_step(1, dies):
        attempt(run)
    assert holding(run.pred, forgetting.forget_buried, run.pred) == 1
    holding(run.pred, run.commits.settle)
    finish(run)
    assert verify(run.pred).problems == []
    assert "2024-05-01/0.wav" not in codes(run.pred)
