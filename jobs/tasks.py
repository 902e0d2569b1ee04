"""An archive that is to be scored: listed, with its settings checked. Before any work starts."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emolib.archive import ledger
from emolib.archive.blocks import load_bundle
from emolib.archive.calls import unread_date
from emolib.archive.forgetting import without_buried
from emolib.archive.listing import StoredListing, described, store
from emolib.archive.metadata import Sources
from emolib.archive.plan import Choice
from emolib.archive.planning import Ambiguous, Planner
from emolib.archive.promotion import successor
from emolib.archive.pseudonyms import Pseudonyms
from emolib.archive.run_settings import RunConfig, run_config, shadow_of
from emolib.archive.shadow import Shadow
from emolib.config import Limits, ScoringConfig, parse
from emolib.errors import SettingsError
from emolib.learning.bundle import ModelBundle
from emolib.sound.exclusion import Exclusion
from emolib.sound.manifest import NAMELESS, Recording, list_recordings
from emolib.storage import absolute
from jobs import spelling
from jobs.console import say, say_unreadable
from jobs.options import Options
from jobs.scratch import scratch
from jobs.specs import ClusterSpec, cluster_spec

# A block is at most so much audio (some seconds of work), and a short night is cut into several blocks per worker all
# the same, but not into such as take longer to plan, commit and report than to score.
_LARGEST_BLOCK_S, _SMALLEST_BLOCK_S, _BLOCKS_PER_WORKER = 4 * 3600.0, 600.0, 8
SCORING_MEMORY = 600 * 2**20
"""What a worker takes with its scorer, in bytes; sound streams, so that it is the same for every block."""


@dataclass(frozen=True)
class Task:
    """What is to be scored: a listed archive, the settings, and which of the recordings a run takes.

    Attributes
    ----------
    out
        The predictions.
    folder
        On this machine, for as long as the task is there.
    left_out
        How many entries of the archive were left out of the listing, by the reason.
    unreadable
        Why a folder of the archive could not be read, by its path there: what lies below is as unknown as before.
    ambiguous
        Recordings that are several files.
    erased
        How many recordings were listed that are to be forgotten; they are not in the listing.
    """

    out: str
    listing: StoredListing
    left_out: Mapping[str, int]
    unreadable: Mapping[str, str]
    ambiguous: Ambiguous
    erased: int
    folder: Path
    config: RunConfig
    where: ClusterSpec
    choice: Choice
    sources: Sources
    find_duplicates: bool
    pseudonyms: Pseudonyms | None

    def skipped(self) -> dict[str, int]:
        """Return how many recordings a run that would begin now would leave, by the reason."""
        return {"erased": self.erased, **self._planner().left(self.choice)}

    @property
    def recordings(self) -> int:
        """Number of recordings in the listing; several files may be one of them."""
        return self.listing.recordings - self.ambiguous.files + self.ambiguous.recordings

    def left(self) -> int:
        """Return how many listed recordings are to be scored, or tried again, by a later run."""
        all_due = Choice(keep_since=self.choice.keep_since, rescore=self.choice.rescore)
        return self._planner().taken(all_due).recordings

    def scored_otherwise(self) -> int:
        """Return how many recordings have rows that were scored by other settings, or by another model."""
        return self._planner().scored_otherwise(self.config.scoring_fingerprint)

    def unread_rows(self) -> dict[str, int]:
        """Return how many rows of the table of calls can't be read, as a summary has it; empty without a table."""
        return {} if self.sources.calls is None else {"table_rows_unread": self.sources.faults.rows}

    def newest_date(self, until: str) -> str:
        """Return the newest date of a listed recording that is not after a day (ISO); empty if there is none.

        Times of modification count only where nothing else is known: a wrong clock made those too.
        """
        newest = {True: "", False: ""}
        for batch in pq.ParquetFile(self.listing.place).iter_batches(columns=["date", "date_source"]):
            dates = batch["date"]
            known, past = pc.is_in(batch["date_source"], pa.array(["path", "sidecar"])), pc.less_equal(dates, until)
            for is_known, those in ((True, known), (False, pc.invert(known))):
                newest[is_known] = max(newest[is_known], pc.max(dates.filter(pc.and_(those, past))).as_py() or "")
        return newest[True] or newest[False]

    def listed(self) -> pd.DataFrame:
        """Return the whole listing, in memory, without files of which several are one recording."""
        columns = ["recording_id", "uri", "version", "size", "modified_s"]
        rows = pq.read_table(self.listing.place, columns=columns).to_pandas()
        return rows[~rows["recording_id"].duplicated(keep=False)]

    def plan(self) -> Iterator[pd.DataFrame]:
        """Yield the plan of a run that would begin now, some rows at a time; none of them is empty."""
        config = self.config
        planned = self._planner().plan(self.choice, block_s=config.block_s, max_recordings=config.max_recordings)
        for part in planned:
            rows = part.to_pandas()
            named = rows if self.pseudonyms is None else self.pseudonyms.planned(rows)
            # Listing takes long, and no lock is held for it: something may have been erased meanwhile.
            left = without_buried(self.out, without_buried(self.out, named), by="call_id")
            if len(left):
                yield left

    def _planner(self) -> Planner:
        return _planner(self.listing, self.out, self.folder)


