"""Runs: what was planned under which settings, and how much of it is done.

A run lies in ``PRED/_runs/<run_id>/``: ``config.json``, ``plan/part-00000.parquet`` and so on, ``plan.json``, which is
written last and says that the plan is stored, ``verdicts/000007.json`` for a block with a recording that killed or held
up its scorer, ``commits/000007.zip`` for a moment (see `emolib.archive.commits`), ``sealed.json`` and ``summary.json``
once the run is closed. What is done is not written down anywhere: the `recordings` parts that exist say it.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from upath import UPath

from emolib.archive.calls import is_before
from emolib.archive.commits import Commits
from emolib.archive.joining import refresh_calls
from emolib.archive.lock import LOCK_NAME, Lock
from emolib.archive.plan import KNOWN, PLAN_SCHEMA, PlannedRecording, suffix_of
from emolib.archive.predictions import committed, filesystem, is_predictions, scan
from emolib.archive.promotion import in_force
from emolib.archive.run_settings import RunConfig, shared_settings
from emolib.archive.schemas import schema
from emolib.archive.spool import Spool
from emolib.config import differences, parse
from emolib.errors import Code, EmolibError, SettingsError
from emolib.isolation import Verdict
from emolib.storage import (
    AnyPath,
    below,
    is_local,
    is_same,
    names_in,
    new_folder,
    read_json,
    remove_folder,
    resolve,
    write_bytes,
    write_json,
)
from emolib.stores import is_the_stores

_PLAN_ROWS = 50_000  # per part of a stored plan
_PLAN_GROUP = 2000  # rows of a part's row groups: a task reads only those that hold its block
_PLAN_REPEATS = ["date", "date_source", "direction", "agent", "queue", "site"]  # in the others a value is hardly twice
_RUNS_TO_LEARN_FROM = 10
_LASTING = ("model_id", "labels", "classes")  # of the scoring settings, what --rescore does not change
_STAMP = "%Y%m%dT%H%M%S"
_END_OF_TIME = datetime(9999, 1, 1)  # a run that follows has a later stamp
_RUN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{4}")


def check_out(pred: AnyPath, config: RunConfig, *, rescore: bool = False) -> None:
    """See that a run of these settings may write to a folder: one that is new, empty, or holds predictions like them.

    Parameters
    ----------
    rescore
        Whether rows that were made with other settings of the same model are made anew.

    Raises
    ------
    SettingsError
        If the folder holds other files, or predictions of another archive, model, label scheme or other scoring
        settings.
    """
    if not is_predictions(pred):
        new_folder(pred, mark=LOCK_NAME, expected="a new or empty folder, or one that `emolib score` wrote")
        return
    check_key(pred, config.pseudonyms)  # with another one every recording would be another
    for run in runs(pred)[-1:]:
        # A recording is its path in the archive: equal paths would be taken for one.
        if not is_same(run.config.archive, config.archive):
            raise SettingsError(
                f"{pred} holds predictions of the archive {run.config.archive}, found {config.archive}; give another "
                "--out, or let a link lead from the old place to the archive where it moved"
            )
        ours, theirs = dict(run.config.scoring_settings), dict(config.scoring_settings)
        if (promoted := in_force(pred)) is not None and promoted.model_id == config.model_id:
            ours, theirs = shared_settings(ours), shared_settings(theirs)
        if rescore:
            ours, theirs = ({name: each.get(name) for name in _LASTING} for each in (ours, theirs))
        if differs := differences(ours, theirs):
            if ours.get("model_id") != theirs.get("model_id"):
                remedy = ", or let the model take over (`emolib promote`)"
            else:
                remedy = "" if rescore else ", or make all rows anew (--rescore)"
            raise SettingsError(f"{pred} holds predictions made otherwise: {differs}; give another --out{remedy}")


def check_key(pred: AnyPath, key_id: str | None) -> None:
    """See that predictions were made with the same key of pseudonyms, or both without one.

    Raises
    ------
    SettingsError
        If they were not: names would be looked for that are not there.
    """
    for run in runs(pred)[-1:]:
        if run.config.pseudonyms != key_id:
            there = "no pseudonyms" if run.config.pseudonyms is None else "pseudonyms"
            asked = "none were asked for" if key_id is None else "those of another key were asked for"
            raise SettingsError(f"{pred} has {there}, {asked}; give the --pseudonyms that it was begun with, or none")


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of the scoring job, as it is stored.

    Attributes
    ----------
    pred
        The predictions that it belongs to.
    run_id
        Its start in UTC and a random suffix, so that runs sort by time.
    """

    pred: UPath
    run_id: str
    config: RunConfig

    @classmethod
    def create(
        cls, pred: AnyPath, *, config: RunConfig, plan: Iterable[pd.DataFrame], gaps: Mapping[str, int] | None = None
    ) -> Run:
        """Store the settings and the plan of a new run, some rows at a time; from then on it is open.

        Parameters
        ----------
        gaps
            What is not known of the planned calls, counted while the plan is read.
        """
        run = cls(resolve(pred), _next_id(pred), config)
        write_json(run.folder / "config.json", config.model_dump(mode="json"))
        stored: list[dict[str, Any]] = []
        recordings, blocks, estimated_s = 0, 0, 0.0
        for rows in (part.iloc[at : at + _PLAN_ROWS] for part in plan for at in range(0, len(part), _PLAN_ROWS)):
            name = f"part-{len(stored):05d}.parquet"
            run._write_plan(name, pa.Table.from_pandas(rows, PLAN_SCHEMA, preserve_index=False))
            first, last = int(rows["block"].iloc[0]), int(rows["block"].iloc[-1])
            is_continued = bool(stored) and stored[-1]["last_block"] == first
            recordings, estimated_s = recordings + len(rows), estimated_s + float(rows["estimated_s"].sum())
            blocks += int(rows["block"].nunique()) - is_continued
            stored.append({"name": name, "first_block": first, "last_block": last})
        facts = {"recordings": recordings, "blocks": blocks, "estimated_s": estimated_s, "parts": stored}
        write_json(run.folder / "plan.json", facts | {"gaps": dict(gaps or {})})
        return run

    @classmethod
    def open(cls, pred: AnyPath, run_id: str) -> Run:
        """Return a stored run.

        Raises
        ------
        SettingsError
            If there is no such run, or its settings are of another version of emolib.
        """
        place = resolve(pred) / "_runs" / run_id / "config.json"
        try:
            stored = read_json(place)
        except (FileNotFoundError, SettingsError) as error:
            raise SettingsError(f"no readable {place} found, expected the settings of run {run_id}") from error
        return cls(resolve(pred), run_id, parse(RunConfig, stored))

    @property
    def folder(self) -> UPath:
        """Where the run lies."""
        return self.pred / "_runs" / self.run_id

    @property
    def commits(self) -> Commits:
        """How its blocks come into the tables."""
        return Commits(self.pred, self.run_id)

    @property
    def is_open(self) -> bool:
        """Whether the run is not closed yet."""
        return not (self.folder / "summary.json").exists()

    @property
    def is_abandoned(self) -> bool:
        """Whether the run was closed before all its blocks were done."""
        return not self.is_open and bool(self.summary().get("abandoned"))

    def summary(self) -> dict[str, Any]:
        """Return what `close` wrote of a closed run."""
        return dict(read_json(self.folder / "summary.json"))

    def gaps(self) -> dict[str, int]:
        """Return what was not known of the planned calls, see `create`."""
        return dict(read_json(self.folder / "plan.json").get("gaps", {}))  # none in older plans

    def plan(self, *columns: str, where: pc.Expression | None = None) -> pd.DataFrame:
        """Return the stored plan: some columns of `PLAN_SCHEMA`, or all; the rows for which something holds, or all."""
        names = list(columns or PLAN_SCHEMA.names)
        return self._plan_dataset(None).to_table(columns=names, filter=where).to_pandas()

    def plan_parts(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the stored plan, some columns of `PLAN_SCHEMA` or all, in its parts of tens of thousands of rows."""
        for part in read_json(self.folder / "plan.json")["parts"]:
            yield self._part_of_plan(part["name"], *columns)

    def planned(self, block: int) -> list[PlannedRecording]:
        """Return the planned recordings of one block, in the order of the plan."""
        rows = self._plan_dataset(block).to_table(filter=ds.field("block") == block)
        return [PlannedRecording(**row) for row in rows.to_pylist()]

    def verdicts(self, block: int) -> dict[str, Verdict]:
        """Return by ``recording_id`` the recordings of a block that are not to be heard again, and why."""
        try:
            stored = read_json(self._verdicts(block))
        except FileNotFoundError:
            return {}
        return {name: Verdict(Code(each["code"]), each["message"]) for name, each in stored.items()}

    def judge(self, block: int, verdicts: Mapping[str, Verdict]) -> None:
        """Store verdicts on recordings of a block, beside those that there are; none on what was erased meanwhile."""
        planned = {each.recording_id for each in self.planned(block)}
        known = self.verdicts(block) | {name: verdict for name, verdict in verdicts.items() if name in planned}
        write_json(self._verdicts(block), {name: verdict._asdict() for name, verdict in sorted(known.items())})

    def blocks(self) -> pd.DataFrame:
        """Return one row per block: block, date, recordings (their number) and estimated_s."""
        columns = ["block", "date", "estimated_s"]
        sums = {"date": "first", "recordings": "sum", "estimated_s": "sum"}
        # The plan may be larger than memory; and all its recordings may have been forgotten.
        batches = chain(
            [PLAN_SCHEMA.empty_table().select(columns)], self._plan_dataset(None).to_batches(columns=columns)
        )
        parts = [batch.to_pandas().assign(recordings=1).groupby("block", as_index=False).agg(sums) for batch in batches]
        return pd.concat(parts).groupby("block", as_index=False).agg(sums)

    def todo(self) -> pd.DataFrame:
        """Return the rows of `blocks` that are not committed, in the order in which they are best done.

        The longest first within each part of the plan, so that no worker begins a long block when the others are done.
        """
        blocks = self.blocks()
        done = {part.block for part in committed(self.pred) if part.run_id == self.run_id}
        rows_before = blocks["recordings"].cumsum() - blocks["recordings"]
        blocks = blocks.assign(part=rows_before // _PLAN_ROWS)[~blocks["block"].isin(done)]
        in_order = blocks.sort_values(["part", "estimated_s", "block"], ascending=[True, False, True])
        return in_order.drop(columns="part").reset_index(drop=True)

    def totals(self) -> tuple[dict[str, int], float]:
        """Return the number of its committed recordings by code, and the seconds of sound decoded from them."""
        columns = pa.schema([schema("recordings", ()).field(name) for name in ("code", "decoded_s")])
        done = [part for part in committed(self.pred) if part.run_id == self.run_id]
        if not done:
            return {}, 0.0
        codes, decoded_s = Counter[str](), 0.0
        for batch in scan(self.pred, "recordings", done, columns).to_batches():
            codes.update(batch["code"].to_pylist())
            decoded_s += pc.sum(batch["decoded_s"]).as_py() or 0.0
        return dict(sorted(codes.items())), decoded_s

    def heard(self) -> dict[str, dict[str, float]]:
        """Return bytes and seconds of sound by suffix of the recordings that it decoded whole: what a plan learns from.

        In the form ``{".wav": {"bytes": 960000, "seconds": 60.0}}``.
        """
        columns = pa.schema([schema("recordings", ()).field(name) for name in ("uri", "size", "decoded_s", "code")])
        done = [part for part in committed(self.pred) if part.run_id == self.run_id]
        if not done:
            return {}
        sums: dict[str, dict[str, float]] = {}
        for batch in scan(self.pred, "recordings", done, columns).to_batches():
            rows = batch.to_pandas()
            rows = rows[(rows["code"] != Code.TRUNCATED.value) & (rows["decoded_s"] > 0)]
            for suffix, own in rows.groupby(rows["uri"].map(suffix_of)):
                heard = sums.setdefault(str(suffix), {"bytes": 0, "seconds": 0.0})
                heard["bytes"] += int(own["size"].sum())
                heard["seconds"] += float(own["decoded_s"].sum())
        return dict(sorted(sums.items()))

    def close(self, summary: Mapping[str, Any], *, lock: Lock, abandoned: bool = False) -> None:
        """Let no attempt commit any more, bring the calls of its dates up to date, and write the summary.

        Parameters
        ----------
        abandoned
            Close it although blocks are left; a later run plans their recordings anew.

        Raises
        ------
        ValueError
            If blocks are left and the run is not abandoned.
        """
        if not abandoned and len(left := self.todo()):
            raise ValueError(f"run {self.run_id} has {len(left)} blocks left, expected none in a run that is closed")
        self.commits.seal({**summary, "abandoned": abandoned}, lock=lock)
        self.commits.settle(lock=lock)
        self.commits.withdraw(lock=lock)
        refresh_calls(self.pred, set(self.blocks()["date"]), lock=lock)
        facts = {"run_id": self.run_id, "abandoned": abandoned, "heard": self.heard()}
        self._hide_paths(lock)
        lock.check()
        write_json(self.folder / "summary.json", {**summary, **facts})

    def forget(self, recording_ids: Collection[str], *, lock: Lock, before: str | None = None) -> None:
        """Remove some recordings, those of days before a date if one is given, from the verdicts and the plan.

        What is left keeps its blocks.
        """
        wanted, gone, has_orphans, count, estimated_s = set(recording_ids), set[str](), False, 0, 0.0
        for part in self.plan_parts("recording_id", "date", "duplicate_of", "estimated_s"):
            rows = part.to_pandas()
            chosen = rows["recording_id"].isin(wanted)
            if before is not None:
                chosen &= is_before(rows["date"], before)
            gone |= {*rows.loc[chosen, "recording_id"]}
            has_orphans |= bool(rows["duplicate_of"].isin(wanted).any())
            left = rows[~chosen]
            count, estimated_s = count + len(left), estimated_s + float(left["estimated_s"].sum())
        if not self.is_open:  # of one that is open all is settled
            self.commits.withdraw(lock=lock)
        if not gone and not has_orphans:
            return
        for place in (self.folder / "verdicts").glob("*.json"):
            stored = read_json(place)
            lock.check()
            if kept := {name: each for name, each in stored.items() if name not in gone}:
                write_json(place, kept)
            else:
                place.unlink()
        facts = read_json(self.folder / "plan.json")
        lock.check()
        write_json(self.folder / "plan.json", facts | {"recordings": count, "estimated_s": estimated_s})
        for part in facts["parts"]:  # last: they say what is to go
            rows = self._part_of_plan(part["name"])
            others = rows.filter(pc.invert(pc.is_in(rows["recording_id"], pa.array(sorted(gone), pa.string()))))
            orphaned = pc.is_in(others["duplicate_of"], pa.array(sorted(recording_ids), pa.string()))
            for name in ("duplicate_of", "content_hash"):
                kept = pc.if_else(orphaned, pa.scalar(None, pa.string()), others[name])
                others = others.set_column(others.schema.get_field_index(name), PLAN_SCHEMA.field(name), kept)
            if len(others) < len(rows) or pc.any(orphaned).as_py():
                lock.check()
                self._write_plan(part["name"], others)

    def _hide_paths(self, lock: Lock) -> None:
        """Remove the paths that pseudonyms stand for from the plan."""
        for part in read_json(self.folder / "plan.json")["parts"]:
            rows = self._part_of_plan(part["name"])
            if rows["path"].null_count < len(rows):
                at = PLAN_SCHEMA.get_field_index("path")
                lock.check()
                self._write_plan(
                    part["name"], rows.set_column(at, PLAN_SCHEMA.field(at), pa.nulls(len(rows), pa.string()))
                )

    def _part_of_plan(self, name: str, *columns: str) -> pa.Table:
        place = below(self.folder / "plan", name)
        stored = ds.dataset(place.path, schema=PLAN_SCHEMA, filesystem=filesystem(self.pred))
        return stored.to_table(columns=list(columns or PLAN_SCHEMA.names))

    def _write_plan(self, name: str, rows: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(
            rows,
            sink,
            row_group_size=_PLAN_GROUP,
            compression="zstd",
            use_dictionary=_PLAN_REPEATS,
            write_statistics=["block"],
        )
        write_bytes(below(self.folder / "plan", name), sink.getvalue().to_pybytes())

    def _verdicts(self, block: int) -> UPath:
        return self.folder / "verdicts" / f"{block:06d}.json"

    def _plan_dataset(self, block: int | None) -> ds.Dataset:
        paths = [
            below(self.folder / "plan", part["name"]).path
            for part in read_json(self.folder / "plan.json")["parts"]
            if block is None or part["first_block"] <= block <= part["last_block"]
        ]
        return ds.dataset(paths, schema=PLAN_SCHEMA, format="parquet", filesystem=filesystem(self.pred))


def runs(pred: AnyPath) -> list[Run]:
    """Return all runs whose plan is stored, oldest first."""
    return [Run.open(pred, run_id) for run_id in started(pred)]


def open_runs(pred: AnyPath) -> list[Run]:
    """Return the runs that are planned and not closed, oldest first: they are to be finished first."""
    return [run for run in runs(pred) if run.is_open]


def started(pred: AnyPath) -> list[str]:
    """Return the ids of the runs whose plan is stored, oldest first."""
    return [run_id for run_id, is_started in _run_folders(pred) if is_started]


def unstarted(pred: AnyPath) -> list[str]:
    """Return the ids of runs that died before their plan was stored."""
    return [run_id for run_id, is_started in _run_folders(pred) if not is_started]


def remove_unstarted(pred: AnyPath, *, lock: Lock) -> list[str]:
    """Remove the runs that died before their plan was stored: they did nothing."""
    removed = [run_id for run_id in unstarted(pred) if not (resolve(pred) / "_runs" / run_id / "summary.json").exists()]
    for run_id in removed:
        lock.check()
        remove_folder(resolve(pred) / "_runs" / run_id)
    return removed


def strays(pred: AnyPath) -> list[str]:
    """Return the names beside the runs that are no run's: nothing reads or removes what they name."""
    return sorted(name for name in names_in(resolve(pred) / "_runs") if not _is_run_id(name))


def known(pred: AnyPath, *more: str) -> pd.DataFrame:
    """Return what is known of all recordings that have their row, and more columns.

    Raises
    ------
    EmolibError
        If a part of them is damaged.
    """
    names = ("recording_id", "version", "code", "attempts", "run_id", "content_hash", "duplicate_of", *more)
    columns = pa.schema([schema("recordings", ()).field(name) for name in names])
    done = committed(pred)
    if not done:
        return columns.empty_table().to_pandas()
    with _readable():
        return scan(pred, "recordings", done, columns).to_table().to_pandas()


def ids_with_rows(pred: AnyPath) -> Iterator[str]:
    """Yield the `recording_id` of all recordings that have their row.

    Raises
    ------
    EmolibError
        If a part of them is damaged.
    """
    columns = pa.schema([schema("recordings", ()).field("recording_id")])
    if done := committed(pred):
        with _readable():
            for batch in scan(pred, "recordings", done, columns).to_batches():
                yield from batch["recording_id"].to_pylist()


def store_known(pred: AnyPath, place: Path) -> Path:
    """Write what `emolib.archive.planning` asks of all recordings that have their row to a file on this machine.

    Raises
    ------
    EmolibError
        If a part of them is damaged.
    """
    done, spool = committed(pred), Spool(place, KNOWN)
    with _readable():
        for batch in scan(pred, "recordings", done, KNOWN).to_batches() if done else ():
            spool.add(pa.table(batch))
    return spool.close()


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        is_parquets = not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)
        if is_the_stores(error) or not is_parquets:
            raise
        raise EmolibError(
            f"predictions that cannot be read found: {' '.join(str(error).split())}; `emolib verify` names such parts: "
            "put them back from a copy, or remove all parts of their block and run the job again"
        ) from error


