"""One place where work is fanned out: blocks -> Dask bag -> futures -> results as they come.

Back-pressure: a few blocks per worker are under way, never the whole plan. Nothing waits without end: a run in which no
block finishes for too long stops with a message. Told to stop by SIGTERM, it hands out no more blocks, and waits a
while for those that workers have.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import dask.bag
from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from emolib.errors import EmolibError
from jobs.console import StalledError
from jobs.workers import GONE, workers_of

R = TypeVar("R")

# Enough that a worker never waits for the driver, few enough that little is lost when the driver dies.
_BLOCKS_PER_WORKER = 3
# Looking for ended blocks costs nothing; asking the scheduler for its workers does, with many of them.
_POLL_S, _COUNT_WORKERS_EVERY_S = 0.02, 2.0
# Longer than a block lasts, and shorter than what the files in cluster/ give a job between SIGTERM and SIGKILL.
_GRACE_S = 90.0


@dataclass(frozen=True, slots=True)
class Block:
    """One task's work: the arguments of its function, all small, and how much audio that is.

    Attributes
    ----------
    arguments
        What the function is called with.
    audio_s
        Estimated seconds of audio in it, for progress.
    """

    arguments: tuple[Any, ...]
    audio_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """A block with what its function returned."""

    block: Block
    value: R


@dataclass(frozen=True, slots=True)
class Lost:
    """A block that could not be done: its workers died under it every time, or something unforeseen went wrong."""

    block: Block
    message: str


def fan_out(
    client: Client, function: Callable[..., R], blocks: Iterable[Block], *, stall_s: float = 1800.0
) -> Iterator[Done[R] | Lost]:
    """Run a function on every block and yield what becomes of each, in the order in which they end.

    Parameters
    ----------
    function
        A module-level function of `emolib`; it may run twice on the same block without harm.
    stall_s
        Stop after so many seconds in which no block ended.

    Raises
    ------
    StalledError
        If no block ended for ``stall_s`` seconds, or the scheduler is gone.
    EmolibError
        What the function raised: wrong settings are wrong for every block. Blocks under way are cancelled.
    KeyboardInterrupt
        If it was told to stop, and what was under way has ended, or too much time has passed.
    """
    waiting = iter(blocks)
    under_way: dict[Any, tuple[Future, Block]] = {}
    pool = as_completed()
    with _stops() as stop, _cleared(pool):
        last, counted, room_in_all, withdrawn = time.monotonic(), -math.inf, 0, -1
        while True:
            if stop.told and withdrawn < 0:
                withdrawn = _withdraw(client, under_way)
            if time.monotonic() - counted > _COUNT_WORKERS_EVERY_S:
                room_in_all = _BLOCKS_PER_WORKER * max(1, len(workers_of(client)))
                counted = time.monotonic()
            room = 0 if stop.told else room_in_all - len(under_way)
            for future, block in _submit(client, function, list(islice(waiting, max(0, room)))):
                under_way[future.key] = future, block
                pool.add(future)
            if stop.is_overdue:
                raise KeyboardInterrupt
            if not under_way:
                if withdrawn > 0 or next(waiting, None) is not None:
                    raise KeyboardInterrupt
                return
            ended = pool.next_batch(block=False)
            if not ended:
                if time.monotonic() - last > stall_s:
                    raise StalledError(
                        f"no block ended for {stall_s:.0f} s with {len(under_way)} under way: look at the workers' "
                        "logs, then run the same command again; what is done stays done"
                    )
                time.sleep(_POLL_S)
                continue
            last = time.monotonic()
            for future in ended:
                if future.key in under_way:
                    _, block = under_way.pop(future.key)
                    yield _outcome(future, block)


@contextmanager
def _cleared(pool: as_completed) -> Iterator[None]:
    """Give up what is under way at the end, whatever it is that ended it."""
    try:
        yield
    finally:
        pool.clear()


class _Stop:
    """Whether a job was told to stop, and when it does."""

    def __init__(self) -> None:
        self.told = False
        self._by_s = math.inf
        self.order: Any = signal.default_int_handler

    def tell(self, *signal_and_frame: Any) -> None:
        """Take a signal: the first one is a wish, the second one an order."""
        if self.told:
            self.order(*signal_and_frame)
            return
        self.told, self._by_s = True, time.monotonic() + _GRACE_S

    @property
    def is_overdue(self) -> bool:
        """Whether it has waited long enough for what is under way."""
        return time.monotonic() > self._by_s


@contextmanager
def _stops() -> Iterator[_Stop]:
    """Take SIGTERM for a wish to stop, as long as blocks are handed out."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield stop
        return
    before = signal.signal(signal.SIGTERM, stop.tell)
    if callable(before):  # what the command does with a signal
        stop.order = before
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _withdraw(client: Client, under_way: dict[Any, tuple[Future, Block]]) -> int:
    """Take back the blocks that no worker has, and return their number."""
    taken = {key for keys in client.processing().values() for key in keys}
    idle = [key for key in under_way.keys() - taken if not under_way[key][0].done()]
    for key in idle:
        under_way.pop(key)[0].cancel()
    return len(idle)


def _submit(client: Client, function: Callable[..., R], blocks: list[Block]) -> list[tuple[Future, Block]]:
    if not blocks:
        return []
    bag = dask.bag.from_sequence([block.arguments for block in blocks], npartitions=len(blocks)).starmap(function)
    try:
        return list(zip(client.compute(bag.to_delayed(optimize_graph=False)), blocks, strict=True))
    except Exception as error:
        if client.status == "closed":  # it gave up reaching the scheduler a moment ago
            raise StalledError(GONE) from error
        raise


def _outcome(future: Future, block: Block) -> Done[Any] | Lost:
    try:
        (value,) = future.result(timeout=60)
    except KilledWorker as error:
        return Lost(block, f"its worker died {error.allowed_failures + 1} times")
    except EmolibError:
        raise
    except (
        asyncio.CancelledError,
        concurrent.futures.CancelledError,
    ) as error:  # the scheduler that knew of it is gone
        raise StalledError(GONE) from error
    except Exception as error:  # one block must not take the others with it, whatever it met
        return Lost(block, f"{type(error).__name__}: {error}")
    return Done(block, value)
