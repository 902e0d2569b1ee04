"""A process that imports and calls the library, and says what of itself has changed. See `test_silent_library`.

python -m tests.laws.library_calls FOLDER SCOPE

SCOPE is ``scoring``, ``training``, which takes TensorFlow, or ``trespasses``: what a library must not do. FOLDER holds
``calls`` and ``model``, and gets ``changes.json``, a list: after what, which state, what it was before and what it is
now. Nothing else of the tests is imported here: they change more than the library does.
"""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import faulthandler
import gc
import importlib
import json
import locale
import logging
import os
import pkgutil
import random
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import fsspec
import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import zarr
from fsspec.registry import known_implementations

# What others change when they are imported is theirs; what the library changes through them is not.
_OTHERS = ("duckdb", "matplotlib.pyplot", "s3fs", "scipy.signal", "sklearn.cluster", "soundfile", "upath", "webrtcvad")
_OTHERS_TO_TRAIN = ("tensorflow", "keras", "onnx", "tf2onnx")
# They need TensorFlow.
_OF_TRAINING = {f"emolib.learning.{name}" for name in ("checkpoint", "course", "lesson", "model", "training")}

State = dict[str, Any]


def state() -> State:
    """Return what of a process a library has to leave alone, by its name."""
    handlers = {number.name: signal.getsignal(number) for number in signal.valid_signals() if hasattr(number, "name")}
    found: State = {
        **{f"environment: {name}": value for name, value in os.environ.items()},
        **{
            f"limit: {name}": resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT_" in name
        },
        **{f"signal: {name}": handler for name, handler in handlers.items()},
        **{f"logger: {name}": _logging(name) for name in ("", *logging.root.manager.loggerDict)},
        **{f"fsspec, known: {name}": str(how) for name, how in known_implementations.items()},
        **{f"fsspec, registered: {name}": kind for name, kind in fsspec.registry.items()},
        **{f"matplotlib: {name}": str(value) for name, value in mpl.rcParams.items()},
        "logging is off": logging.root.manager.disable,
        "logging's classes": (logging.getLoggerClass(), logging.getLogRecordFactory(), logging.raiseExceptions),
        "warnings": list(warnings.filters),
        "how warnings are shown": (warnings.showwarning, warnings.formatwarning),
        "random": hash(random.getstate()),
        "numpy.random": str(np.random.get_state()[1:]) + str(np.random.get_state()[1].tolist()),  # noqa: NPY002
        "numpy's errors": np.geterr(),
        "numpy's print options": str(np.get_printoptions()),
        "pandas": _of_pandas(),
        "pyarrow": (pa.cpu_count(), pa.io_thread_count(), pa.default_memory_pool().backend_name),
        "zarr": str(zarr.config.config),
        "FFmpeg's logs": av.logging.get_level(),
        "fsspec's settings": str(fsspec.config.conf),
        "locale": locale.setlocale(locale.LC_ALL),
        "umask": _umask(),
        "working directory": os.getcwd(),  # noqa: PTH109
        "priority": os.nice(0),
        "time zone": time.tzname,
        "search path": list(sys.path),
        "hooks": (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook, sys.gettrace()),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "recursion": sys.getrecursionlimit(),
        "threads switch": sys.getswitchinterval(),
        "garbage": (gc.isenabled(), gc.get_threshold()),
        "faults are told": faulthandler.is_enabled(),
        "decimals": str(decimal.getcontext()),
        "sockets": socket.getdefaulttimeout(),
        "loops": type(asyncio.get_event_loop_policy()),
        "temporary folder": tempfile.tempdir,
    }
    if keras := sys.modules.get("keras"):
        found |= _of_keras(keras)
    return found


def _logging(name: str) -> tuple[Any, ...] | None:
    logger = logging.root if not name else logging.root.manager.loggerDict[name]
    if not isinstance(logger, logging.Logger):  # a place in the tree of names
        return None
    return logger.level, logger.propagate, logger.disabled, list(logger.handlers), list(logger.filters)


def _of_pandas() -> dict[str, str]:
    described = pd.describe_option(_print_desc=False).splitlines()
    names = [line.partition(" ")[0] for line in described if line and not line.startswith(" ")]
    with warnings.catch_warnings(action="ignore"):  # some are deprecated
        return {name: str(pd.get_option(name)) for name in names}


def _umask() -> int:
    before = os.umask(0o77)
    os.umask(before)
    return before


