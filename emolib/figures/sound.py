"""The pictures of sound: waveform, spectra, envelope and cepstra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emolib.figures import INK, NEGATIVE, NEUTRAL, POSITIVE, plain

_COLUMNS = 1200  # of a waveform: a line through every sample would be megabytes of SVG
_BESIDE_HZ = 150.0  # of a peak: the spectrum there must not cross the peak's name


def waveform(signal: NDArray[np.float32], *, sampling_rate: int, start_s: float = 0.0) -> Figure:
    """Draw the samples of one channel over time.

    Parameters
    ----------
    signal
        Shape ``(sample,)``.
    start_s
        Time of the first sample.

    Examples
    --------
    >>> [float(edge) for edge in waveform(np.zeros(8000, np.float32), sampling_rate=8000).axes[0].get_xlim()]
    [0.0, 1.0]
    """
    figure = Figure(figsize=(9.0, 2.2), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, signal.size, min(_COLUMNS, signal.size) + 1).astype(np.int64)[:-1]
    least, most = np.minimum.reduceat(signal, edges), np.maximum.reduceat(signal, edges)
    axes.fill_between(start_s + edges / sampling_rate, least, most, color=POSITIVE, lw=0.6)
    axes.set_xlim(start_s, start_s + signal.size / sampling_rate)
    reach = max(float(np.abs(signal).max()) * 1.05, 1e-3)
    axes.set_ylim(-reach, reach)
    axes.set_xlabel("time (s)")
    axes.set_ylabel("sample\n(full scale = 1)")
    plain(axes)
    return figure


def spectrogram(
    times_s: NDArray[Any],
    frequencies_hz: NDArray[Any],
    values: NDArray[Any],
    *,
    label: str,
    span: tuple[float, float],
    log: bool = False,
) -> Figure:
    """Draw values over time and frequency.

    Parameters
    ----------
    values
        Shape ``(frequency, time)``.
    label
        What the values are, with their unit.
    span
        The values at both ends of the colours; those beyond have the colour of the end.
    log
        Draw frequencies on a logarithmic axis, from 50 Hz on.

    Examples
    --------
    >>> figure = spectrogram(np.arange(3), np.arange(2), np.zeros((2, 3)), label="level (dB)", span=(-80, 0))
    >>> figure.axes[0].get_ylabel(), figure.axes[1].get_ylabel()
    ('frequency (kHz)', 'level (dB)')
    """
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    axes = figure.subplots()
    image = axes.pcolormesh(
        times_s,
        frequencies_hz / 1000,
        values,
        cmap="magma",
        vmin=span[0],
        vmax=span[1],
        shading="nearest",
        rasterized=True,
    )
    if log:
        axes.set_yscale("log")
        axes.set_ylim(0.05, frequencies_hz[-1] / 1000)
        ticks = [tick for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if tick <= frequencies_hz[-1] / 1000]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.set_xlabel("time (s)")
    axes.set_ylabel("frequency (kHz)")
    plain(axes)
    beyond = "max" if values.max() > span[1] else "neither"
    figure.colorbar(image, ax=axes, label=label, pad=0.01, extend=beyond).outline.set_visible(False)
    return figure


def spectrum(frequencies_hz: NDArray[Any], levels_db: NDArray[Any]) -> Figure:
    """Draw a spectrum, shapes ``(frequency,)``.

    Examples
    --------
    >>> len(spectrum(np.arange(3), np.zeros(3)).axes[0].lines)
    1
    """
    figure = Figure(figsize=(9.0, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(frequencies_hz / 1000, levels_db, color=POSITIVE, lw=1)
    axes.set_xlim(0, frequencies_hz[-1] / 1000)
    axes.set_ylim(max(levels_db.min(), levels_db.max() - 90) - 3, levels_db.max() + 3)
    axes.set_xlabel("frequency (kHz)")
    axes.set_ylabel("level (dBFS)")
    axes.grid(axis="y", color="#eeeeee")
    plain(axes)
    return figure


def envelope(
    frequencies_hz: NDArray[Any],
    spectrum_db: NDArray[Any],
    envelope_db: NDArray[Any],
    peaks: Sequence[tuple[float, float]],
) -> Figure:
    r"""Draw the spectrum of a moment, its envelope, and the peaks of that with their frequencies.

    Parameters
    ----------
    frequencies_hz, spectrum_db, envelope_db
        Shape ``(frequency,)``.
    peaks
        Frequency in Hz and level in dB of each.

    Examples
    --------
    >>> figure = envelope(np.arange(3), np.zeros(3), np.zeros(3), [(1.0, 0.0)])
    >>> figure.axes[0].texts[0].get_text()
    'F1\n1 Hz'
    """
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(frequencies_hz / 1000, spectrum_db, color=NEUTRAL, lw=1, label="spectrum")
    axes.plot(frequencies_hz / 1000, envelope_db, color=POSITIVE, lw=2, label="envelope")
    for number, (frequency_hz, level_db) in enumerate(peaks, start=1):
        axes.plot(frequency_hz / 1000, level_db, "o", color=NEGATIVE, ms=6)
        over = spectrum_db[np.abs(frequencies_hz - frequency_hz) <= _BESIDE_HZ].max(initial=level_db)
        axes.annotate(
            f"F{number}\n{frequency_hz:.0f} Hz",
            (frequency_hz / 1000, over),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=INK,
        )
    axes.set_ylim(envelope_db.min() - 20, max(spectrum_db.max(), envelope_db.max()) + 18)
    axes.set_xlim(0, frequencies_hz[-1] / 1000)
    axes.set_xlabel("frequency (kHz)")
    axes.set_ylabel("level (dB)")
    axes.legend(loc="upper right", frameon=False, fontsize=9)
    plain(axes)
    return figure


def cepstra(times_s: NDArray[Any], coefficients: NDArray[Any]) -> Figure:
    """Draw MFCCs over time: the first, which is the level, as a line, and the others as colours.

    Parameters
    ----------
    times_s
        Middle of each frame.
    coefficients
        Shape ``(frame, coefficient)``.

    Examples
    --------
    >>> [axes.get_ylabel() for axes in cepstra(np.arange(3), np.zeros((3, 20))).axes]
    ['MFCC 0', 'MFCC', 'value']
    """
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    level, others = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    level.plot(times_s, coefficients[:, 0], color=POSITIVE, lw=1)
    level.set_ylabel("MFCC 0")
    reach = max(float(np.quantile(np.abs(coefficients[:, 1:]), 0.97)), 1e-3)
    image = others.pcolormesh(
        times_s,
        np.arange(1, coefficients.shape[1]),
        coefficients[:, 1:].T,
        cmap="RdBu_r",
        vmin=-reach,
        vmax=reach,
        shading="nearest",
        rasterized=True,
    )
    others.set_ylabel("MFCC")
    others.set_yticks([number for number in range(1, coefficients.shape[1]) if number == 1 or number % 5 == 0])
    others.set_xlabel("time (s)")
    for axes in (level, others):
        plain(axes)
    figure.colorbar(image, ax=others, label="value", pad=0.01, extend="both").outline.set_visible(False)
    return figure