def _planner(listing: StoredListing, out: str, folder: Path) -> Planner:
    """Return a planner that knows what has its row now."""
    known = ledger.store_known(out, folder / f"known-{secrets.token_hex(4)}.parquet")
    return Planner(listing.place, known, folder=folder)


@contextmanager
def prepared(
    archive: str, out: str, options: Options, choice: Choice | None = None, *, keep_days: int | None = None
) -> Iterator[Task]:
    """Check the options and the model, and list the archive; the listing is there until the block ends.

    Parameters
    ----------
    keep_days
        Of the retention; it is noted with the run.

    Raises
    ------
    SettingsError
        If something is wrong with the options, the model, the archive or the predictions that are there.
    GoldenCheckError
        If this machine does not reproduce the model's numbers.
    """
    where, sources = cluster_spec(options.cluster, workers=options.workers), options.sources()
    scoring, retry, exclude = options.scoring(), spelling.codes(options.retry), Exclusion(options.exclude)
    limits = parse(Limits, {"recording_s": options.recording_s, "recording_memory": options.recording_memory})
    pseudonyms = None if options.pseudonyms is None else Pseudonyms.load(options.pseudonyms)
    model, bundle = _model(options.model, out)
    config = run_config(  # all of it, before a listing that takes long
        bundle,
        model=model,
        archive=archive,
        scoring=scoring,
        batch=options.batch,
        block_s=options.block_s or _LARGEST_BLOCK_S,
        limits=limits,
        pattern=options.pattern,
        calls_table=None if options.calls_table is None else absolute(options.calls_table),
        exclude=[each if pseudonyms is None else pseudonyms.of(each, "exclude") for each in options.exclude],
        pseudonyms=None if pseudonyms is None else pseudonyms.key_id,
        shadow=_shadow(options, bundle, scoring),
        keep_days=keep_days,
    )
    ledger.check_out(out, config, rescore=options.rescore)
    with scratch() as folder:
        recordings = list_recordings(archive, exclude=exclude)
        listing, erased = _list(recordings, folder, out, sources, pseudonyms)
        passed_over = ", ".join(f"{count} {reason}" for reason, count in recordings.left_out.most_common())
        if not (listing.recordings or erased or recordings.unreadable):
            others = f" (left out: {passed_over})" if passed_over else ""
            raise SettingsError(f"no recordings found in {archive}{others}, expected audio files")
        again = config.scoring_fingerprint if options.rescore else None
        choice = replace(choice or Choice(), retry=retry, rescore=again)
        if options.block_s is None:
            total_s = _planner(listing, out, folder).waiting(choice).estimated_s
            size_s = _block_s(min(total_s, choice.limit_s), where.most_workers)
            config = config.model_copy(update={"block_s": size_s})
        for last in ledger.runs(out)[-1:]:
            if (last.config.pattern, last.config.calls_table) != (config.pattern, config.calls_table):
                say("another pattern, or table of calls, than the last run had: rows that are there stay as they are")
        if faults := sources.faults.rows:
            say(f"{faults} of {sources.faults.of} rows of the table of calls are left out, {sources.faults.first}")
        say(f"{listing.recordings} recordings listed; left out: {passed_over or 'nothing'}")
        say_unreadable(recordings.unreadable, keep_days)
        ambiguous = _planner(listing, out, folder).ambiguous()
        if ambiguous.recordings:
            say(
                f"{ambiguous.files} files are {ambiguous.recordings} recordings, for their names differ only in their "
                f"Unicode form ({' and '.join(map(ascii, ambiguous.first))}): they are not scored, and what one of "
                "them had before stays; rename or remove the others"
            )
        if nameless := recordings.left_out[NAMELESS]:
            say(f"{nameless} folders have no name (as in a//b): nothing below them is listed; rename their files")
        yield Task(
            out,
            listing,
            recordings.left_out,
            recordings.unreadable,
            ambiguous,
            erased,
            folder,
            config,
            where,
            choice,
            sources,
            options.find_duplicates,
            pseudonyms,
        )