def _of_keras(keras: ModuleType) -> State:
    import tensorflow as tf
    from keras.src.backend.common import global_state

    others = {name: kind for name, kind in keras.saving.get_custom_objects().items() if "emolib" not in name}
    return {
        "keras": (
            keras.config.floatx(),
            keras.config.epsilon(),
            keras.config.image_data_format(),
            keras.backend.backend(),
        ),
        "keras: mixed precision": str(keras.config.dtype_policy()),
        "keras: seed": global_state.get_global_attribute("global_random_seed"),
        "keras: registry": others,
        "tensorflow: seed": tf.compat.v1.get_seed(None),
        "tensorflow: threads": (
            tf.config.threading.get_inter_op_parallelism_threads(),
            tf.config.threading.get_intra_op_parallelism_threads(),
        ),
        "tensorflow: deterministic": tf.config.experimental.is_op_determinism_enabled()
        if hasattr(tf.config.experimental, "is_op_determinism_enabled")
        else None,
    }


def differences(before: State, after: State) -> list[list[str]]:
    """Return what differs: its name, what it was and what it is. A logger that is new and says nothing is none."""
    quiet = (logging.NOTSET, True, False, [], [])
    told = []
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if name not in before and name.startswith("logger: ") and now in (None, quiet):
            continue
        if name.startswith("logger: ") and was is None and now == quiet:  # a place becomes a logger
            continue
        if was != now:
            told.append([name, repr(was)[:300], repr(now)[:300]])
    return told


def modules(*, training: bool) -> list[str]:
    """Return the names of the library's modules."""
    package = importlib.import_module("emolib")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "emolib.")]
    return [name for name in names if name != "emolib.renewal" and (training or name not in _OF_TRAINING)]


# ---- Calls: what a script of a user's own would make of the library.


def _read_sound(folder: Path) -> None:
    from emolib.errors import AudioError
    from emolib.sound import audio

    for place in (folder / "calls").iterdir():
        for read in (audio.probe, audio.read):
            with contextlib.suppress(AudioError):
                read(place)
        with contextlib.suppress(AudioError), audio.stream(place, sampling_rate=8000) as sound:
            for _ in sound:
                pass


def _compute_features(folder: Path) -> None:
    from emolib.config import ARTICLE, TELEPHONE
    from emolib.features import mfcc
    from emolib.features.windows import windowed_features

    signal = np.random.default_rng(0).normal(0, 0.1, 30_000).astype(np.float32)
    for profile in (TELEPHONE, ARTICLE):
        mfcc(signal, config=profile.features)
        windowed_features(signal, features=profile.features, windows=profile.windows)


def _fill_a_store(folder: Path) -> None:
    from emolib import corpora
    from emolib.config import TELEPHONE
    from emolib.features.extraction import extract_shard, plan_windows, probe_clips
    from emolib.features.store import FeatureStore, verify
    from emolib.report.explore import explore_recording, explore_store
    from emolib.sound.synthetic import write_corpus

    write_corpus(folder / "corpus", speakers=4, utterances=1, seed=1)
    utterances = corpora.read([folder / "corpus"])
    probes = probe_clips(list(utterances["uri"]))
    planned = plan_windows(utterances, probes, profile=TELEPHONE, variants=("telephone1", "noise10"))
    store = FeatureStore.create(folder / "S.zarr", profile=TELEPHONE, windows=planned)
    for shard in range(len(store.shards)):
        extract_shard(store.path, shard)
    store.finish()
    assert verify(store) == []
    explore_store(store.path, folder / "of store", task="emotion3")
    explore_recording(utterances["uri"][0], folder / "of clip", profile=TELEPHONE)


def _score(folder: Path) -> None:
    from emolib import archive
    from emolib.archive import drift, exports
    from emolib.archive.blocks import score_block
    from emolib.archive.ledger import Run, known
    from emolib.archive.lock import Lock
    from emolib.archive.planning import plan
    from emolib.archive.run_settings import run_config
    from emolib.archive.segments import segments
    from emolib.archive.verification import verify
    from emolib.config import ScoringConfig
    from emolib.errors import SettingsError
    from emolib.learning.bundle import ModelBundle
    from emolib.report.site import write_site
    from emolib.sound.manifest import list_recordings
    from emolib.sound.synthetic import write_calls

    write_calls(folder / "calls", calls=3, broken=2, seed=2)
    bundle = ModelBundle.load(folder / "model")
    bundle.check_golden()
    config = run_config(bundle, model=folder / "model", archive=folder / "calls", scoring=ScoringConfig())
    listing = list_recordings(folder / "calls")
    run = Run.create(folder / "P", config=config, plan=[plan(listing, known(folder / "P"), block_s=3600)])
    for block in run.todo()["block"]:
        score_block(str(run.pred), run.run_id, block)
    with Lock(run.pred) as lock:
        run.close({}, lock=lock)
    rows = {name: archive.read(folder / "P", table=name) for name in ("recordings", "channels", "windows", "calls")}
    assert not verify(folder / "P").problems
    exports.plain(exports.located(segments(rows["windows"]), rows["recordings"], rows["channels"]))
    drift.drift(folder / "P", [run.run_id])
    write_site(folder / "P", folder / "page")
    with contextlib.suppress(SettingsError):
        archive.read(folder / "nowhere", table="calls")


