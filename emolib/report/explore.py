"""The article's pictures, of one recording or of a feature store: a page, a file for each picture, and the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emolib import figures
from emolib.config import HeaderlessFormat, Profile
from emolib.corpora import labels
from emolib.errors import AudioError, Code, SettingsError
from emolib.features.cepstra import mfcc
from emolib.features.store import FeatureStore
from emolib.figures import sound as sound_figures
from emolib.learning.batches import usable_rows
from emolib.learning.clusters import cluster, functionals
from emolib.report.pages import render
from emolib.sound import audio, spectra
from emolib.storage import AnyPath, new_folder, resolve, write_bytes, write_json

if TYPE_CHECKING:
    import pandas as pd

_LEAST_S = 0.1  # two frames of everything that is drawn
_SPAN_DB = 80.0
_QUIETEST_DB = -40.0  # the floor of `decibels` then has the darkest colour
_BRIGHT = 0.99


class _Table(NamedTuple):
    columns: list[str]
    rows: list[list[str]]


class _Picture(NamedTuple):
    """A picture with its place; `name` is that of its file, and the figure one of `emolib.figures`."""

    name: str
    title: str
    note: str
    figure: Any
    tables: tuple[_Table, ...] = ()


class _Excerpt(NamedTuple):
    info: audio.AudioInfo
    signal: NDArray[np.float32]  # one channel
    sampling_rate: int
    ended: bool  # whether the recording was decoded to its end
    note: str  # what is wrong with the recording, if that is known and anything is


def explore_recording(
    source: AnyPath,
    out: AnyPath,
    *,
    profile: Profile,
    channel: int = 0,
    start_s: float = 0.0,
    duration_s: float = 30.0,
    headerless: Mapping[str, HeaderlessFormat] | None = None,
) -> dict[str, Any]:
    """Draw a recording, or an excerpt of it: waveform, spectrograms, spectrum, envelope with its formants, MFCCs.

    Memory holds the excerpt, however long the recording is.

    Parameters
    ----------
    source
        A path or an fsspec URL.
    out
        A new folder for ``index.html``, the pictures and ``summary.json``.
    profile
        The front end of the MFCCs; everything else is drawn at the recording's own rate.
    channel
        The one to draw, from 0. Channels are never mixed: in a call they are two people.
    start_s, duration_s
        The excerpt.
    headerless
        See `emolib.sound.audio.stream`.

    Returns
    -------
    dict
        What stands in ``summary.json``.

    Raises
    ------
    SettingsError
        If the folder is not empty, or there is no such channel or moment in the recording.
    AudioError
        If the recording can't be decoded, or there is less than 0.1 s of sound.
    """
    folder = new_folder(out)
    excerpt = partial(_excerpt, source, channel=channel, start_s=start_s, duration_s=duration_s, headerless=headerless)
    taken = excerpt(sampling_rate=None)
    drawn_s = taken.signal.size / taken.sampling_rate
    features = profile.features
    coefficients = mfcc(excerpt(sampling_rate=features.sampling_rate).signal, config=features)
    middle = 0 if features.center else features.n_fft / 2
    frames_s = start_s + (np.arange(len(coefficients)) * features.hop_length + middle) / features.sampling_rate
    peak, rms = (float(spectra.decibels(level)) for level in _levels(taken.signal))
    moment = spectra.envelope(taken.signal, sampling_rate=taken.sampling_rate)
    summary = {
        "source": str(source),
        "codec": taken.info.codec,
        "sampling_rate": taken.sampling_rate,
        "channels": taken.info.channels,
        "recording_s": taken.info.duration_s,
        "note": taken.note,
        "channel": channel,
        "start_s": start_s,
        "duration_s": round(drawn_s, 3),
        "peak_dbfs": round(peak, 1),
        "rms_dbfs": round(rms, 1),
        "moment_s": round(start_s + moment.time_s, 3),
        "pitch_hz": None if moment.pitch_hz is None else round(moment.pitch_hz, 1),
        "formants_hz": [round(formant.frequency_hz) for formant in moment.formants],
        "formants": [{name: round(value, 1) for name, value in each._asdict().items()} for each in moment.formants],
        "profile": profile.name,
        "mfcc_frames": len(coefficients),
    }
    pictures = [*_of_sound(taken, start_s, moment), _of_cepstra(frames_s, coefficients, profile)]
    whole_s = taken.info.duration_s
    if whole_s is None:
        part = "the whole recording" if taken.ended and not start_s else f"from {start_s:g} s on"
    else:
        part = f"from {start_s:g} s on, of {whole_s:,.1f} s" if whole_s - drawn_s > 0.01 else "the whole recording"
    notes = [
        f"{taken.info.codec}, {taken.sampling_rate:,} Hz",
        f"channel {channel} of {taken.info.channels} (counted from 0)" if taken.info.channels > 1 else "one channel",
        part,
    ]
    numbers = [
        (f"{drawn_s:.2f} s", "drawn"),
        (f"{peak:.1f} dBFS", "peak"),
        (f"{rms:.1f} dBFS", "RMS"),
        ("none" if moment.pitch_hz is None else f"{moment.pitch_hz:.0f} Hz", "pitch, at a loud moment"),
    ]
    _write(folder, resolve(source).name, [*notes, *filter(None, [taken.note])], numbers, pictures, summary)
    return summary


def explore_store(path: AnyPath, out: AnyPath, *, task: str, seed: int = 0) -> dict[str, Any]:
    """Draw a feature store: class counts, durations, and how far clusters of its utterances are its classes.

    Memory holds a shard and some numbers of each utterance.

    Parameters
    ----------
    path
        A complete store.
    out
        A new folder for ``index.html``, the pictures and ``summary.json``.
    task
        One of `emolib.corpora.labels.TASKS`: what the classes are.
    seed
        Decides where k-means begins.

    Returns
    -------
    dict
        What stands in ``summary.json``.

    Raises
    ------
    SettingsError
        If the folder is not empty, there is no complete store, or it has too few utterances with a class.
    """
    folder = new_folder(out)
    store = FeatureStore.open(path)
    windows = store.windows
    scheme = labels.scheme(task, windows)
    numbers = labels.label(windows, scheme)
    rows = np.flatnonzero(usable_rows(store) & (numbers >= 0))
    utterances, described = functionals(store, windows, rows)
    durations_s = _durations(windows.iloc[rows], utterances)
    present, own = np.unique(labels.label(utterances, scheme), return_inverse=True)
    classes = [scheme.classes[number] for number in present]
    found = cluster(described, own, classes=classes, seed=seed)
    corpora = sorted(utterances["corpus"].unique())
    per_class = np.array(
        [[np.sum((own == n) & (utterances["corpus"] == c)) for c in corpora] for n in range(len(classes))]
    )
    whole = windows.drop_duplicates(["utterance_id", "variant"])
    summary = {
        "store": str(path),
        "profile": store.profile.name,
        "fingerprint": store.fingerprint,
        "task": task,
        "seed": seed,
        "utterances": len(utterances),
        "left_out": len(whole) - len(utterances),
        "classes": dict(zip(classes, per_class.sum(axis=1).tolist(), strict=True)),
        "corpora": dict(zip(corpora, per_class.sum(axis=0).tolist(), strict=True)),
        "hours": round(float(durations_s.sum()) / 3600, 4),
        "duration_s": {
            name: round(float(function(durations_s)), 3)
            for name, function in (("least", np.min), ("median", np.median), ("mean", np.mean), ("most", np.max))
        },
        "adjusted_rand_index": round(found.rand_index, 4),
        "explained_variance": [round(float(share), 4) for share in found.explained],
        "cluster_table": found.table.tolist(),
    }
    axes = [f"principal component {number + 1} ({share:.0%})" for number, share in enumerate(found.explained)]
    clusters = [f"cluster {number + 1}" for number in range(len(classes))]
    index = f"adjusted Rand index {found.rand_index:.3f}"
    pictures = [
        _Picture(
            "classes",
            "Classes",
            "Utterances of each class.",
            figures.counts(classes, corpora, per_class, label="utterances"),
        ),
        _Picture(
            "durations",
            "Durations",
            "Sound of each utterance as far as its windows in the store reach.",
            figures.histogram(
                durations_s, label="duration (s)", span=(0.0, float(durations_s.max())), counted="utterances"
            ),
        ),
        _Picture(
            "pca_classes",
            "Utterances by class",
            "Mean and deviation of each coefficient, standardised, on their first two principal components.",
            figures.scatter(found.components, own, classes, labels=axes),
        ),
        _Picture(
            "pca_clusters",
            "Utterances by cluster",
            f"The same points by k-means with {len(classes)} clusters (seed {seed}).",
            figures.scatter(found.components, found.cluster, clusters, labels=axes),
        ),
        _Picture(
            "cluster_table",
            "Clusters and classes",
            f"How each cluster divides among the classes; {index}: 1 where clusters are the classes, 0 where they have "
            "nothing to do with each other.",
            figures.cluster_table(found.table, classes),
        ),
    ]
    notes = [f"feature store, profile {store.profile.name}", f"task {task}"]
    shown = [
        (f"{len(utterances):,}", "utterances with a class"),
        (f"{summary['left_out']:,}", "without one, or without sound"),
        (f"{summary['hours']:.2f} h", "of sound"),
        (f"{found.rand_index:.3f}", "adjusted Rand index"),
    ]
    _write(folder, resolve(path).name, notes, shown, pictures, summary)
    return summary


def _excerpt(
    source: AnyPath,
    *,
    sampling_rate: int | None,
    channel: int,
    start_s: float,
    duration_s: float,
    headerless: Mapping[str, HeaderlessFormat] | None,
) -> _Excerpt:
    """Decode one channel of a part of a recording, and nothing behind it."""
    with audio.stream(source, sampling_rate=sampling_rate, headerless=headerless) as sound:
        if channel >= sound.info.channels:
            raise SettingsError(f"channel {channel} found, expected 0 to {sound.info.channels - 1}, which {source} has")
        first, place, ended, note = round(start_s * sound.sampling_rate), 0, False, ""
        last = first + round(duration_s * sound.sampling_rate)
        parts = []
        for block in sound:
            # A copy: a view, even an empty one, would keep its whole block.
            parts.append(block[channel, max(0, first - place) : max(0, last - place)].copy())
            place += block.shape[1]
            if place >= last:
                break
        else:
            ended = True
            note = sound.message if sound.code is Code.OK else f"{sound.code}: {sound.message}"
        signal = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        rate = sound.sampling_rate
    if start_s and not signal.size:
        raise SettingsError(f"a start at {start_s:g} s found, expected one within the {place / rate:.1f} s of {source}")
    if signal.size < _LEAST_S * rate:
        raise AudioError(Code.TOO_SHORT, f"{signal.size / rate:.3f} s of sound found, expected at least {_LEAST_S} s")
    return _Excerpt(sound.info, signal, rate, ended, note)


def _levels(signal: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return peak and RMS."""
    wide = signal.astype(np.float64)
    return np.array([np.abs(wide).max(), np.sqrt(np.mean(wide**2))])


