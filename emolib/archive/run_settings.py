"""The settings of a run: what its workers must know, and what says whether its rows may stand beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emolib.archive.aggregates import labels_of, mistakes, window_config
from emolib.archive.schemas import SCHEMA_VERSION
from emolib.archive.shadow import Shadow
from emolib.config import DECODING_VERSION, Limits, Role, ScoringConfig, Settings, differences, fingerprint, parse
from emolib.errors import SettingsError
from emolib.features.windows import window_shape
from emolib.sound.speech import VERSION
from emolib.storage import AnyPath, absolute

if TYPE_CHECKING:
    from emolib.learning.bundle import ModelBundle


_OF_A_MODEL = {"model_id", "abstention_threshold"}


class RunConfig(Settings):
    """Everything that a worker needs to know of a run, and that says whether its rows may stand beside others.

    Parameters
    ----------
    model, archive
        Absolute paths, or URLs.
    scoring_settings
        What `scoring_fingerprint` is the fingerprint of, see `scoring_settings`.
    classes
        The public classes, in the order of the columns.
    priors
        Share of each class that its probabilities take for granted: the model's own, or those they are corrected for.
    mistakes
        How often the model, so set, gives a label to windows of a class, by validation speaker: ``[speaker][class]
        [label]``, the last label: none. For estimates of how frequent the classes are (see `emolib.archive.mixture`).
    batch
        Windows that the model sees at once; changes no number.
    limits
        Of what a recording may cost.
    pattern, calls_table
        Where the metadata of its plan came from; it stands there, so that neither is asked again.
    exclude
        Patterns of what was left out of the archive when it was listed, or their pseudonyms.
    pseudonyms
        Tells with which key pseudonyms were given; None: there are none.
    shadow
        A candidate that listens in; None: there is none. It changes no row of the tables.
    keep_days
        Of the retention that was asked for; None: there was none.
    """

    schema_version: int = SCHEMA_VERSION
    archive: str
    model: str
    model_id: str
    scoring: ScoringConfig
    scoring_settings: dict[str, Any]
    scoring_fingerprint: str
    classes: tuple[str, ...]
    priors: tuple[float, ...]
    mistakes: tuple[tuple[tuple[int, ...], ...], ...]
    batch: int
    block_s: float
    max_recordings: int
    limits: Limits = Limits()
    pattern: str | None = None
    calls_table: str | None = None
    exclude: tuple[str, ...] = ()
    pseudonyms: str | None = None
    shadow: Shadow | None = None
    keep_days: int | None = None


def scoring_settings(bundle: ModelBundle, config: ScoringConfig) -> dict[str, Any]:
    """Return all settings that change the numbers of a row, in a form that does not depend on how they were said."""
    roles, labels, known_audio = config.scored_roles, labels_of(bundle, config), config.known_audio
    # Only where there is some: rows from before there was known audio may stand beside those without.
    known = {} if known_audio is None else {"known_audio": known_audio.known_audio_id}
    return known | {
        "model_id": bundle.model_id,
        "labels": bundle.scheme.name,
        "classes": list(labels.classes),
        "abstention_threshold": bundle.abstention_threshold,
        "features": bundle.profile.fingerprinted()["features"],
        "windows": window_config(bundle, config).model_dump(mode="json"),
        **decoding_versions(),
        "min_level_dbfs": config.min_level_dbfs,
        "min_speech_s": config.min_speech_s,
        "channels": _roles(config.channels),
        # Only where they are said, so that predictions from before there were any may be continued.
        **{
            f"channels_{direction}": _roles(config.channels_by_direction[direction])
            for direction in sorted(config.channels_by_direction)
        },
        "roles": None if roles is None else sorted(roles),
        "max_gap_s": config.max_gap_s,
        "headerless": {suffix: config.headerless[suffix].model_dump() for suffix in sorted(config.headerless)},
        "priors": None if labels.wanted is None else _spelt(labels.classes, labels.wanted),
    }


def decoding_versions() -> dict[str, int]:
    """Return which samples, and what speech in them, this emolib finds: rows that others found are not continued."""
    return {"decoding_version": DECODING_VERSION, "speech": VERSION}


def _roles(channels: Mapping[int, Role]) -> dict[str, Role]:
    return {str(channel): channels[channel] for channel in sorted(channels)}


def _spelt(classes: Sequence[str], shares: Sequence[float]) -> str:
    return ",".join(f"{name}={share!r}" for name, share in zip(classes, shares, strict=True))


def scoring_fingerprint(bundle: ModelBundle, config: ScoringConfig) -> str:
    """Return the fingerprint of `scoring_settings`: rows that share it may stand in one table."""
    return fingerprint(scoring_settings(bundle, config))


def run_config(
    bundle: ModelBundle,
    *,
    model: AnyPath,
    archive: AnyPath,
    scoring: ScoringConfig,
    batch: int = 64,
    block_s: float = 3600.0,
    max_recordings: int = 1000,
    limits: Limits | None = None,
    pattern: str | None = None,
    calls_table: str | None = None,
    exclude: Sequence[str] = (),
    pseudonyms: str | None = None,
    shadow: Shadow | None = None,
    keep_days: int | None = None,
) -> RunConfig:
    """Return the settings of a run that scores an archive with a model.

    Parameters
    ----------
    model
        The folder that the bundle was loaded from.
    shadow
        See `shadow_of`.

    Raises
    ------
    SettingsError
        If the settings contradict each other or the model.
    """
    if scoring.roles and scoring.scored_roles is None:
        raise SettingsError(
            f"roles {', '.join(scoring.roles)} to score found without the channels that have them; give the channels "
            "too, such as 0=agent,1=customer"
        )
    window_shape(bundle.profile.features, window_config(bundle, scoring))
    settings, labels = scoring_settings(bundle, scoring), labels_of(bundle, scoring)
    return RunConfig(
        archive=absolute(archive),
        model=absolute(model),
        model_id=bundle.model_id,
        scoring=scoring,
        scoring_settings=settings,
        scoring_fingerprint=fingerprint(settings),
        classes=labels.classes,
        priors=labels.wanted or labels.trained,
        mistakes=mistakes(bundle, scoring).tolist(),
        batch=batch,
        block_s=block_s,
        max_recordings=max_recordings,
        limits=limits or Limits(),
        pattern=pattern,
        calls_table=calls_table,
        exclude=tuple(exclude),
        pseudonyms=pseudonyms,
        shadow=shadow,
        keep_days=keep_days,
    )


def shadow_of(
    candidate: ModelBundle, *, model: AnyPath, share: float, bundle: ModelBundle, config: ScoringConfig
) -> Shadow:
    """Return what a run has to know of a candidate that listens in on some of its calls.

    Parameters
    ----------
    candidate, model
        The candidate, and the folder that it was loaded from.
    share
        Of the calls, above 0 and at most 1.
    bundle, config
        The model that labels them, and how.

    Raises
    ------
    SettingsError
        If the two can't be compared: they hear other features or windows, or have other classes.
    """
    ours, theirs = scoring_settings(bundle, config), scoring_settings(candidate, config)
    if differs := differences(shared_settings(ours), shared_settings(theirs)):
        raise SettingsError(
            f"candidate {candidate.model_id} can't listen in on what model {bundle.model_id} scores: {differs}; score "
            "with it to an --out of its own"
        )
    return parse(
        Shadow,
        {
            "model": absolute(model),
            "model_id": candidate.model_id,
            "scoring_fingerprint": fingerprint(theirs),
            "share": share,
        },
    )


def shared_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scoring settings that are not the model's alone: what a candidate must have as the model has it."""
    return {name: value for name, value in settings.items() if name not in _OF_A_MODEL}
