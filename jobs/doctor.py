"""`emolib doctor`: whether a job could run here, and on a cluster, before it is asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from emolib import __version__
from emolib.errors import AudioError, EmolibError
from emolib.learning.bundle import ModelBundle
from emolib.sound import audio
from emolib.sound.manifest import list_recordings
from emolib.storage import absolute, below, resolve, try_writing
from emolib.stores import is_the_stores, locked_out
from jobs.cluster import ClusterOption, WorkersOption, connect
from jobs.console import EXIT_DONE, EXIT_SETTINGS, Result, say
from jobs.specs import ClusterSpec, Kubernetes, cluster_spec
from jobs.workers import memory_limit, versions, workers_of

_TRIED = 20  # recordings


@dataclass(frozen=True)
class _Check:
    """What was looked at, whether it is well, and what was found."""

    name: str
    is_well: bool
    found: str


def doctor(
    *,
    archive: str | None = None,
    model: str | None = None,
    out: str | None = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
) -> Result:
    """Look whether a job could run: versions, the model's numbers, the archive, the output, the cluster's workers.

    Nothing is kept. What is not named is not looked at.

    Parameters
    ----------
    archive
        The recordings: some are listed and opened.
    model
        A model bundle: its golden set is computed, here and by a worker.
    out
        Where predictions are to lie: a file is written there and removed.
    """
    is_new = out is not None and not _is_there(out)
    checks = [_Check("emolib", True, f"{__version__}, " + ", ".join(f"{n} {v}" for n, v in versions().items()))]
    checks += _here(archive=archive, model=model, out=out)
    checks += _there(cluster, workers, archive=archive, model=model, out=out)
    if out is not None and is_new and _is_there(out):  # by now no worker is at it
        resolve(out).rmdir()
    for check in checks:
        say(f"{'well' if check.is_well else 'ILL '}  {check.name}: {check.found}")
    ill = [check.name for check in checks if not check.is_well]
    found = {check.name: check.found for check in checks}
    return Result({"job": "doctor", "ill": ill, "checks": found}, EXIT_SETTINGS if ill else EXIT_DONE)


def _here(*, archive: str | None, model: str | None, out: str | None) -> Iterator[_Check]:
    if model is not None:
        yield _check("model", lambda: look_at_model(model))
    if archive is not None:
        yield _check("archive", lambda: look_at_archive(archive))
    if out is not None:
        yield _check("output", lambda: write_to(out))


def _beside_others(spec: ClusterSpec) -> ClusterSpec:
    """Never take the place of a cluster that is at work: no lock is held."""
    return spec.model_copy(update={"replace": False}) if isinstance(spec, Kubernetes) else spec


def _there(
    cluster: str | None, workers: int | None, *, archive: str | None, model: str | None, out: str | None
) -> Iterator[_Check]:
    """Look at a cluster, and let each of its workers look at what it must reach."""
    try:
        with connect(_beside_others(cluster_spec(cluster, workers=workers))) as client:
            limit, count = memory_limit(client), len(workers_of(client))
            room = "no memory limit" if limit is None else f"{limit / 2**30:.1f} GiB"
            yield _Check("cluster", True, f"{count} workers of these versions, the smallest with {room}")
            for name, look, place in (
                ("model", look_at_model, model),
                ("archive", look_at_archive, archive),
                ("output", write_to, out),
            ):
                if place is None:
                    continue
                found = client.run(look, absolute(place), on_error="return")
                ill = {worker: error for worker, error in found.items() if isinstance(error, BaseException)}
                text = "; ".join(f"{worker}: {_line(error)}" for worker, error in list(ill.items())[:3])
                yield _Check(f"{name}, from the workers", not ill, text or next(iter(found.values())))
    except (EmolibError, OSError) as error:
        yield _Check("cluster", False, _line(error))


def look_at_model(path: str) -> str:
    """Load a model and compute its golden set."""
    began = time.monotonic()
    bundle = ModelBundle.load(path)
    bundle.check_golden()
    return f"{bundle.model_id}, {bundle.scheme.name}, its numbers reproduced in {time.monotonic() - began:.1f} s"


def look_at_archive(path: str) -> str:
    """List some recordings and open them."""
    listing = list_recordings(path)
    tried, opened = list(islice(listing, _TRIED)), 0
    for recording in tried:
        try:
            audio.probe(below(path, recording.uri))
        except AudioError:
            continue
        opened += 1
    if not opened:
        raise EmolibError(f"none of {len(tried)} recordings could be opened, expected some: name its folder")
    if listing.unreadable:
        folder, reason = next(iter(listing.unreadable.items()))
        raise EmolibError(f"folder {folder!a} can't be read ({reason}), expected read access: grant it")
    return f"{opened} of the first {len(tried)} recordings can be opened"


def write_to(path: str) -> str:
    """Write a file to a folder, which is made if it is not there, and remove the file."""
    try_writing(path)
    return "may be written to"


def _check(name: str, look: Callable[[], str]) -> _Check:
    try:
        return _Check(name, True, look())
    except (EmolibError, OSError) as error:
        return _Check(name, False, _line(error))
    except Exception as error:  # a store's client may raise anything
        if not is_the_stores(error):
            raise
        return _Check(name, False, _line(locked_out(error) or error))


def _is_there(place: str) -> bool:
    """Return whether a place is there; what can't be asked is left as it is."""
    try:
        return resolve(place).exists()
    except Exception as error:
        if not is_the_stores(error):
            raise
        return True


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
