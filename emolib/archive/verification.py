"""Prove the laws on what lies in a predictions folder: sums, uniqueness, orphans, schemas, and that nothing is missing.

A problem is a line for people. Nothing that lies there makes `verify` raise: a file that cannot be read is a problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from upath import UPath

from emolib.archive import ledger
from emolib.archive.joining import stale
from emolib.archive.predictions import (
    Part,
    committed,
    files,
    files_of_calls,
    filesystem,
    is_litter,
    part_of,
    require_predictions,
)
from emolib.archive.promotion import promotions
from emolib.archive.reconciliation import TOLERANCE, Reconciliation
from emolib.archive.run_settings import RunConfig
from emolib.archive.schemas import BLOCK_TABLES, KEYS, PROVENANCE, SCHEMA_VERSION, TABLES, schema
from emolib.archive.shadow import Shadow, place_of, tables_of_blocks
from emolib.errors import Code, SettingsError
from emolib.storage import AnyPath, read_json, resolve
from emolib.stores import is_the_stores

_UNFINISHED = "is open; run the job again, and it will be finished first"
# What reading a damaged plan raises.
_DAMAGED_PLAN = (OSError, ValueError, KeyError, TypeError, SettingsError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    problems
        One line each; none where all laws hold.
    counts
        Runs, open_runs, blocks, litter (files of writes that died), rows of each table, and recordings by code.
    """

    problems: list[str]
    counts: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    @property
    def damage(self) -> list[str]:
        """The problems but for runs that are open: those are only not done yet."""
        return [problem for problem in self.problems if not problem.endswith(_UNFINISHED)]


_SAID = ("table", "schema_version")  # by the metadata of a file


def verify(pred: AnyPath, *, folder: Path | None = None) -> Verification:
    """Check everything that must hold in a predictions folder.

    Memory does not grow with the number of recordings.

    - Every planned recording of the closed runs has exactly one row, and no row is there that was not planned.
    - No recording_id stands in two parts or on two dates; no key of any table occurs twice.
    - Sums agree: a channel has as many windows as it says; a recording is scored if one of its channels is.
    - Every committed block has its part in each table, and no part lies there without its commit.
    - Every call of the recordings has exactly one row, under the earliest date of its recordings, which are as many and
      last as long as it says. While a run is open, those of its dates are not looked at.
    - Files can be read, have the schema of their table, and name the run and the model that wrote them.
    - Probabilities are finite and sum to one; outcomes fit their codes.
    - No run is open.

    Parameters
    ----------
    folder
        On this machine, for what does not fit into memory; None: that for temporary files.

    Raises
    ------
    SettingsError
        If the folder holds no predictions.
    OSError
        With `errno.ENOSPC`, if the folder for what does not fit into memory is full.
    """
    require_predictions(pred)
    problems: list[str] = []
    counts: Counter[str] = Counter(dict.fromkeys(["runs", "open_runs", "blocks", "litter", *TABLES], 0))
    if damaged := list(_damaged_notes(pred)):  # what they say decides what must hold
        return Verification(damaged, dict(counts))
    runs = _runs(pred, problems)
    counts["runs"] = len(runs)
    problems += [f"run {name} died before its plan was stored; run the job again" for name in ledger.unstarted(pred)]
    for run in runs.values():
        if run.is_open:
            counts["open_runs"] += 1
            problems.append(f"run {run.run_id} {_UNFINISHED}")
    done = committed(pred)
    problems += _stray_files(pred, runs, set(done), counts)
    with TemporaryDirectory(dir=folder) as own:
        found = Reconciliation(Path(own), runs)
        for part in done:
            if part.run_id not in runs:
                problems.append(f"{_where(part, 'recordings')}: run {part.run_id} is not among the runs")
                continue
            counts["blocks"] += 1
            found.take_block(part)
            problems += _block_problems(pred, part, runs[part.run_id], counts, found)
        problems += _take_plans(runs, found)
        problems += _calls_problems(pred, runs, counts, found)
        if waiting := stale(pred):
            problems.append(
                f"calls: those of {len(waiting)} dates, first {min(waiting)}, are not up to date; run the job again"
            )
        waiting |= {date for run in runs.values() if run.is_open for date in _dates(run)}
        whole = [run.run_id for run in runs.values() if not run.is_open and not run.is_abandoned]
        problems += found.problems(whole=whole, waiting=waiting)
    return Verification(problems, dict(counts))


