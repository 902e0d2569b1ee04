"""One place where work is fanned out: blocks -> Dask bag -> futures -> results as they come.

Back-pressure: a few blocks per worker are under way, never the whole plan. Nothing waits without end: a run in which no
block finishes for too long stops with a message.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import dask.bag
from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from emolib.errors import EmolibError
from jobs.console import StalledError

R = TypeVar("R")

_GONE = "the cluster's scheduler is gone: start it, and run the same command again; what is done stays done"

# Enough that a worker never waits for the driver, few enough that little is lost when the driver dies.
_BLOCKS_PER_WORKER = 3
# Looking for ended blocks costs nothing; asking the scheduler for its workers does, with many of them.
_POLL_S, _COUNT_WORKERS_EVERY_S = 0.02, 2.0


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
    """
    waiting = iter(blocks)
    under_way: dict[Any, Block] = {}
    pool = as_completed()
    try:
        last, counted, room_in_all = time.monotonic(), -math.inf, 0
        while True:
            if time.monotonic() - counted > _COUNT_WORKERS_EVERY_S:
                room_in_all = _BLOCKS_PER_WORKER * max(1, _workers(client))
                counted = time.monotonic()
            room = room_in_all - len(under_way)
            for future, block in _submit(client, function, list(islice(waiting, max(0, room)))):
                under_way[future.key] = block
                pool.add(future)
            if not under_way:
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
                yield _outcome(future, under_way.pop(future.key))
    finally:
        pool.clear()


def _workers(client: Client) -> int:
    """Return how many workers there are."""
    seen = client.scheduler_info(n_workers=-1)
    if "workers" not in seen:  # the client gave up reaching the scheduler, and is closed
        raise StalledError(_GONE)
    return len(seen["workers"])


def _submit(client: Client, function: Callable[..., R], blocks: list[Block]) -> list[tuple[Future, Block]]:
    if not blocks:
        return []
    bag = dask.bag.from_sequence([block.arguments for block in blocks], npartitions=len(blocks)).starmap(function)
    try:
        return list(zip(client.compute(bag.to_delayed(optimize_graph=False)), blocks, strict=True))
    except Exception as error:
        if client.status == "closed":  # it gave up reaching the scheduler a moment ago
            raise StalledError(_GONE) from error
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
        raise StalledError(_GONE) from error
    except Exception as error:  # one block must not take the others with it, whatever it met
        return Lost(block, f"{type(error).__name__}: {error}")
    return Done(block, value)
