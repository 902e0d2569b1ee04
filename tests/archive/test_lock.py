import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from upath import UPath

from emolib.archive.lock import BEAT_NAME, LOCK_NAME, Lock
from emolib.errors import LockedError
from tests.conftest import wait_for

# Of a holder who lives, and of one who does not. However busy a machine is, nobody who lives is silent for a minute.
LIVES = {"interval_s": 0.05, "dead_after_s": 60}
DEAD = {"interval_s": 0.05, "dead_after_s": 0.6}


def _forge(pred: Path, **changes: object) -> None:
    """Put the token of a process there that does not renew it."""
    with Lock(pred):
        token = json.loads((pred / LOCK_NAME).read_text())
    (pred / LOCK_NAME).write_text(json.dumps(token | {"token": "forged"} | changes))


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    with Lock(tmp_path, **LIVES) as lock:
        with (
            pytest.raises(LockedError, match=f"locked by process {os.getpid()} on .* since .*; wait"),
            Lock(tmp_path, **LIVES),
        ):
            pass
        lock.check()
    assert not (tmp_path / LOCK_NAME).exists()
    with Lock(tmp_path, **LIVES) as lock:
        lock.check()


def test_a_lock_of_a_process_that_is_gone_is_taken_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as gone:
        pass
    _forge(tmp_path, pid=gone.pid)
    with Lock(tmp_path, dead_after_s=1000) as lock:
        lock.check()


def test_a_lock_of_another_machine_is_taken_when_it_stands_still(tmp_path: Path) -> None:
    _forge(tmp_path, machine="another", host="another")
    started = time.monotonic()
    with Lock(tmp_path, **DEAD) as lock:
        assert time.monotonic() - started >= 0.6
        lock.check()


@pytest.mark.parametrize("content", [b"", b'{"token', b"7"])
def test_a_token_that_was_never_finished_is_taken_when_it_stands_still(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_NAME).write_bytes(content)
    with Lock(tmp_path, **DEAD) as lock:
        lock.check()


@pytest.mark.slow
def test_of_two_who_take_a_dead_lock_one_gets_it(tmp_path: Path) -> None:
    _forge(tmp_path, machine="another")
    refused = threading.Event()

    def take(_: int) -> bool:
        try:
            with Lock(tmp_path, interval_s=0.05, dead_after_s=20):
                return refused.wait(60)
        except LockedError:
            refused.set()
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(take, range(2))) == [False, True]


def test_an_owner_who_finds_another_token_stops_and_leaves_it(tmp_path: Path) -> None:
    with Lock(tmp_path, **LIVES) as lock:
        token = json.loads((tmp_path / LOCK_NAME).read_text())
        (tmp_path / LOCK_NAME).write_text(json.dumps(token | {"token": "theirs", "host": "elsewhere"}))
        with pytest.raises(LockedError, match="on elsewhere"):
            lock.check()
    assert json.loads((tmp_path / LOCK_NAME).read_text())["token"] == "theirs"


def test_an_owner_whose_token_is_gone_stops(tmp_path: Path) -> None:
    with Lock(tmp_path, interval_s=5) as lock:
        (tmp_path / LOCK_NAME).unlink()
        with pytest.raises(LockedError, match="gone"):
            lock.check()


def test_an_object_store_is_locked_too() -> None:
    store = UPath("memory://test-lock/pred")
    with Lock(store, **LIVES) as lock:
        with pytest.raises(LockedError), Lock(store, **LIVES):
            pass
        lock.check()
    assert not (store / LOCK_NAME).exists()


def test_a_store_whose_client_raises_anything_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the lock is told so, goes on renewing it, and has it still."""

    failed = Counter[str]()

    def failing(name: str) -> Callable[..., None]:
        def fails(*arguments: object, **named: object) -> None:
            failed[name] += 1
            raise RuntimeError("no endpoint answered")

        return fails

    store = UPath("memory://test-lock-fails/pred")
    with Lock(store, interval_s=0.05) as lock:
        with monkeypatch.context() as patch:
            for name in ("_open", "cat_file", "pipe_file"):
                patch.setattr(type(store.fs), name, failing(name))
            wait_for(lambda: failed["cat_file"] > 3, "heartbeats that fail")
            with pytest.raises(OSError, match="no endpoint answered"):
                lock.check()
        lock.check()
        wait_for((store / BEAT_NAME).exists, "a heartbeat")
        before = (store / BEAT_NAME).read_bytes()
        wait_for(lambda: (store / BEAT_NAME).read_bytes() != before, "a heartbeat")
    assert not (store / LOCK_NAME).exists()
    assert not (store / BEAT_NAME).exists()


def test_a_holder_that_was_held_for_dead_does_not_write_over_the_taker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks whose token lies there, is taken over, and only then writes its heartbeat."""
    looked, go_on = threading.Event(), threading.Event()
    is_mine = Lock._is_mine

    def looks(self: Lock) -> bool:
        found = is_mine(self)
        if threading.current_thread().name == "emolib-lock" and not go_on.is_set():
            looked.set()
            go_on.wait(60)
        return found

    monkeypatch.setattr(Lock, "_is_mine", looks)
    with Lock(tmp_path, interval_s=0.05) as lock:
        assert looked.wait(60)
        with Lock(tmp_path, **DEAD) as taker:
            go_on.set()
            lock._thread.join(60)
            taker.check()
            with pytest.raises(LockedError):
                lock.check()


def test_a_lock_that_is_there_and_not_there_is_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an object store shows it that lists what was removed."""
    tries = []

    def exists(*arguments: object) -> bool:
        tries.append(1)
        raise FileExistsError

    monkeypatch.setattr("emolib.archive.lock.create_bytes", exists)
    with pytest.raises(LockedError, match="neither created nor read"), Lock(tmp_path, interval_s=0.2, dead_after_s=1):
        pass
    assert len(tries) < 20