def _damaged_notes(pred: AnyPath) -> Iterator[str]:
    """Yield what is wrong with the small files that say what was forgotten, promoted, is out of date or closed."""
    notes: list[Callable[[], object]] = [
        partial(promotions, pred),
        partial(stale, pred),
        partial(read_json, resolve(pred) / "_tombstones.json"),
    ]
    notes += [partial(read_json, place) for place in sorted((resolve(pred) / "_runs").glob("*/summary.json"), key=str)]
    for look in notes:
        try:
            look()
        except FileNotFoundError:
            continue
        except SettingsError as error:
            yield str(error)


def _runs(pred: AnyPath, problems: list[str]) -> dict[str, ledger.Run]:
    runs = {}
    for run_id in ledger.started(pred):
        try:
            runs[run_id] = ledger.Run.open(pred, run_id)
        except SettingsError as error:
            problems.append(f"run {run_id}: {error}")
    return runs


def _stray_files(pred: AnyPath, runs: dict[str, ledger.Run], done: set[Part], counts: Counter[str]) -> Iterator[str]:
    """Yield what lies in the tables and is no part, or a part that nobody committed; count litter."""
    of_calls = {path for group in files_of_calls(pred).values() for path in group}
    for root, table in [*tables_of_blocks(pred), (resolve(pred), "calls")]:
        for path in files(root, table):
            part, where = part_of(path), _relative(pred, path)
            if is_litter(path):
                counts["litter"] += 1
            elif table == "calls":
                if path not in of_calls:
                    yield f"{where}: no file of the table; move it away"
            elif part is None:
                yield f"{where}: no part of the table; move it away"
            elif root != resolve(pred) and not _is_of_candidate(root.name, runs.get(part.run_id)):
                yield f"{where}: its run had no such candidate; remove it"
            elif part not in done and not (part.run_id in runs and runs[part.run_id].is_open):
                yield f"{where}: not committed, there is no such part in recordings; remove it"


def _block_problems(
    pred: AnyPath, part: Part, run: ledger.Run, counts: Counter[str], found: Reconciliation
) -> Iterator[str]:
    """Look at the tables of a block by themselves; count their rows, and hand over the recordings."""
    config, tables = run.config, {}
    for table in BLOCK_TABLES:
        where, place = _where(part, table), part.path(pred, table)
        rows, problem = _readable(place, table, config.classes)
        if rows is None:
            missing = "missing, although the block is committed"
            yield f"{where}: {problem or missing}"
            continue
        frame = tables[table] = rows.to_pandas()
        counts[table] += len(frame)
        yield from _stamp_problems(where, frame, run.run_id, config)
        if table == "recordings":
            counts.update(frame["code"].dropna().tolist())
            found.take_recordings(part, rows)
    if len(tables) == len(BLOCK_TABLES):
        yield from _table_problems(part, tables)
        yield from _shadow_problems(pred, part, run, tables)


def _is_of_candidate(model_id: str, run: ledger.Run | None) -> bool:
    return run is not None and run.config.shadow is not None and run.config.shadow.model_id == model_id


