"""How an archive is scored, and where: what `score` and `nightly` may be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter, validators
from cyclopts.types import NonNegativeInt

from emolib.archive.metadata import Sources, calls_table, pattern_of
from emolib.config import ScoringConfig, parse, parse_headerless
from emolib.sound.known_audio import KnownAudio
from emolib.storage import absolute
from jobs import spelling
from jobs.bounds import PositiveNumber, between
from jobs.cluster import ClusterOption, WorkersOption
from jobs.console import FailureBudget


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """How an archive is scored, and where.

    Parameters
    ----------
    model
        The model bundle.
    channels
        Which party is on which channel, such as 0=agent,1=customer. Where that depends on the direction of a call it is
        given several times: inbound:0=customer,1=agent and outbound:0=agent,1=customer.
    roles
        The roles to score, such as customer,agent. Once channels are named only customers are scored: inferring the
        emotions of employees at work is prohibited in the EU (AI Act, Article 5(1)(f)).
    hop_s
        Distance between windows in seconds; the model's own if not given.
    min_level_dbfs
        What lies below this level is silence.
    min_speech_s
        Windows with fewer seconds of speech get no label.
    expose_gender
        Keep the gender in the labels of a model that tells it (emotion2).
    priors
        How frequent each emotion is in the archive, such as negative=0.1,neutral=0.8,positive=0.1: the probabilities
        are corrected for it. `emolib report` estimates it from predictions that were made without. A threshold that
        `train --precision` found holds for uncorrected ones.
    known_audio
        Hold music and announcements that get no label: a file that `emolib known-audio` made.
    headerless
        What files without a header hold, by suffix, such as .ulaw=ulaw,.g722=g722,.raw=s16le:16000:2 (encoding, rate in
        Hz, channels). Encodings: ulaw, alaw, gsm, s16le, s16be, u8, vox, g722, g726, g726le, g729.
    max_gap_s
        Gaps in the time stamps of a recording are silence, unless they are longer than so many seconds.
    pattern
        What the paths of recordings say of their calls: a regular expression with named groups, such as
        `(?P<site>[a-z]+)/(?P<call_id>[0-9]+)_(?P<direction>in|out)`. Names: call_id, date (year, month, day), direction
        (inbound or in, outbound or out), agent, queue, site; any other goes to the column extra. A name that is one
        letter away from one of these is refused.
    calls_table
        A table of calls, CSV or Parquet, a path or URL, with a column call_id and columns of those names, in any case
        and with spaces or hyphens; any other goes to extra, also `extra.dates`, which would be taken for a slip as
        `dates`. What a path says goes before. A call is looked for by the id in the path, else by the name of the file
        without suffix. Recordings of which neither knows anything are planned as without them. Rows that can't be read
        are left out, counted and said.
    exclude
        Files and folders to leave out, with all that lies in them: a pattern of names (`test`, `*.bak`), or with a
        slash of paths relative to the archive (`2023/*`, `**/old/*.wav`; `**` stands for any number of folders); may be
        given several times. Recordings that have rows already keep them. Recycle bins, snapshots, sidecars, hidden
        files and uploads under way are left out by themselves.
    find_duplicates
        Read every new file before anything is scored, and do not score those that have the same bytes as another one.
    pseudonyms
        A file with a secret key: the tables hold keyed hashes in place of paths, call_id and agent, and no `extra`.
    shadow
        A candidate, another model bundle for the same features and classes: it listens in on some calls, and its rows,
        which count for nothing, lie under _shadow. `emolib promote` compares it with the model, and lets it take over.
    shadow_share
        Share of the calls that it listens in on.
    block_s
        Seconds of audio of one task; chosen by the size of the archive if not given.
    batch
        Windows that the model sees at once; changes no number.
    recording_s
        Seconds that a recording may take, or a tenth of its duration where that is more; then it is given up as
        `timeout`. Recordings take far less.
    recording_memory
        Memory that scoring a recording may take; one that takes more is `killed`.
    retry
        Codes to try once more, such as killed,corrupt, however often they were tried. Without it recordings are scored
        again if their file changed, and up to three times if they were unreadable, missing, changed or timed out.
    rescore
        Score again what was scored with other settings of the same model, or by the model before the one that was
        promoted. `nightly` takes as much of it as its limits leave.
    failure_budget
        Share of recordings that may fail before the exit code is 1.
    failure_count
        So many may fail whatever share that is: of few recordings, as of a night on which little is new, a few that
        are tried again are many.
    """

    model: str
    channels: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    roles: str | None = None
    hop_s: float | None = None
    min_level_dbfs: float = -60.0
    min_speech_s: float = 0.4
    expose_gender: Annotated[bool, Parameter(negative=())] = False
    priors: str | None = None
    known_audio: str | None = None
    headerless: str | None = None
    max_gap_s: Annotated[float, Parameter(alias="--max-gap")] = 3600.0
    pattern: str | None = None
    calls_table: str | None = None
    exclude: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    find_duplicates: Annotated[bool, Parameter(negative=())] = False
    pseudonyms: str | None = None
    shadow: str | None = None
    shadow_share: Annotated[float, Parameter(validator=validators.Number(gt=0, lte=1))] = 0.1
    block_s: PositiveNumber = None
    batch: Annotated[int, between(1, 65_536)] = 64
    recording_s: float = 300.0
    recording_memory: str = "2GiB"
    retry: str | None = None
    rescore: Annotated[bool, Parameter(negative=())] = False
    failure_budget: FailureBudget = 0.05
    failure_count: NonNegativeInt = 0
    cluster: ClusterOption = None
    workers: WorkersOption = None

    def scoring(self) -> ScoringConfig:
        """Return what of it changes the rows.

        Raises
        ------
        SettingsError
            If an option is spelt otherwise or not valid, or the known audio can't be read.
        """
        channels = spelling.channels(self.channels)
        return parse(
            ScoringConfig,
            {
                "hop_s": self.hop_s,
                "channels": channels.pop("", {}),
                "channels_by_direction": channels,
                "roles": tuple(self.roles.split(",")) if self.roles else (),
                "min_level_dbfs": self.min_level_dbfs,
                "min_speech_s": self.min_speech_s,
                "expose_gender": self.expose_gender,
                "max_gap_s": self.max_gap_s,
                "headerless": parse_headerless(self.headerless) if self.headerless else {},
                "priors": spelling.priors(self.priors),
                "known_audio": _known_audio(self.known_audio),
            },
        )

    def sources(self) -> Sources:
        """Return what is said of calls beside their sound.

        Raises
        ------
        SettingsError
            If the pattern or the table is none, or says nothing of calls.
        """
        pattern = None if self.pattern is None else pattern_of(self.pattern)
        if self.calls_table is None:
            return Sources(pattern)
        calls = calls_table(self.calls_table)
        return Sources(pattern, calls, calls.faults)


def _known_audio(path: str | None) -> dict[str, str] | None:
    """Name the file, and what it holds."""
    if path is None:
        return None
    return {"path": absolute(path), "known_audio_id": KnownAudio.load(path).known_audio_id}
