"""One place where work is fanned out: blocks -> Dask bag -> futures -> results as they come.

Back-pressure: a few blocks per worker are under way, never the whole plan. Nothing waits without end: a run in which no
block finishes for too long stops with a message. A worker that sees another model or other settings, computes other
numbers, can't write, or fails at everything in ways that nobody foresaw gets no more blocks; those that it had go to
others. Told to stop by SIGTERM, it hands out no more blocks, and waits a while for those that workers have.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, TypeVar

import dask.bag
from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from emolib.errors import EmolibError
from jobs.console import StalledError, say
from jobs.workers import GONE, workers_of

R = TypeVar("R")

# Enough that a worker never waits for the driver, few enough that little is lost when the driver dies.
_BLOCKS_PER_WORKER = 3
# Looking for ended blocks costs nothing; asking the scheduler for its workers does, with many of them.
_POLL_S, _COUNT_WORKERS_EVERY_S = 0.02, 2.0
# How long a worker that died may take to come back, where all others were refused.
_COMES_BACK_S = 120.0
# Longer than a block lasts, and shorter than what the files in cluster/ give a job between SIGTERM and SIGKILL.
_GRACE_S = 90.0
# How long no block may end; and how many items of one may hang, where each has its own limit and is tried twice.
_STALL_S, _HANGING = 1800.0, 10


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
    client: Client, function: Callable[..., R], blocks: Iterable[Block], *, stall_s: float = _STALL_S
) -> Iterator[Done[R] | Lost]:
    """Run a function on every block and yield what becomes of each, in the order in which they end.

    Parameters
    ----------
    function
        A module-level function of `emolib`, or what `emolib.isolation.isolated` makes of one; it may run twice on the
        same block without harm.
    stall_s
        Stop after so many seconds in which no block ended.

    Raises
    ------
    StalledError
        If no block ended for ``stall_s`` seconds, or the scheduler is gone.
    EmolibError
        If no worker is left that did not raise one, and none comes back: what the first one raised.
    KeyboardInterrupt
        If it was told to stop, and what was under way has ended, or too much time has passed.
    """
    waiting = iter(blocks)
    pool = as_completed()
    with _stops() as stop, _cleared(pool):
        crew = _Crew(client, function)
        last, counted, room_in_all, withdrawn = time.monotonic(), -math.inf, 0, -1
        while True:
            if stop.told and withdrawn < 0:
                withdrawn = crew.withdraw()
            if time.monotonic() - counted > _COUNT_WORKERS_EVERY_S:
                room_in_all = _BLOCKS_PER_WORKER * max(1, crew.count())
                counted = time.monotonic()
            room = 0 if stop.told or crew.is_alone else max(0, room_in_all - len(crew.under_way))
            pool.update(crew.hand_out(list(islice(chain(crew.again(), waiting), room))))
            if stop.is_overdue:
                raise KeyboardInterrupt
            if not crew.under_way and (stop.told or not crew.is_alone):
                if withdrawn > 0 or next(chain(crew.again(), waiting), None) is not None:
                    raise KeyboardInterrupt
                return
            ended = pool.next_batch(block=False)
            if not ended:
                if time.monotonic() - last > stall_s:
                    raise StalledError(
                        f"no block ended for {stall_s:.0f} s with {len(crew.under_way)} under way: look at the "
                        "workers' logs, then run the same command again; what is done stays done"
                    )
                time.sleep(_POLL_S)
                continue
            last = time.monotonic()
            for future in ended:
                if (outcome := crew.take(future)) is not None:
                    yield outcome


def patience_s(limit_s: float) -> float:
    """Return how long no block may end where one of its items is given up after so many seconds."""
    return _STALL_S + 2 * _HANGING * limit_s


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


class _Crew:
    """The workers of a cluster: who has which block, and who gets no more.

    Attributes
    ----------
    under_way
        The blocks that were handed out and have not ended, by the keys of their futures.
    is_alone
        Whether no worker is there but those that get no more blocks: one that died may be about to come back.
    """

    def __init__(self, client: Client, function: Callable[..., Any]) -> None:
        self._client, self._function = client, function
        self.under_way: dict[Any, tuple[Future, Block, frozenset[str] | None]] = {}
        self._again: deque[Block] = deque()
        self._refused: dict[str, EmolibError] = {}
        self._seen: set[str] = set()
        self.is_alone, self._since_s = False, 0.0

    def count(self) -> int:
        """Return how many workers may have blocks; take back what only such may do as have gone."""
        workers = workers_of(self._client).keys()
        self._seen |= workers
        self._look_around(workers)
        for key, (future, block, only) in list(self.under_way.items()):
            if only is not None and not only & workers and not future.done():
                del self.under_way[key]
                future.cancel()
                self._again.append(block)
        return len(workers - self._refused.keys())

    def again(self) -> Iterator[Block]:
        """Yield the blocks that are to be handed out once more."""
        while self._again:
            yield self._again.popleft()

    def hand_out(self, blocks: list[Block]) -> list[Future]:
        """Begin blocks, on workers that were not refused."""
        if not blocks:
            return []
        fit = None
        if self._refused:
            workers = workers_of(self._client).keys()
            self._look_around(workers)
            if self.is_alone:  # the last fit one has just gone
                self._again.extend(blocks)
                return []
            fit = frozenset(workers - self._refused.keys())
        bag = dask.bag.from_sequence([block.arguments for block in blocks], npartitions=len(blocks))
        tasks = bag.starmap(self._function).to_delayed(optimize_graph=False)
        try:
            futures: list[Future] = self._client.compute(tasks, workers=None if fit is None else sorted(fit))
        except Exception as error:
            if self._client.status == "closed":  # it gave up reaching the scheduler a moment ago
                raise StalledError(GONE) from error
            raise
        for future, block in zip(futures, blocks, strict=True):
            self.under_way[future.key] = future, block, fit
        return futures

    def take(self, future: Future) -> Done[Any] | Lost | None:
        """Return what became of a block, or None where nothing did."""
        mine, block, _ = self.under_way.get(future.key, (None, None, None))
        if mine is not future or block is None:  # it was taken back; begun anew, a block may have the same key
            return None
        del self.under_way[future.key]
        try:
            return _outcome(future, block)
        except StalledError:
            raise
        except EmolibError as error:
            self._refuse(future, error)
            future.release()  # a block that is begun anew has the same key
            self._again.append(block)
            return None

    def _refuse(self, future: Future, error: EmolibError) -> None:
        """Give the worker that raised an error no more blocks."""
        workers = self._client.run_on_scheduler(_erred_on, key=future.key)
        if not workers:  # the scheduler knows it no more
            raise error
        for worker in workers:
            if worker not in self._refused:
                say(f"worker {worker} gets no more blocks: {error}")
                self._refused[worker] = error
        self._look_around(workers_of(self._client).keys())

    def _look_around(self, workers: Set[str]) -> None:
        """See whether anybody is left, and end the run where nobody is or comes back."""
        was_alone, self.is_alone = self.is_alone, bool(self._refused) and not workers - self._refused.keys()
        if not self.is_alone:
            return
        if not was_alone:
            self._since_s = time.monotonic()
        if self._seen <= self._refused.keys() or time.monotonic() - self._since_s > _COMES_BACK_S:
            raise next(iter(self._refused.values()))

    def withdraw(self) -> int:
        """Take back the blocks that no worker has, and return their number."""
        taken = {key for keys in self._client.processing().values() for key in keys}
        idle = [key for key in self.under_way.keys() - taken if not self.under_way[key][0].done()]
        for key in idle:
            self.under_way.pop(key)[0].cancel()
        return len(idle) + len(self._again)


def _erred_on(key: Any, dask_scheduler: Any) -> list[str]:
    """Return the addresses of the workers on which a task failed."""
    task = dask_scheduler.tasks.get(key)
    blamed = None if task is None else task.exception_blame or task
    return sorted((blamed and blamed.erred_on) or ())


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
