"""A promised precision, and whether it holds for speakers who are new to the model.

`emolib train --precision 0.8` promises that 80 % of the labels are right, and finds the confidence below which a window
gets none. Three networks of one recipe and seed have to do with it:

    network    learns from                       judges
    held-out   all but the validation speakers   the validation speakers: temperature and threshold are chosen by that
    shipped    all speakers (refit)              nobody: there is no speaker whom it has not heard
    check      all but the further speakers      the further speakers, with that temperature and that threshold

What the threshold reaches on the validation speakers is no measurement: it was chosen to reach it there, with another
network than the one that is shipped. The further speakers chose nothing, and the check network is the shipped one but
for them: what it reaches is what the shipped one may be expected to reach on people who are new to it. Nothing is
changed by it: a threshold that were moved until it fits them would have to be checked on yet others.

What remains: the check network has fewer speakers to learn from than the shipped one, so that one is rather better; and
the held-out network, whose confidences the threshold is chosen by, has learnt from the further speakers, as it has from
everybody but the validation speakers. (An architecture without a refit ships its held-out network; the check is the
same.) `emolib evaluate` leaves the tested speakers out of all of it, fold by fold, for many trainings.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.corpora import splits
from emolib.errors import SettingsError
from emolib.learning.calibration import abstention_threshold
from emolib.learning.intervals import share_interval
from emolib.learning.validation import Validation

Verdict: TypeAlias = Literal["kept", "uncertain", "not kept", "not validated"]

# Of the training rows, those of the further speakers: more of them say more, but the network that lacks them says less
# of the one that is shipped. Where a fifth is one speaker it is half of them: one says nothing about others.
_SHARES = (0.2, 0.5)


@dataclass(frozen=True, slots=True)
class Reached:
    """Precision and coverage of a threshold on the windows of some speakers.

    Attributes
    ----------
    speakers
        Who is heard, as ``corpus/speaker``, sorted.
    windows
        How many there are.
    precision
        Share of the labels that is right; None where no window gets one.
    interval
        Of the precision, 95 %, over speakers (see `emolib.learning.intervals.share_interval`); None where fewer than
        two have a label.
    coverage
        Share of the windows that get a label.
    accuracy, confidence
        Share of all windows that is right, and their mean confidence: the same where the temperature fits.
    """

    speakers: tuple[str, ...]
    windows: int
    precision: float | None
    interval: tuple[float, float] | None
    coverage: float
    accuracy: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Promise:
    """A threshold, the precision that it shall give, and what it gave.

    Attributes
    ----------
    wanted
        Share of the labels that shall be right.
    threshold
        A window gets a label from this confidence on.
    chosen
        On the validation speakers, by whom it was chosen: no measurement.
    checked
        On the further speakers, by a network that never heard them; None where there were too few speakers to set some
        aside.
    """

    wanted: float
    threshold: float
    chosen: Reached
    checked: Reached | None

    @property
    def verdict(self) -> Verdict:
        """Whether the promise holds for the further speakers.

        ``kept``: they reach it. ``not kept``: they fall short, with the whole interval. ``uncertain``: they fall short,
        but no further than other speakers of the kind might differ. ``not validated``: fewer than two have a label.
        """
        if self.checked is None or self.checked.precision is None or self.checked.interval is None:
            return "not validated"
        if self.checked.precision >= self.wanted:
            return "kept"
        return "not kept" if self.checked.interval[1] < self.wanted else "uncertain"

    def report(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def further_speakers(
    windows: pd.DataFrame, labels: NDArray[np.int64], train: NDArray[np.bool_], *, seed: int
) -> NDArray[np.bool_] | None:
    """Choose the speakers that a promise is checked on: a fifth of the training rows, and two speakers at least.

    Parameters
    ----------
    windows, labels
        As for `emolib.corpora.splits.validation`.
    train
        Rows to choose from, bool ``(window,)``: those of the validation speakers are not among them.
    seed
        Decides who is chosen.

    Returns
    -------
    NDArray[np.bool_] or None
        Their rows, a part of `train`; None where fewer than two can be spared.
    """
    for share in _SHARES:
        try:
            chosen = splits.validation(windows, labels, train, seed=seed, share=share)
        except SettingsError:  # one speaker, or several who share their recordings
            return None
        if len(windows.loc[chosen, ["corpus", "speaker"]].drop_duplicates()) > 1:
            return chosen
    return None


def validate_promise(validation: Validation, further: Validation | None, precision: float) -> Promise:
    """Choose a threshold by the validation speakers, and check it on further ones.

    Parameters
    ----------
    validation
        Held-out predictions of the validation speakers, softened, of the classes that get labels.
    further
        The same of the further speakers, by a network that never heard them, softened by the same temperature.
    precision
        Share of the labels that shall be right.

    Raises
    ------
    SettingsError
        If no threshold gives that precision on the validation speakers.

    Examples
    --------
    >>> said = np.array([[0.9, 0.1], [0.6, 0.4]] * 40, np.float32)
    >>> known = Validation(said, np.array([0, 1] * 40), np.repeat(["anna", "ben"], 40))
    >>> others = Validation(said, np.array([0, 1, 1, 1] * 20), np.repeat(["cleo", "dora", "emil", "finn"], 20))
    >>> found = validate_promise(known, others, 0.8)
    >>> found.verdict, found.chosen.precision, found.checked.precision
    ('not kept', 1.0, 0.5)
    >>> validate_promise(known, None, 0.8).verdict
    'not validated'
    """
    confidence, correct = validation.confidence()
    found = abstention_threshold(confidence, correct, precision)
    if found is None:
        raise SettingsError(
            f"a precision of {precision:g} is not reached by any threshold, found {correct.mean():.3f} when every "
            "window gets a label; ask for less, or train on more speakers"
        )
    return Promise(
        wanted=precision,
        threshold=found.threshold,
        chosen=_reached(validation, found.threshold),
        checked=None if further is None else _reached(further, found.threshold),
    )


def _reached(heard: Validation, threshold: float) -> Reached:
    confidence, correct = heard.confidence()
    labelled = confidence >= threshold
    right = correct[labelled]
    return Reached(
        speakers=tuple(sorted(set(heard.speakers.tolist()))),
        windows=len(confidence),
        precision=float(right.mean()) if right.size else None,
        interval=share_interval(right, heard.speakers[labelled].tolist()),
        coverage=float(labelled.mean()),
        accuracy=float(correct.mean()),
        confidence=float(confidence.mean(dtype=np.float64)),
    )
