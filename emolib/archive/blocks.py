"""One block of a stored run -> its parts. What runs on the workers, in their scorers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq

from emolib.archive.ledger import Run
from emolib.archive.outcomes import BlockResult
from emolib.archive.predictions import Part, filesystem, parquet
from emolib.archive.run_settings import RunConfig
from emolib.archive.schemas import PROVENANCE, schema
from emolib.archive.scoring import Begins, RecordingRows, score_recordings
from emolib.archive.shadow import Shadow, folder_of
from emolib.errors import Code, EmolibError, SettingsError
from emolib.isolation import Verdict
from emolib.learning.bundle import ModelBundle
from emolib.storage import exists
from emolib.stores import locked_out, no_room


def score_block(
    pred: str,
    run_id: str,
    block: int,
    *,
    verdicts: Mapping[str, Verdict] = MappingProxyType({}),
    alone: str | None = None,
    begins: Begins | None = None,
    listens_in: bool = True,
    shares_batches: bool = True,
) -> BlockResult:
    """Score the recordings of one block of a stored run and write its parts, the `recordings` part last.

    May run twice, and at once: what the first attempt makes of it counts (see `emolib.archive.commits`). A block that
    is committed is left as it is.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    verdicts
        Recordings that get an outcome unheard, by ``recording_id``, beside those that the run has stored.
    alone
        Score only this recording of the block, and write nothing: to see whether it can be done.
    begins
        See `score_recordings`.
    listens_in
        Whether the run's candidate, if it has one, hears the block too.
    shares_batches
        See `score_recordings`.

    Raises
    ------
    SettingsError
        If the run or its model is gone or is not what was planned with.
    GoldenCheckError
        If this machine does not reproduce the model's numbers.
    OutputError
        If there is no room for the parts, or no leave to write them, or if credentials have expired.
    """
    started = time.monotonic()
    run = Run.open(pred, run_id)
    planned = run.planned(block)
    part = Part(planned[0].date, run_id, block)
    if exists(part.path(pred, "recordings")):
        return _committed(pred, part, started)
    config, verdicts = run.config, run.verdicts(block) | dict(verdicts)
    shadow = config.shadow
    if alone is not None:
        planned, verdicts = [each for each in planned if each.recording_id == alone], {}
    rows = score_recordings(
        config.archive,
        planned,
        bundle=load_bundle(config.model, config.model_id),
        config=config.scoring,
        batch=config.batch,
        verdicts=verdicts,
        begins=begins,
        shares_batches=shares_batches,
        candidate=_candidate(shadow) if shadow is not None and listens_in else None,
        shadow=shadow,
    )
    if alone is None:
        _commit(run, part, rows)
    return BlockResult(
        block=block,
        recordings=len(rows),
        by_code=dict(Counter(each.recording["code"] for each in rows)),
        audio_s=sum(each.recording["decoded_s"] or 0.0 for each in rows),
        windows=sum(len(each.windows) for each in rows),
        seconds=time.monotonic() - started,
        unforeseen=next(
            (each.recording["message"] or "" for each in rows if each.recording["code"] == Code.INTERNAL), ""
        ),
    )


def _commit(run: Run, part: Part, rows: Sequence[RecordingRows]) -> None:
    """Commit what an attempt has for each table: a candidate's rows first, those of `recordings`, the commit, last."""
    config, classes = run.config, run.config.classes
    parts: dict[str, bytes] = {}
    if (shadow := config.shadow) is not None:
        windows = _windows([each.shadow for each in rows], _stamp(shadow, part), config)
        if len(windows):
            name = f"{folder_of(shadow.model_id)}/{part.name('windows')}"
            parts[name] = parquet(windows, schema("windows", classes))
    for table, whole in _tables(rows, part, config).items():
        parts[part.name(table)] = parquet(whole, schema(table, classes))
    try:
        run.commits.commit(part.block, parts)
    except Exception as error:  # a store's client may raise anything
        if (stop := locked_out(error) or no_room(error, run.pred)) is not None:
            raise stop from error
        raise


@lru_cache(maxsize=2)  # a candidate has its place beside the model
def load_bundle(path: str, model_id: str) -> ModelBundle:
    """Return a model that reproduces its golden set on this machine, loaded once per process.

    Raises
    ------
    SettingsError
        If another model lies there.
    GoldenCheckError
        If the numbers deviate.
    """
    bundle = ModelBundle.load(path)
    if bundle.model_id != model_id:
        raise SettingsError(
            f"model {bundle.model_id} found at {path}, expected {model_id}, which the run was planned with; "
            "put that model back"
        )
    bundle.check_golden()
    return bundle


def _candidate(shadow: Shadow) -> ModelBundle | None:
    """Return who listens in, or None where it can't: that a candidate is gone keeps no recording from its row."""
    try:
        return load_bundle(shadow.model, shadow.model_id)
    except (EmolibError, OSError):
        return None


def _stamp(by: RunConfig | Shadow, part: Part) -> dict[str, str]:
    return {"model_id": by.model_id, "run_id": part.run_id, "scoring_fingerprint": by.scoring_fingerprint}


def _windows(rows: Sequence[pa.Table], stamp: Mapping[str, str], config: RunConfig) -> pa.Table:
    windows, whole = pa.concat_tables(rows), schema("windows", config.classes)
    stamped = [pa.repeat(pa.scalar(stamp[name], whole.field(name).type), len(windows)) for name in PROVENANCE]
    return pa.Table.from_arrays([*windows.columns, *stamped], schema=whole)


def _tables(rows: Sequence[RecordingRows], part: Part, config: RunConfig) -> dict[str, pa.Table]:
    """Return a block's tables in the order in which they are written: `recordings` is the commit."""
    stamp = _stamp(config, part)
    named = {
        "channels": [channel for each in rows for channel in each.channels],
        "recordings": [each.recording for each in rows],
    }
    return {"windows": _windows([each.windows for each in rows], stamp, config)} | {
        table: pa.Table.from_pylist([{**row, **stamp} for row in listed], schema=schema(table, config.classes))
        for table, listed in named.items()
    }


def _committed(pred: str, part: Part, started: float) -> BlockResult:
    """Return the numbers of a block that was done before, from its parts; nothing was decoded for it now."""
    recordings, windows = part.path(pred, "recordings"), part.path(pred, "windows")
    rows = pq.read_table(recordings.path, columns=["code"], filesystem=filesystem(recordings))
    return BlockResult(
        block=part.block,
        recordings=len(rows),
        by_code=dict(Counter(rows["code"].to_pylist())),
        audio_s=0.0,
        windows=pq.read_metadata(windows.path, filesystem=filesystem(windows)).num_rows,
        seconds=time.monotonic() - started,
    )