def _shadow_problems(pred: AnyPath, part: Part, run: ledger.Run, tables: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Look at what a candidate says of a block, if it has listened in."""
    if (shadow := run.config.shadow) is None:
        return
    place = part.path(place_of(pred, shadow.model_id), "windows")
    rows, problem = _readable(place, "windows", run.config.classes)
    where = _relative(pred, place)
    if rows is None:
        if problem:
            yield f"{where}: {problem}"
        return
    frame, keys = rows.to_pandas(), KEYS["windows"]
    yield from _stamp_problems(where, frame, run.run_id, shadow)
    unheard = ~pd.MultiIndex.from_frame(frame[keys]).isin(pd.MultiIndex.from_frame(tables["windows"][keys]))
    if unheard.any():
        yield f"{where}: windows that the model has not labelled, in {int(unheard.sum())} rows"
    recordings = tables["recordings"].set_index("recording_id")["call_id"]
    strange = [call for call in frame["recording_id"].map(recordings).dropna().unique() if not shadow.hears(call)]
    if strange:
        yield f"{where}: windows of calls that the candidate does not hear, first {strange[0]}"
    if frame.duplicated(keys).any() or not (_sums_to_one(frame, "p_") & _sums_to_one(frame, "polarity_")).all():
        yield f"{where}: rows that stand twice, or whose probabilities do not sum to 1"


def _readable(place: UPath, table: str, classes: Sequence[str]) -> tuple[pa.Table | None, str]:
    """Read a file of a table, or say why it can't be; nothing where there is no such file."""
    try:
        with filesystem(place).open_input_file(place.path) as file:
            rows = pq.read_table(file)
        rows.validate(full=True)
    except FileNotFoundError:
        return None, ""
    except (OSError, pa.ArrowException) as error:
        if is_the_stores(error):
            raise
        return None, f"cannot be read: {str(error).splitlines()[0]}"
    differs = _schema_difference(rows.schema, table, classes)
    return (None if differs else rows), differs


def _stamp_problems(where: str, rows: pd.DataFrame, run_id: str, by: RunConfig | Shadow) -> Iterator[str]:
    stamp = {"model_id": by.model_id, "run_id": run_id, "scoring_fingerprint": by.scoring_fingerprint}
    for name in PROVENANCE:
        others = rows.loc[rows[name] != stamp[name], name]
        if len(others):
            yield f"{where}: {name} is {others.iloc[0]} in {len(others)} rows, expected {stamp[name]}"


def _schema_difference(found: pa.Schema, table: str, classes: Sequence[str]) -> str:
    said = {name: (found.metadata or {}).get(f"emolib_{name}".encode(), b"").decode() for name in _SAID}
    if said["table"] != table:
        return f"emolib_table is {said['table'] or 'absent'}, expected {table}"
    version = said["schema_version"]
    if version not in map(str, range(1, SCHEMA_VERSION + 1)):
        return f"emolib_schema_version is {version or 'absent'}, expected 1 to {SCHEMA_VERSION}"
    expected = schema(table, classes, version=int(version))
    for field in expected:
        if field.name not in found.names:
            return f"column {field.name} is missing"
        if found.field(field.name).type != field.type:
            return f"column {field.name} is {found.field(field.name).type}, expected {field.type}"
    extra = sorted(set(found.names) - set(expected.names))
    return f"column {extra[0]} is unknown" if extra else ""


def _table_problems(part: Part, tables: dict[str, pd.DataFrame]) -> Iterator[str]:
    windows, channels, recordings = (tables[table] for table in BLOCK_TABLES)
    for table in BLOCK_TABLES:
        twice = tables[table].duplicated(KEYS[table])
        yield from _rows(part, table, tables[table], twice, f"{', '.join(KEYS[table])} occurs twice")
    for table in ("channels", "windows"):
        lost = ~tables[table]["recording_id"].isin(recordings["recording_id"])
        yield from _rows(part, table, tables[table], lost, "the recording has no row in recordings")
    for table in ("recordings", "channels"):
        yield from _rows(part, table, tables[table], ~_fits(tables[table]), "outcome and code do not fit each other")

    key = ["recording_id", "channel"]
    counted = channels[key].merge(windows.groupby(key).size().rename("rows").reset_index(), how="left", on=key)
    rows = counted["rows"].fillna(0).to_numpy()
    wrong = rows != channels["windows_scored"].to_numpy()
    yield from _rows(part, "channels", channels, wrong, "windows_scored is not the number of its rows in windows")
    nowhere = ~pd.MultiIndex.from_frame(windows[key]).isin(pd.MultiIndex.from_frame(channels[key]))
    yield from _rows(part, "windows", windows, nowhere, "the channel has no row in channels")
    wrong = (channels["outcome"] == "scored").to_numpy() != (rows > 0)
    yield from _rows(part, "channels", channels, wrong, "scored without windows, or windows without being scored")

    with_scored = channels.loc[channels["outcome"] == "scored", "recording_id"]
    wrong = (recordings["outcome"] == "scored") != recordings["recording_id"].isin(with_scored)
    yield from _rows(part, "recordings", recordings, wrong, "outcome does not fit those of its channels")
    listed = recordings["recording_id"].map(channels["recording_id"].value_counts()).fillna(0)
    wrong = listed != recordings["channels"].fillna(0)
    yield from _rows(part, "recordings", recordings, wrong, "channels is not the number of its rows in channels")

    yield from _rows(part, "windows", windows, ~_sums_to_one(windows, "p_"), "probabilities do not sum to 1")
    yield from _rows(part, "windows", windows, ~_sums_to_one(windows, "polarity_"), "polarities do not sum to 1")
    by_class = windows[[name for name in windows.columns if name.startswith("p_")]]
    wrong = (windows["confidence"] - by_class.max(axis=1)).abs() > TOLERANCE
    yield from _rows(part, "windows", windows, wrong, "confidence is not the highest probability")
    if len(windows):
        best = by_class.idxmax(axis=1).str.removeprefix("p_")
        wrong = windows["emotion"].notna() & (windows["emotion"] != best)
        yield from _rows(part, "windows", windows, wrong, "emotion is not the most probable class")
    wrong = ~(windows["start_s"] < windows["end_s"])
    yield from _rows(part, "windows", windows, wrong, "the window does not end after its start")


def _calls_problems(
    pred: AnyPath, runs: dict[str, ledger.Run], counts: Counter[str], found: Reconciliation
) -> Iterator[str]:
    """Look at the files of the calls, and hand over what can be read and has their schema."""
    for date, places in files_of_calls(pred).items():
        for place in places:
            where = f"calls/date={date}/{place.name}"
            rows, problem = _readable(place, "calls", ())
            if rows is None:
                yield f"{where}: {problem or 'it is gone, was it moved just now?'}"
                continue
            for run_id, group in rows.select(PROVENANCE).to_pandas().groupby("run_id"):
                if run_id in runs:
                    yield from _stamp_problems(where, group, str(run_id), runs[str(run_id)].config)
                else:
                    yield f"{where}: run {run_id} is not among the runs"
            counts["calls"] += len(rows)
            found.take_calls(date, rows)


def _take_plans(runs: dict[str, ledger.Run], found: Reconciliation) -> Iterator[str]:
    for run in runs.values():
        parts = run.plan_parts()
        while True:
            try:
                if (rows := next(parts, None)) is not None:
                    rows.validate(full=True)
            except _DAMAGED_PLAN as error:
                if is_the_stores(error):
                    raise
                yield f"run {run.run_id}: its plan cannot be read: {str(error).splitlines()[0]}"
                break
            if rows is None:
                found.has_whole_plan(run.run_id)
                break
            found.take_plan(run.run_id, rows)


def _dates(run: ledger.Run) -> set[str]:
    try:
        return set(run.blocks()["date"])
    except _DAMAGED_PLAN:  # which is said of the plan itself
        return set()


def _fits(rows: pd.DataFrame) -> pd.Series:
    known = {code.value: code.outcome.value for code in Code}
    return rows["code"].map(known) == rows["outcome"]


def _sums_to_one(windows: pd.DataFrame, prefix: str) -> NDArray[np.bool_]:
    values = windows[[name for name in windows.columns if name.startswith(prefix)]].to_numpy(np.float64)
    good = np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1)
    distance = np.abs(np.nan_to_num(values).sum(axis=1) - 1)
    return np.asarray(good & (distance <= TOLERANCE))


def _rows(part: Part, table: str, rows: pd.DataFrame, wrong: pd.Series | NDArray[np.bool_], what: str) -> Iterator[str]:
    """Yield one line about the rows that are wrong, if there are any."""
    bad = rows[np.asarray(wrong, bool)]
    if len(bad):
        first = ", ".join(f"{name} {bad[name].iloc[0]}" for name in KEYS[table])
        yield f"{_where(part, table)}: {what}, in {len(bad)} rows, first {first}"


def _relative(pred: AnyPath, path: UPath) -> str:
    return str(path).removeprefix(str(resolve(pred))).lstrip("/")


def _where(part: Part, table: str) -> str:
    return f"{table}/date={part.date}/part-{part.run_id}-{part.block:06d}.parquet"