def _list(
    recordings: Iterable[Recording], folder: Path, out: str, sources: Sources, pseudonyms: Pseudonyms | None
) -> tuple[StoredListing, int]:
    """Store a listing without what was erased; return how much that was, too."""
    known_sources = sources if sources.pattern is not None or sources.calls is not None else None
    listed = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal listed
        rates = ledger.byte_rates(out)
        for table in described(recordings, sources=known_sources, byte_rates=rates, pseudonyms=pseudonyms):
            listed += len(table)
            yield _without_buried(out, table, pseudonyms)

    stored = store(tables(), folder / "listing.parquet")
    return stored, listed - stored.recordings


def _without_buried(out: str, table: pa.Table, pseudonyms: Pseudonyms | None) -> pa.Table:
    names = table.select(["recording_id", "call_id"]).to_pandas()
    if pseudonyms is not None:
        own = names["call_id"] == names["recording_id"]
        names["call_id"] = names["call_id"].where(own, names["call_id"].map(pseudonyms.of))
    left = without_buried(out, without_buried(out, names), by="call_id")
    return table if len(left) == len(names) else table.take(pa.array(left.index))


def _model(path: str, out: str) -> tuple[str, ModelBundle]:
    """Load the model that was asked for, or the one that was promoted to its place; return where it lies, too."""
    bundle = ModelBundle.load(path)
    if (promoted := successor(out, bundle.model_id)) is not None:
        say(f"model {promoted.model_id} was promoted on {promoted.time}: it scores in place of {bundle.model_id}")
        try:
            return promoted.model, load_bundle(promoted.model, promoted.model_id)
        except SettingsError as error:
            raise SettingsError(
                f"model {promoted.model_id}, which was promoted in {out}, is not at {promoted.model}: put it back, or "
                "`emolib promote` it from where it lies"
            ) from error
    bundle.check_golden()
    return path, bundle


def _shadow(options: Options, bundle: ModelBundle, scoring: ScoringConfig) -> Shadow | None:
    """Look at the candidate, if there is one."""
    if options.shadow is None:
        return None
    candidate = ModelBundle.load(options.shadow)
    candidate.check_golden()
    if candidate.model_id == bundle.model_id:
        say(f"candidate {candidate.model_id} is the model itself: nobody listens in")
        return None
    return shadow_of(candidate, model=options.shadow, share=options.shadow_share, bundle=bundle, config=scoring)


def paths_of(planned: pd.DataFrame) -> pd.Series:
    """Return where planned recordings lie in the archive: a pseudonym is no path."""
    return planned["path"].where(planned["path"].notna(), planned["uri"])


class Gaps:
    """What is not known of the calls of planned recordings.

    Attributes
    ----------
    found
        ``dated_by_modification``: recordings of which neither path nor table has a date. With a pattern
        ``pattern_unmatched``, recordings of which it says nothing; with a table ``table_unknown``, those that are not
        in it.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources, self._recordings = sources, 0
        self.found: Counter[str] = Counter({"dated_by_modification": 0, **sources.gaps([])})
        self._unread_date = self._unread = ""
        self._forms: tuple[str, str] | None = None

    def counted(self, planned: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Pass a plan on, and count."""
        for rows in planned:
            paths = paths_of(rows)
            undated = paths[~rows["date_source"].isin(["path", "sidecar"])]
            gaps = {"dated_by_modification": len(undated), **self._sources.gaps(paths.tolist())}
            self.found.update(gaps)
            if not self._unread_date:
                self._unread_date = next(filter(None, map(unread_date, undated)), "")
            if gaps.get("pattern_unmatched") and not self._unread:
                self._unread = next(filter(None, map(self._sources.unread, paths)), "")
            self._forms = self._forms or self._sources.forms(paths.iloc[0])
            self._recordings += len(rows)
            yield rows

    def say(self) -> None:
        """Say what was counted."""
        for gap, count in self.found.items():
            if count:
                say(f"{count} of {self._recordings} recordings: {self._meaning(gap, count)}")

    def _meaning(self, gap: str, count: int) -> str:
        if gap == "pattern_unmatched":
            found = f", or what it finds can't be read, such as {self._unread}" if self._unread else ""
            return f"the pattern is not found in their paths{found}"
        if gap == "table_unknown":
            forms = ""
            if count == self._recordings and self._forms is not None:
                forms = ": it is asked for ids of the form {!r}, and has such as {!r}".format(*self._forms)
            return f"the table knows no such call{forms}"
        found = f", {self._unread_date!r} found" if self._unread_date else ""
        return (
            f"no date is read in their paths{found}, expected such as 2026-11-25, 20261125, 2026.11.25 or "
            "20261125080000: the day of modification counts; a --calls-table may tell the date"
        )


def _block_s(total_s: float, workers: int) -> float:
    return min(_LARGEST_BLOCK_S, max(_SMALLEST_BLOCK_S, total_s / (_BLOCKS_PER_WORKER * workers)))