def byte_rates(pred: AnyPath) -> dict[str, float]:
    """Return bytes per second of sound by suffix, as the newest closed runs found them."""
    sums: dict[str, Counter[str]] = {}
    for run in _to_learn_from(pred):
        for suffix, heard in run.summary().get("heard", {}).items():
            sums.setdefault(suffix, Counter()).update(heard)
    return {suffix: heard["bytes"] / heard["seconds"] for suffix, heard in sums.items()}


def speed(pred: AnyPath) -> float | None:
    """Return the seconds of sound that a core scores in a second, as the newest closed runs found; None: unknown."""
    found: list[float | None] = [run.summary().get("times_real_time") for run in _to_learn_from(pred)]
    measured = [each for each in found if each]
    return median(measured) if measured else None


def _to_learn_from(pred: AnyPath) -> list[Run]:
    return [run for run in reversed(runs(pred)) if not run.is_open][:_RUNS_TO_LEARN_FROM]


def _next_id(pred: AnyPath) -> str:
    """Return an id that sorts after all others, even if the last one is of this second, or the clock was set back."""
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    if others := [run_id for run_id, _ in _run_folders(pred)]:
        last = datetime.strptime(max(others).partition("-")[0], _STAMP)
        now = max(now, last + timedelta(seconds=1))
    return f"{now:{_STAMP}}-{secrets.token_hex(2)}"


def _is_run_id(name: str) -> bool:
    if not _RUN_ID.fullmatch(name):
        return False
    try:
        return datetime.strptime(name.partition("-")[0], _STAMP) < _END_OF_TIME
    except ValueError:  # there is no such day
        return False


def _run_folders(pred: AnyPath) -> list[tuple[str, bool]]:
    root = resolve(pred) / "_runs"
    if not root.exists():
        return []
    if not is_local(root):
        root.fs.invalidate_cache()
    folders = (folder for folder in sorted(root.iterdir()) if _is_run_id(folder.name) and folder.is_dir())
    return [(folder.name, (folder / "plan.json").exists()) for folder in folders]