def _of_sound(taken: _Excerpt, start_s: float, moment: spectra.Envelope) -> Iterable[_Picture]:
    rate = taken.sampling_rate
    yield _Picture(
        "waveform",
        "Waveform",
        "The samples over time.",
        sound_figures.waveform(taken.signal, sampling_rate=rate, start_s=start_s),
    )
    frequencies_hz, times_s, amplitude = spectra.spectrogram(taken.signal, sampling_rate=rate)
    # Of a linear scale up to the loudest bin, speech would leave most black.
    bright = max(float(np.quantile(amplitude, _BRIGHT)), 1e-6)
    yield _Picture(
        "spectrogram_linear",
        "Linear spectrogram",
        "Amplitude over linear frequency, in Hann frames of 32 ms; the loudest hundredth has the brightest colour.",
        sound_figures.spectrogram(start_s + times_s, frequencies_hz, amplitude, label="amplitude", span=(0.0, bright)),
    )
    loudest_db = max(float(spectra.decibels(amplitude.max())), _QUIETEST_DB)
    yield _Picture(
        "spectrogram_log",
        "Log-frequency spectrogram",
        "The same in decibels over logarithmic frequency: nearer to what is heard.",
        sound_figures.spectrogram(
            start_s + times_s,
            frequencies_hz,
            spectra.decibels(amplitude),
            label="level (dBFS)",
            span=(loudest_db - _SPAN_DB, loudest_db),
            log=True,
        ),
    )
    yield _Picture(
        "spectrum",
        "Spectrum",
        "Mean over the whole time, by Welch's method; 0 dBFS is a sine at full scale.",
        sound_figures.spectrum(*spectra.spectrum(taken.signal, sampling_rate=rate)),
    )
    when = f"40 ms around {start_s + moment.time_s:.2f} s"
    note = (
        f"A loud voiced moment of low pitch ({moment.pitch_hz:.0f} Hz), {when}, with a pre-emphasis of 6 dB an octave, "
        "smoothed by its cepstrum. The peaks of the envelope are its formants; above 250 Hz of pitch they are guesses."
        if moment.pitch_hz is not None
        else f"No voiced moment was found, so there are no formants; this is the loudest one, {when}."
    )
    rows = [
        [f"F{number}", f"{each.frequency_hz:.0f}", f"{each.bandwidth_hz:.0f}", f"{each.level_db:.1f}"]
        for number, each in enumerate(moment.formants, start=1)
    ]
    columns = ["Formant", "Frequency (Hz)", "Bandwidth as smoothed (Hz)", "Level (dB)"]
    yield _Picture(
        "envelope",
        "Spectral envelope and formants",
        note,
        sound_figures.envelope(
            moment.frequencies_hz,
            moment.spectrum_db,
            moment.envelope_db,
            [(each.frequency_hz, each.level_db) for each in moment.formants],
        ),
        (_Table(columns, rows),) if rows else (),
    )


