"""The model bundle: a folder with everything that scoring needs, checked when it is made and when it is loaded.

    model.keras     the master, for further training
    model.onnx      what workers run: ONNX Runtime starts in half a second, TensorFlow in fifteen
    golden.npz      synthetic signals with the features and probabilities that every machine must reproduce
    validation.npz  held-out predictions of the validation speakers: which class is taken for which, by a network that
                    had not heard them (not the model, if that learnt anew from all)
    card.html       for people: data, figures, what it must not be used for; card.json the same for machines
    bundle.json     what the model is; written last, so a folder without it is no bundle

``model_id`` is the hash of the weights and of every setting that changes a probability or a label. Two exports of one
model have the same, although their ONNX files differ in the names of inner nodes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import Field
from upath import UPath

from emolib.config import Profile, Settings, fingerprint, parse
from emolib.corpora.labels import LabelScheme, Polarity
from emolib.errors import EmolibError, GoldenCheckError, SettingsError
from emolib.features.windows import windowed_features
from emolib.learning.calibration import soften
from emolib.learning.validation import Validation
from emolib.storage import AnyPath, new_folder, read_json, remove_folder, resolve, write_bytes, write_json

if TYPE_CHECKING:
    from emolib.learning.promise import Promise
    from emolib.learning.training import Trained

SCHEMA_VERSION = 2
CHECKPOINT = ".training"
"""Name of the folder in a bundle's that keeps the state of a training until it ends."""
# What a training that was killed may have left beside it.
_WRITTEN = {"model.keras", "model.onnx", "golden.npz", "validation.npz", "card.html", "card.json"}

_GOLDEN_TOLERANCE = 1e-3
_ONNX_TOLERANCE = 1e-5
# ONNX Runtime multiplies a single row by another kernel than several rows, and rounds otherwise: with windows always
# run in multiples of this many, a window's probabilities do not depend on how many came with it.
_ROWS = 8


class _Labels(Settings):
    name: str
    classes: tuple[str, ...]
    polarity: dict[str, Polarity]
    public: dict[str, str]


class _Manifest(Settings):
    """What `bundle.json` holds."""

    schema_version: int = SCHEMA_VERSION
    model_id: str
    labels: _Labels
    profile: Profile
    fingerprint: str
    temperature: float = Field(default=1.0, gt=0)
    abstention_threshold: float | None = None
    promise: dict[str, Any] | None = None  # models of before have none
    priors: dict[str, float]
    training: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    digests: dict[str, str]  # of each file, and of the weights

    def identity(self) -> str:
        """Return the `model_id` that belongs to the other values."""
        return fingerprint(
            {
                "weights": self.digests["weights"],
                "labels": self.labels.model_dump(mode="json"),
                "profile": self.profile.fingerprinted(),
                "temperature": self.temperature,
                "abstention_threshold": self.abstention_threshold,
                "priors": self.priors,
            }
        )