def _reach_a_store(folder: Path) -> None:
    from emolib import storage

    for url in ("s3://bucket/calls", "memory://calls/a.wav", (folder / "calls").as_uri()):
        storage.absolute(url)


def _train(folder: Path) -> None:
    from emolib.corpora import labels as schemes, splits
    from emolib.features.store import FeatureStore
    from emolib.learning import bundle, training

    store = FeatureStore.open(folder / "S.zarr")
    rows = store.windows
    scheme = schemes.scheme("emotion3", rows)
    labels = schemes.label(rows, scheme)
    validation = splits.validation(rows, labels, np.ones(len(rows), bool), seed=0)
    asked = {"scheme": scheme, "labels": labels, "seed": 0, "epochs": 1}
    for architecture in ("article", "default"):
        trained = training.fit(store, train=~validation, validation=validation, architecture=architecture, **asked)
        bundle.save(folder / architecture, trained).check_golden()


# ---- What would be found of a library that is no guest.


def _trespass_environment(folder: Path) -> None:
    os.environ["EMOLIB"] = "here"


def _trespass_logging(folder: Path) -> None:
    logging.basicConfig(stream=sys.stderr)


def _trespass_logger(folder: Path) -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def _trespass_warnings(folder: Path) -> None:
    warnings.simplefilter("ignore")


def _trespass_random(folder: Path) -> None:
    random.random()


def _trespass_numpy_random(folder: Path) -> None:
    np.random.seed(0)  # noqa: NPY002


def _trespass_numpy(folder: Path) -> None:
    np.seterr(all="raise")


def _trespass_fsspec(folder: Path) -> None:
    fsspec.register_implementation("s3", fsspec.get_filesystem_class("memory"), clobber=True)


def _trespass_signal(folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _trespass_locale(folder: Path) -> None:
    locale.setlocale(locale.LC_ALL, "C")


def _trespass_umask(folder: Path) -> None:
    os.umask(0o77)


def _trespass_directory(folder: Path) -> None:
    os.chdir(folder)


def _trespass_ffmpeg(folder: Path) -> None:
    av.logging.set_level(av.logging.DEBUG)


def _trespass_matplotlib(folder: Path) -> None:
    mpl.rcParams["svg.fonttype"] = "none"


def _trespass_pandas(folder: Path) -> None:
    pd.set_option("display.max_rows", 7)


def _trespass_pyarrow(folder: Path) -> None:
    pa.set_cpu_count(1 + pa.cpu_count())


def _trespass_limits(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


TRESPASSES = [trespass for name, trespass in globals().items() if name.startswith("_trespass")]
_CALLS: dict[str, list[Callable[[Path], None]]] = {
    "scoring": [_read_sound, _compute_features, _fill_a_store, _score, _reach_a_store],
    "training": [_fill_a_store, _train],
    "trespasses": TRESPASSES,
}


def main(folder: str, scope: str) -> None:
    """Import and call the library; write down what has changed."""
    for name in (*_OTHERS, *(_OTHERS_TO_TRAIN if scope == "training" else ())):
        importlib.import_module(name)
    for name in ("file", "local", "memory", "s3"):  # fsspec enters a file system that it knows when it is first used
        fsspec.get_filesystem_class(name)
    tempfile.gettempdir()  # is found out once
    if absl := sys.modules.get("absl.logging"):  # TensorFlow sets its level to another, and back to what it stood for
        absl.set_verbosity(absl.get_verbosity())
    changes: list[list[str]] = []
    before = state()
    for name in modules(training=scope == "training"):
        importlib.import_module(name)
    after = state()
    changes += [["import", *each] for each in differences(before, after)]
    for call in _CALLS[scope]:
        before = after
        call(Path(folder))
        after = state()
        changes += [[call.__name__, *each] for each in differences(before, after)]
    (Path(folder) / "changes.json").write_text(json.dumps(changes))


if __name__ == "__main__":
    main(*sys.argv[1:])