def _of_cepstra(times_s: NDArray[np.float64], coefficients: NDArray[np.float32], profile: Profile) -> _Picture:
    return _Picture(
        "mfcc",
        "MFCCs",
        f"What a model of the profile {profile.name} sees: {profile.features.n_mfcc} coefficients at "
        f"{profile.features.sampling_rate:,} Hz. The first is the level, the others are the shape of the spectrum.",
        sound_figures.cepstra(times_s, coefficients),
    )


def _durations(rows: pd.DataFrame, utterances: pd.DataFrame) -> NDArray[np.float64]:
    """Return from the start of the first to the end of the last window of each utterance, in their order."""
    key = ["utterance_id", "variant"]
    spans = rows.groupby(key, sort=False).agg(start_s=("start_s", "min"), end_s=("end_s", "max"))
    assert spans.index.equals(utterances.set_index(key).index)
    return np.asarray(spans["end_s"] - spans["start_s"], np.float64)


def _write(
    folder: AnyPath,
    name: str,
    notes: list[str],
    numbers: list[tuple[str, str]],
    pictures: list[_Picture],
    summary: Mapping[str, Any],
) -> None:
    place = resolve(folder)
    shown = []
    for picture in pictures:
        svg = figures.to_svg(picture.figure)
        write_bytes(place / f"{picture.name}.svg", svg.encode())
        shown.append({"title": picture.title, "note": picture.note, "svg": svg, "tables": picture.tables})
    write_json(place / "summary.json", summary)
    page = render("explore.html.j2", {"name": name, "notes": notes, "numbers": numbers, "pictures": shown})
    write_bytes(place / "index.html", page.encode())