class ModelBundle:
    """A model, ready to score.

    Attributes
    ----------
    path
        Its folder.
    model_id
        Hash of its weights and settings.
    scheme
        Its classes, their polarity and their public names.
    profile
        The features and windows that it was trained on.
    temperature
        By which probabilities are softened; 1 leaves them as they are.
    abstention_threshold
        Below this confidence a window gets no label; None: it always gets one.
    promise
        Which precision that threshold shall give, and on whom that was checked (see
        `emolib.learning.promise.Promise.report`); None: none was promised.
    priors
        Share of each class that it takes for granted; 0 for one that it has never heard. Its probabilities are not
        corrected for another mixture (see `emolib.learning.priors`).
    training, metrics
        What it was trained on, and how well the validation speakers were told by a network that had not heard them.
    """

    def __init__(self, path: UPath, manifest: _Manifest, session: onnxruntime.InferenceSession) -> None:
        self.path = path
        self.model_id = manifest.model_id
        self.scheme = LabelScheme(**manifest.labels.model_dump())
        self.profile = manifest.profile
        self.temperature = manifest.temperature
        self.abstention_threshold = manifest.abstention_threshold
        self.promise = manifest.promise
        self.priors = manifest.priors
        self.training = manifest.training
        self.metrics = manifest.metrics
        self._digests = manifest.digests
        self._session = session

    @classmethod
    def load(cls, path: AnyPath) -> ModelBundle:
        """Load a bundle from a folder or an fsspec URL; needs no TensorFlow.

        Raises
        ------
        SettingsError
            If there is none, it is of another schema version, or a file is missing or not the one it was made with.
        """
        path = resolve(path)
        manifest = _manifest(path)
        if manifest.model_id != manifest.identity() or manifest.fingerprint != manifest.profile.fingerprint:
            raise SettingsError(
                f"{path / 'bundle.json'} was changed after it was written: copy or train the model anew"
            )
        data = _file(path, "model.onnx", manifest.digests["model.onnx"])
        return cls(path, manifest, _session(data))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the probabilities."""
        return self.scheme.classes

    def predict(
        self, features: NDArray[np.float32], valid_frames: NDArray[np.int32], *, batch: int = 64
    ) -> NDArray[np.float32]:
        """Return the probability of each class for each window.

        Parameters
        ----------
        features
            Shape ``(window, frame, coefficient)``, computed with `profile`.
        valid_frames
            Shape ``(window,)``.
        batch
            Windows that are run at a time; it decides speed and memory, never a result.

        Returns
        -------
        NDArray[np.float32]
            Shape ``(window, class)``.
        """
        probabilities = _run(self._session, features, valid_frames, batch=batch)
        return soften(probabilities, self.temperature)

    def check_golden(self) -> None:
        """Check that this machine reproduces the features and probabilities that the bundle was made with.

        Raises
        ------
        GoldenCheckError
            If a number deviates by more than 1e-3.
        SettingsError
            If the golden set is missing or damaged.
        """
        expected = self._arrays("golden.npz")
        features, valid_frames = _golden_windows(expected["signals"], self.profile)
        found = {
            "features": features,
            "valid_frames": valid_frames,
            "probabilities": _run(self._session, features, valid_frames),
        }
        for name, values in found.items():
            deviation = _deviation(values, expected[name])
            if not deviation <= _GOLDEN_TOLERANCE:
                raise GoldenCheckError(
                    f"{name} of the golden signals deviate by {deviation:.3g} on this machine, expected at most "
                    f"{_GOLDEN_TOLERANCE:g}: install the versions of numpy, scipy and onnxruntime that "
                    f"{self.path / 'bundle.json'} names, or train the model anew"
                )

    def validation(self) -> Validation:
        """Return what the model said of the windows of its validation speakers.

        Raises
        ------
        SettingsError
            If the file is missing or damaged.
        """
        return Validation(**self._arrays("validation.npz"))

    def _arrays(self, name: str) -> dict[str, NDArray[Any]]:
        with np.load(io.BytesIO(_file(self.path, name, self._digests[name])), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}


def save(
    path: AnyPath,
    trained: Trained,
    *,
    promise: Promise | None = None,
    pages: Callable[[dict[str, Any]], Mapping[str, bytes]] | None = None,
) -> ModelBundle:
    """Write a trained network as a bundle, its twin checked against it, and load it.

    Parameters
    ----------
    path
        A new folder; the checkpoint of the training may lie there (see `refuse_existing`).
    promise
        From which confidence on a window gets a label, and what is known of the precision; None: every window gets one.
    pages
        Makes files for people from what `bundle.json` will hold, by their names.

    Raises
    ------
    SettingsError
        If the folder exists and is not empty.
    EmolibError
        If the ONNX twin does not give the network's numbers.
    """
    from emolib.learning import model as networks  # what scoring must not need: TensorFlow and the synthetic voices
    from emolib.sound.synthetic import golden_signals

    path = resolve(path)
    refuse_existing(path)
    profile, twin = trained.profile, networks.to_onnx(trained.model)
    signals = golden_signals(
        # Longer than a window, so that the set holds a whole window and a padded one.
        sampling_rate=profile.features.sampling_rate,
        duration_s=1.25 * profile.windows.duration_s,
    )
    features, valid_frames = _golden_windows(signals, profile)
    probabilities = _run(_session(twin), features, valid_frames)
    by_keras = trained.model.predict_on_batch({"features": features, "valid_frames": valid_frames})
    deviation = _deviation(probabilities, by_keras)
    if not deviation <= _ONNX_TOLERANCE:
        raise EmolibError(
            f"probabilities of the ONNX model deviate from Keras by {deviation:.3g}, expected at most "
            f"{_ONNX_TOLERANCE:g}: versions of keras, tf2onnx and onnxruntime that do not go together"
        )
    files = {
        "model.keras": networks.to_keras(trained.model),
        "model.onnx": twin,
        "golden.npz": _npz(signals=signals, features=features, valid_frames=valid_frames, probabilities=probabilities),
        "validation.npz": _npz(**trained.windows._asdict()),
    }
    weights = b"".join(np.ascontiguousarray(each).tobytes() for each in trained.model.get_weights())
    scheme = trained.scheme
    manifest = _Manifest(
        model_id="",
        labels=_Labels(
            name=scheme.name, classes=scheme.classes, polarity=dict(scheme.polarity), public=dict(scheme.public)
        ),
        profile=profile,
        fingerprint=profile.fingerprint,
        temperature=trained.temperature,
        abstention_threshold=None if promise is None else promise.threshold,
        promise=None if promise is None else promise.report(),
        priors=dict(zip(scheme.classes, trained.priors.tolist(), strict=True)),
        training=trained.training,
        metrics=trained.metrics,
        versions={
            **{name: version(name) for name in ("emolib", "numpy", "scipy", "onnxruntime")},
            **networks.versions(),
        },
        digests={"weights": _digest(weights), **{name: _digest(data) for name, data in files.items()}},
    )
    manifest = manifest.model_copy(update={"model_id": manifest.identity()})
    values = manifest.model_dump(mode="json")
    for name, data in (files | dict(pages(values) if pages else {})).items():
        write_bytes(path / name, data)
    write_json(path / "bundle.json", values)
    remove_folder(path / CHECKPOINT)
    return ModelBundle.load(path)


def refuse_existing(path: AnyPath) -> None:
    """Check that a bundle can be written to a path: before training, not after it.

    Raises
    ------
    SettingsError
        If anything lies there but an empty folder, or what a training left that did not end: its checkpoint is the
        last to go, `bundle.json` the last to come.
    """
    new_folder(path, option="--model", mark=CHECKPOINT, files=_WRITTEN)


def _manifest(path: UPath) -> _Manifest:
    place = path / "bundle.json"
    if not place.exists():
        raise SettingsError(f"{place} not found, expected a model bundle at {path}: `emolib train` makes one")
    try:
        values = read_json(place)
    except SettingsError as error:
        raise SettingsError(f"{place} is not valid JSON: copy or train the model anew") from error
    found = values.get("schema_version") if isinstance(values, dict) else None
    if found != SCHEMA_VERSION:
        raise SettingsError(
            f"{place} has schema version {found}, expected {SCHEMA_VERSION}: train it with this version of emolib"
        )
    return parse(_Manifest, values)


def _file(path: UPath, name: str, digest: str) -> bytes:
    """Read a file of a bundle and check that it is the one that was written with it."""
    if not (path / name).exists():
        raise SettingsError(f"{path / name} is missing, expected a whole model bundle: copy or train it anew")
    data: bytes = (path / name).read_bytes()
    if _digest(data) != digest:
        raise SettingsError(f"{path / name} is not the file that the model was saved with: copy or train it anew")
    return data


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread: more would divide sums by how many there are. A machine is filled by several workers instead.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(
    session: onnxruntime.InferenceSession,
    features: NDArray[np.float32],
    valid_frames: NDArray[np.int32],
    *,
    batch: int = 64,
) -> NDArray[np.float32]:
    """Return the network's probabilities ``(window, class)``, the last windows filled up to a multiple of `_ROWS`."""
    step = -(-batch // _ROWS) * _ROWS
    parts = [np.zeros((0, session.get_outputs()[0].shape[1]), np.float32)]
    for start in range(0, len(features), step):
        part, frames = features[start : start + step], valid_frames[start : start + step]
        missing = -len(part) % _ROWS
        if missing:
            part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.float32)])
            frames = np.concatenate([frames, np.ones(missing, np.int32)])
        parts.append(session.run(["probabilities"], {"features": part, "valid_frames": frames})[0])
    return np.concatenate(parts)[: len(features)]


def _golden_windows(signals: NDArray[np.float32], profile: Profile) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    cut = [windowed_features(signal, features=profile.features, windows=profile.windows) for signal in signals]
    return np.concatenate([each.features for each in cut]), np.concatenate([each.valid_frames for each in cut])


def _deviation(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference; infinite where shapes differ, not a number where a value is none."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(found.astype(np.float64) - expected)))


def _npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
