"""How far one driver and one scheduler go: ten million recordings planned, two hundred workers fed.

Three figures, each from processes of its own:

- The plan: so many recordings listed (made up, one after the other), planned and stored, on one core: seconds, the
  largest memory of the process, and of the folder for temporary files; then the night after it: all of them but a
  thousand have their rows, and the plan has a limit; and the rows of all of them, with those of their calls, compared
  with the plan, as `verify` does once it has read them.
- The use of workers: a real scheduler, 200 worker objects in 8 processes, and `jobs.fanout.fan_out` as every job uses
  it, over tasks that wait as long as a block takes (10 to 60 s, 30 s on average): the share of the workers' time that
  is task, once each has had its first; tasks per second; memory of driver and scheduler.
- The rate: the same with tasks that take nothing. From it the largest cluster that one scheduler feeds: at 95 % use
  with 30 s tasks, 0.95 x 30 s x rate.

    python -m tests.benchmarks.scale [--recordings 10000000] [--seconds 900]

It takes as long as it says, and some gigabytes of disk for a while.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import dask
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, Worker

from emolib.archive.ledger import Run
from emolib.archive.listing import described, store
from emolib.archive.plan import KNOWN, Choice
from emolib.archive.planning import Planner
from emolib.archive.predictions import Part
from emolib.archive.reconciliation import Reconciliation
from emolib.sound.manifest import Recording, recording_id
from jobs.fanout import Block, Done, fan_out

_WORKERS, _PROCESSES = 200, 8
_SHORTEST_S, _MEAN_S, _LONGEST_S = 10.0, 30.0, 60.0


def main(
    *,
    recordings: int = 10_000_000,
    seconds: float = 900.0,
    only: Annotated[str | None, cyclopts.Parameter(show=False)] = None,
) -> None:
    """Measure, and print a line of JSON for each part."""
    if only == "plan":
        print(json.dumps(_plan(recordings)))
        return
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--recordings", str(recordings), "--only", "plan"]
    planned = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(planned), flush=True)
    with _cluster() as (client, scheduler):
        used = _use(client, scheduler, seconds)
        print(json.dumps(used), flush=True)
        rate = _rate(client)
    print(json.dumps({"tasks_per_s_at_most": round(rate, 1), "workers_at_most": int(0.95 * _MEAN_S * rate)}))


def _plan(recordings: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, _largest(folder := Path(name) / "temporary") as largest:
        began, cpu = time.perf_counter(), time.process_time()
        listing = store(described(_listed(recordings)), folder / "listing.parquet")
        listed, listed_cpu = time.perf_counter() - began, time.process_time() - cpu
        planner = Planner(listing.place, KNOWN.empty_table(), folder=folder)
        rows = (part.to_pandas() for part in planner.plan(Choice(), block_s=3600.0))
        run = Run.create(Path(name) / "P", config=_config(), plan=rows)
        done, cpu = time.perf_counter() - began, time.process_time() - cpu
        facts = json.loads((run.folder / "plan.json").read_text())
        known = _all_but(listing.place, 1000, folder / "known.parquet")
        began = time.perf_counter()
        choice = Choice(since="2024-12-01", limit_s=80_000.0, backfill_s=20_000.0)
        later = Planner(listing.place, known, folder=folder).plan(choice, block_s=3600.0)
        next_night = {"recordings": sum(map(len, later)), "planned_s": round(time.perf_counter() - began, 1)}
        began = time.perf_counter()
        _compare(run, folder)
        compared_s = time.perf_counter() - began
    return {
        "recordings": facts["recordings"],
        "blocks": facts["blocks"],
        "listed_s": round(listed, 1),
        "planned_s": round(done - listed, 1),
        "cpu_s": round(cpu, 1),
        "cpu_of_planning_s": round(cpu - listed_cpu, 1),
        "next_night": next_night,
        "compared_s": round(compared_s, 1),
        "largest_temporary_mb": round(max(largest) / 2**20),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _compare(run: Run, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        found = Reconciliation(Path(name), [run.run_id])
        found.has_whole_plan(run.run_id)
        for rows in run.plan_parts():
            found.take_plan(run.run_id, rows)
            blocks = rows["block"].to_numpy()
            for at in np.split(np.arange(len(blocks)), np.flatnonzero(np.diff(blocks)) + 1):
                own = rows.slice(int(at[0]), len(at))
                part = Part(own["date"][0].as_py(), run.run_id, int(blocks[at[0]]))
                seconds = pa.array([60.0] * len(own))
                found.take_block(part)
                found.take_recordings(part, own.append_column("decoded_s", seconds))
                calls = {"call_id": own["call_id"], "recordings": pa.array([1] * len(own)), "duration_s": seconds}
                found.take_calls(part.date, pa.table(calls))
        problems = list(found.problems(whole=[run.run_id], waiting=()))
        assert problems == [], problems


@contextmanager
def _largest(folder: Path) -> Iterator[list[int]]:
    """Look every half second how many bytes a folder takes."""
    folder.mkdir()
    ended, found = threading.Event(), [0]

    def look() -> None:
        while not ended.wait(0.5):
            sizes = subprocess.run(["du", "--summarize", "--block-size=1", folder], capture_output=True, text=True)
            found.append(int(sizes.stdout.split()[0]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _all_but(listing: Path, count: int, place: Path) -> Path:
    """Store rows of all recordings of a listing but the last ones."""
    stored = pq.ParquetFile(listing)
    left = stored.metadata.num_rows - count
    with pq.ParquetWriter(place, KNOWN) as writer:
        for batch in stored.iter_batches(columns=["recording_id", "version"]):
            rows = pa.Table.from_batches([batch]).slice(0, left)
            more = {"code": pa.array(["ok"] * len(rows)), "attempts": pa.array([1] * len(rows), pa.int32())}
            columns = {"recording_id": rows["recording_id"], "version": rows["version"], **more}
            nothing = pa.nulls(len(rows), pa.string())
            writer.write_table(pa.table({name: columns.get(name, nothing) for name in KNOWN.names}, schema=KNOWN))
            left -= len(rows)
    return place


def _config() -> Any:
    """Return what stands for a run's settings: they are only stored."""

    class Nothing:
        @staticmethod
        def model_dump(mode: str) -> dict[str, Any]:
            return {}

    return Nothing()


