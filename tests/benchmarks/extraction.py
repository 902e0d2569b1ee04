"""(b) Files to features: `emolib extract` on two workers against librosa in a process pool of two.

Ours is the job itself (`jobs.extract.extract`: listing, probes, plan, store, shards, completion) on a cluster that is
up and has extracted before. Theirs is `librosa.load`, `librosa.feature.mfcc` and `numpy.save` per clip in a
`ProcessPoolExecutor` that is up and has done all of it before. A figure is the wall time of the whole corpus, the
ratio that of the medians; ours and theirs alternate. Start-up is counted on neither side and shown by itself: from the
call that starts the cluster or the pool to the end of its first, small piece of work.

The clips are FLAC, which both sides decode with libsndfile and resample with soxr for about half of their time, and
once more 16-bit WAV at the rate of the features, where there is next to nothing to decode and nothing to resample.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path

from emolib.config import TELEPHONE
from emolib.sound.manifest import list_recordings
from jobs.extract import ProfileName, extract
from tests.benchmarks import plain, world
from tests.benchmarks.rows import Row, at_least, faster
from tests.benchmarks.timing import in_turn, is_quick, timed

_WORKERS = 2
_NOTE = "librosa resamples with soxr, as emolib does; its pool takes 8 clips at a time and saves a .npy per clip."


def measure() -> list[Row]:
    name, folders = world.clips(quick=is_quick())
    plain_folders = world.plain_wav(folders, sampling_rate=TELEPHONE.features.sampling_rate)
    cases: list[tuple[str, ProfileName, list[Path]]] = [
        (name, "telephone", folders),
        (name, "wideband", folders),
        (f"{name} as WAV of 8 kHz", "telephone", plain_folders),
    ]
    store, out = world.folder("extraction.zarr"), world.folder("extraction-npy")
    out.mkdir()

    def ours(profile: ProfileName, corpora: list[Path], address: str) -> float:
        seconds = timed(
            lambda: extract([str(each) for each in corpora], store=str(store), profile=profile, cluster=address)
        )
        shutil.rmtree(store)
        store.with_suffix(".windows.parquet").unlink()
        return seconds

    def theirs(profile: ProfileName, clips: list[Path], pool: ProcessPoolExecutor) -> float:
        return timed(lambda: list(pool.map(plain.save_mfcc, clips, repeat(profile), repeat(out), chunksize=8)))

    rows = []
    spawn = multiprocessing.get_context("spawn")
    began = time.perf_counter()
    with world.local_cluster(_WORKERS) as client, ProcessPoolExecutor(_WORKERS, mp_context=spawn) as pool:
        address = client.scheduler.address
        ours("telephone", folders[:1], address)
        cluster_s = time.perf_counter() - began
        pool_s = theirs("telephone", _paths(folders)[: 2 * 8], pool)
        for corpus, profile, places in cases:
            paths = _paths(places)
            ways = {
                "ours": partial(ours, profile, places, address),
                "theirs": partial(theirs, profile, paths, pool),
            }
            seconds = in_turn(ways, rounds=1 if is_quick() else 3)
            what = f"{corpus}, {len(paths)} files to features, {profile}, {_WORKERS} workers"
            peer = f"librosa, pool of {_WORKERS}"
            rows.append(faster(what, seconds["ours"], peer, seconds["theirs"], target=at_least(3), note=_NOTE))
    what = "start-up of that, not counted above: to the end of a first small piece"
    rows.append(faster(what, [cluster_s], f"librosa, pool of {_WORKERS}", [pool_s]))
    return rows


def _paths(folders: list[Path]) -> list[Path]:
    return [folder / each.uri for folder in folders for each in list_recordings(folder)]
