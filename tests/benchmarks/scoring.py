"""(c) Calls on disk to committed Parquet against the plain script, (d) two workers against one, and what Dask costs.

The archive is 2 hours of µ-law stereo calls of three minutes at 8 kHz, scored by the job itself (`jobs.score.score`) on
clusters of one and of two workers that are up and have scored before, each time into new predictions. Every window is
scored (`min_speech_s` asks for none); the plain script leaves out padded ones. All ways take turns. A night
has more than two hours: the rows on two workers and on what Dask costs are there for an archive six times as long, too.

- The time of a run is the `seconds` of the job's summary: from the lock over storing the plan and scoring to the close
  of the run. Start-up (cluster, imports, model) and the listing are not in it.
- Speed is channel-seconds over seconds, with one worker, and so per core: once over the wall time of the run, once over
  the CPU time that the worker and its scorer spent meanwhile. Hours of stereo audio per core-hour are half of it.
- The plain script (`plain.label_calls`) does the first calls of the archive in one warm process, start-up not counted.
- Two workers against one: the wall time of one over that of two.
- What Dask, planning and writing cost: 1 - (pure work / wall time of the run with one worker). The pure work is
  `emolib.archive.scoring.score_recordings` on the same recordings in a warm process of its own, with the same settings
  of the allocator as a worker has: decoding, features, the network and the rows, with no Dask, no plan and no files.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from distributed import Client

from emolib.archive.scoring import score_recordings
from emolib.config import ScoringConfig
from emolib.learning.bundle import ModelBundle
from jobs.options import Options
from jobs.score import score
from tests.benchmarks import plain, world
from tests.benchmarks.rows import Figure, Row, Target, at_least, at_most, faster
from tests.benchmarks.timing import in_turn, is_quick

_CALL_S = 180.0
_NIGHT = 6  # so many times the archive is the longer one
_SPEED = "x real time"
_PLAIN_NOTE = (
    "The plain script: librosa.load, librosa.feature.mfcc per window, one model.predict per channel, to_parquet at the "
    "end; TensorFlow on one thread. It scores no padded window."
)
_SPEED_NOTE = "Channel-seconds; hours of stereo calls per core-hour are half of it."

_bundle: ModelBundle | None = None


def measure() -> list[Row]:
    calls, plain_calls, rounds = (4, 1, 1) if is_quick() else (40, 4, 3)
    archive, few = world.calls("calls", count=calls, seconds=_CALL_S), world.calls("few-calls", count=2, seconds=10)
    times = 1 if is_quick() else _NIGHT
    night = world.copies(archive, "night", count=times)
    paths, few_paths = sorted(archive.rglob("*.wav")), sorted(few.rglob("*.wav"))
    model, table = world.model(), world.folder("plain.parquet")
    spent: dict[str, list[float]] = {"emolib": [], "plain": []}  # seconds of CPU

    with ExitStack() as stack:
        began = time.perf_counter()
        one = stack.enter_context(world.local_cluster(1))
        _score(one, few, model)
        cluster_s = time.perf_counter() - began
        two = stack.enter_context(world.local_cluster(2))
        _score(two, few, model)
        began = time.perf_counter()
        script = stack.enter_context(_process(plain.start_model, model / "model.keras"))
        script.submit(plain.label_calls, few_paths, table).result()
        script_s = time.perf_counter() - began
        worker = stack.enter_context(_process(load_model, model))
        worker.submit(pure_work, few).result()

        def with_one() -> float:
            seconds, cpu_s = _score(one, archive, model)
            spent["emolib"].append(cpu_s)
            return seconds

        def by_script() -> float:
            seconds, cpu_s = script.submit(plain.label_calls, paths[:plain_calls], table).result()
            spent["plain"].append(cpu_s)
            return seconds

        seconds = in_turn(
            {
                "one": with_one,
                "plain": by_script,
                "two": lambda: _score(two, archive, model)[0],
                "pure": lambda: worker.submit(pure_work, archive).result(),
            },
            rounds=rounds,
            warm_up=False,  # everything has done its work on a few calls
        )
        of_night = in_turn(
            {
                "one": lambda: _score(one, night, model)[0],
                "two": lambda: _score(two, night, model)[0],
                "pure": lambda: worker.submit(pure_work, night).result(),
            },
            rounds=1 if is_quick() else 2,
            warm_up=False,
        )
    channel_s, plain_channel_s = 2 * _CALL_S * calls, 2 * _CALL_S * plain_calls
    by_wall, by_cpu = _speed(channel_s, seconds["one"]), _speed(channel_s, spent["emolib"])
    plain_wall, plain_cpu = _speed(plain_channel_s, seconds["plain"]), _speed(plain_channel_s, spent["plain"])
    what = "8 kHz µ-law stereo calls to committed Parquet, 1 worker"
    hours = _CALL_S * calls / 3600
    return [
        Row(what=f"{what}, per core by wall time", emolib=by_wall, target=at_least(1500, _SPEED), note=_SPEED_NOTE),
        Row(what=f"{what}, per core by CPU time of the worker", emolib=by_cpu, note=_SPEED_NOTE),
        _versus_plain(f"{what}, against the plain script", by_wall, plain_wall, target=at_least(5)),
        _versus_plain(f"{what}, the same by CPU time", by_cpu, plain_cpu),
        *_beside_the_work(f"{hours:.1f} h", seconds),
        *_beside_the_work(f"{times * hours:.1f} h", of_night),
        faster(
            "start-up of that, not counted above: to the end of a few calls", [cluster_s], "plain script", [script_s]
        ),
    ]


def load_model(path: Path) -> None:
    """Load a model once in the process that does the pure work: the initializer of a pool."""
    global _bundle
    _bundle = ModelBundle.load(path)
    _bundle.check_golden()


def pure_work(archive: Path) -> float:
    """Turn the recordings of an archive into rows; return the seconds it took."""
    assert _bundle is not None
    planned = world.planned(archive)
    began = time.perf_counter()
    config = ScoringConfig(min_speech_s=0.0)
    rows = score_recordings(archive, planned, bundle=_bundle, config=config)
    seconds = time.perf_counter() - began
    if any(row.recording["code"] != "ok" for row in rows):
        raise RuntimeError("a call that is not scored found, expected every call to be")
    return seconds


def _process(initializer: Callable[..., None], *arguments: Path) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")  # as Dask's workers: a fork would take this process's threads' locks
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=initializer, initargs=arguments)


def _score(client: Client, archive: Path, model: Path) -> tuple[float, float]:
    """Score an archive into new predictions; return the seconds of the run and of its workers' and scorers' CPU."""
    out = world.folder("predictions")

    def cpu_s() -> float:  # within a function it goes to the workers whole: they need not find this module
        import psutil

        worker = psutil.Process()
        return sum(sum(each.cpu_times()[:2]) for each in (worker, *worker.children(recursive=True)))

    before = client.run(cpu_s)
    options = Options(model=str(model), min_speech_s=0.0, cluster=client.scheduler.address)
    summary = score(str(archive), out=str(out), options=options).summary
    after = client.run(cpu_s)
    shutil.rmtree(out)
    if set(summary["codes"]) != {"ok"}:
        raise RuntimeError(f"codes {summary['codes']} found, expected every call to be scored")
    return summary["seconds"], sum(after.values()) - sum(before.values())


def _speed(channel_s: float, seconds: Sequence[float]) -> Figure:
    return Figure.of([channel_s / each for each in seconds], _SPEED)


def _versus_plain(what: str, ours: Figure, theirs: Figure, *, target: Target | None = None) -> Row:
    ratio = ours.median / theirs.median
    return Row(what=what, emolib=ours, peer="plain script", theirs=theirs, ratio=ratio, target=target, note=_PLAIN_NOTE)


def _beside_the_work(archive: str, seconds: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return what a second worker brings, and what a run takes beside its pure work."""
    one_s, pure_s = median(seconds["one"]), median(seconds["pure"])
    least = min(100 * (1 - pure / one) for pure, one in zip(seconds["pure"], seconds["one"], strict=True))
    return [
        faster(
            f"{archive} of calls to Parquet: 2 workers against 1",
            seconds["two"],
            "1 worker",
            seconds["one"],
            target=at_least(1.8),
        ),
        Row(
            what=f"Dask, planning and writing beside the work itself, {archive} of calls, 1 worker",
            emolib=Figure(median=100 * (1 - pure_s / one_s), min=least, runs=len(seconds["one"]), unit="%"),
            target=at_most(8, "%"),
            note=f"The run took {one_s:.2f} s, the pure work {pure_s:.2f} s.",
        ),
    ]