def _listed(count: int) -> Iterator[Recording]:
    # Quickly: it is not what is measured.
    folders = [f"site-{each % 7}/2024-{1 + each % 12:02d}-{1 + each % 28:02d}/call-" for each in range(84)]
    for number in range(count):
        uri = f"{folders[number % 84]}{number:09d}.wav"
        yield Recording(recording_id(uri), uri, f"2400000-1700000000{number:09d}", 2_400_000, 1.7e9)


@contextmanager
def _cluster() -> Iterator[tuple[Client, psutil.Process]]:
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "scheduler.json"
        own = (
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(place),
        )
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *own]
        scheduler = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stack.callback(scheduler.wait)
        stack.callback(scheduler.terminate)
        while not (place.exists() and place.read_text().strip().endswith("}")):
            time.sleep(0.1)
        address = json.loads(place.read_text())["address"]
        spawning = multiprocessing.get_context("spawn")
        for _ in range(_PROCESSES):
            process = spawning.Process(target=_workers, args=(address, _WORKERS // _PROCESSES), daemon=True)
            process.start()
            stack.callback(process.terminate)
        client = stack.enter_context(Client(address))
        client.wait_for_workers(_WORKERS, timeout=300)
        yield client, psutil.Process(scheduler.pid)


def _workers(address: str, count: int) -> None:
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # Real workers have cores of their own for looking at themselves.
    dask.config.set({"distributed.worker.profile.enabled": False})

    async def run() -> None:
        workers = [Worker(address, nthreads=1, memory_limit=0, dashboard=False) for _ in range(count)]
        await asyncio.gather(*workers)
        await asyncio.gather(*(worker.finished() for worker in workers))

    asyncio.run(run())


def _use(client: Client, scheduler: psutil.Process, seconds: float) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    spread = generator.beta(2, 3, 100_000) * (_LONGEST_S - _SHORTEST_S) + _SHORTEST_S
    began = time.monotonic()

    def blocks() -> Iterator[Block]:
        for number, length in enumerate(spread):
            if time.monotonic() - began > seconds:
                return
            yield Block((float(length), number))

    spans = [ended.value for ended in fan_out(client, _wait, blocks()) if isinstance(ended, Done)]
    # From when every worker has had a task to when nothing more is handed out.
    start, stop = min(first for first, _ in spans) + _LONGEST_S, began_of(spans) + seconds
    busy = sum(max(0.0, min(last, stop) - max(first, start)) for first, last in spans)
    return {
        "workers": _WORKERS,
        "tasks": len(spans),
        "tasks_per_s": round(len(spans) / (max(last for _, last in spans) - min(first for first, _ in spans)), 2),
        "use": round(busy / (_WORKERS * (stop - start)), 4),
        "driver_mb": round(psutil.Process().memory_info().rss / 2**20),
        "scheduler_mb": round(scheduler.memory_info().rss / 2**20),
        "scheduler_cpu": round(scheduler.cpu_times().user / (time.monotonic() - began), 3),
    }


def began_of(spans: list[tuple[float, float]]) -> float:
    """Return when the first task began."""
    return min(first for first, _ in spans)


def _wait(length_s: float, number: int) -> tuple[float, float]:
    began = time.time()
    time.sleep(length_s)
    return began, time.time()


def _rate(client: Client, tasks: int = 10_000) -> float:
    began = time.monotonic()
    done = sum(isinstance(ended, Done) for ended in fan_out(client, _nothing, (Block((n,)) for n in range(tasks))))
    return done / (time.monotonic() - began)


def _nothing(number: int) -> int:
    return number


if __name__ == "__main__":
    cyclopts.run(main)
