"""The networks: windows of features in, probabilities of the classes out.

Every network takes ``features`` (window, frame, coefficient) and ``valid_frames`` (window,), holds its own
standardisation, and maps each window alone: what else lies in a batch never changes a window's probabilities.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow
from keras import layers, ops
from numpy.typing import NDArray

from emolib.config import Profile
from emolib.errors import SettingsError
from emolib.features.windows import window_shape
from emolib.learning import augmentation

# Pinned, so that a newer exporter does not ask for a newer ONNX Runtime on the workers than they have.
_OPSET = 15


@keras.saving.register_keras_serializable(package="emolib")
class Standardize(layers.Layer):
    """Subtract each coefficient's mean and divide by its scale.

    Unlike `keras.layers.Normalization` with fixed values, the numbers are weights: those survive the way to ONNX.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights ``mean`` and ``scale``, shape ``(coefficient,)``."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones", trainable=False)

    def call(self, features: Any) -> Any:
        """Map ``(window, frame, coefficient)`` to the same shape."""
        return (features - self.mean) / self.scale


@keras.saving.register_keras_serializable(package="emolib")
class Speech(layers.Layer):
    """Tell speech from the silence before and after it: 1 from the first to the last loud frame of a window, else 0.

    Parameters
    ----------
    range
        How far below the loudest frame a loud one may lie, in the units of the first coefficient.
    """

    def __init__(self, *, range: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.range = range

    def get_config(self) -> dict[str, Any]:
        """Return what `keras` needs to make the layer again."""
        return {**super().get_config(), "range": self.range}

    def span(self, features: Any, valid_frames: Any) -> tuple[Any, Any]:
        """Return the first and the last loud frame of each window, int32 ``(window,)``."""
        frame = ops.arange(features.shape[1], dtype="int32")
        real = frame < ops.expand_dims(ops.cast(valid_frames, "int32"), 1)
        level = ops.where(real, features[:, :, 0], -1e30)
        loud = level >= ops.max(level, axis=1, keepdims=True) - self.range
        last = ops.max(ops.where(loud, frame, 0), axis=1)
        return ops.min(ops.where(loud, frame, features.shape[1]), axis=1), last

    def call(self, features: Any, valid_frames: Any) -> Any:
        """Map ``(window, frame, coefficient)`` and ``(window,)`` to ``(window, frame, 1)``."""
        first, last = self.span(features, valid_frames)
        frame = ops.expand_dims(ops.arange(features.shape[1], dtype="int32"), 0)
        speech = (frame >= ops.expand_dims(first, 1)) & (frame <= ops.expand_dims(last, 1))
        return ops.expand_dims(ops.cast(speech, "float32"), -1)


@keras.saving.register_keras_serializable(package="emolib")
class RelativeLevel(layers.Layer):
    """Make the first coefficient, the level, relative to its mean over speech; set what is no speech to zero.

    How loud a recording is says how far the microphone was; how loud its parts are says how they were spoken.
    """

    def call(self, features: Any, speech: Any) -> Any:
        """Map ``(window, frame, coefficient)`` and ``(window, frame, 1)`` to ``(window, frame, coefficient)``."""
        level = features[:, :, :1]
        mean = ops.sum(level * speech, axis=1, keepdims=True) / ops.sum(speech, axis=1, keepdims=True)
        return ops.concatenate([level - mean, features[:, :, 1:]], axis=-1) * speech


@keras.saving.register_keras_serializable(package="emolib")
class Deltas(layers.Layer):
    """Put each coefficient's slope and curvature over time beside it: the usual regression over five frames.

    They are scaled to vary about as much as the coefficient: what is ten times smaller is hardly learnt from.
    """

    def call(self, features: Any) -> Any:
        """Map ``(window, frame, coefficient)`` to ``(window, frame, 3 * coefficient)``."""
        slope = _slope(features)
        return ops.concatenate([features, 4.0 * slope, 10.0 * _slope(slope)], axis=-1)


@keras.saving.register_keras_serializable(package="emolib")
class AttentiveStatistics(layers.Layer):
    """Mean and standard deviation over speech, and a mean in which each channel weighs the frames that it attends to.

    Okabe, Koshinaka and Shinoda 2018, "Attentive statistics pooling for deep speaker embedding".

    Parameters
    ----------
    stride
        Frames of speech per frame of the layer's input, made by a convolution one frame wider than that. A frame is
        speech if it has seen any.
    units
        Width of the attention's hidden layer.
    """

    def __init__(self, *, stride: int, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride, self.units = stride, units

    def build(self, features_shape: tuple[int | None, ...], speech_shape: tuple[int | None, ...]) -> None:
        """Create the layers of the attention."""
        del speech_shape
        self.inner = layers.Dense(self.units, activation="tanh")
        self.outer = layers.Dense(features_shape[-1])
        self.inner.build(features_shape)
        self.outer.build((*features_shape[:-1], self.units))

    def get_config(self) -> dict[str, Any]:
        """Return what `keras` needs to make the layer again."""
        return {**super().get_config(), "stride": self.stride, "units": self.units}

    def call(self, features: Any, speech: Any) -> Any:
        """Map ``(window, frame, channel)`` and ``(window, frame * stride, 1)`` to ``(window, 3 * channel)``."""
        speech = ops.max_pool(speech, self.stride + 1, strides=self.stride, padding="same")
        count = ops.maximum(ops.sum(speech, axis=1), 1.0)
        mean = ops.sum(features * speech, axis=1) / count
        distance = (features - ops.expand_dims(mean, 1)) * speech
        # The small term keeps the gradient of the root finite where nothing varies.
        deviation = ops.sqrt(ops.sum(ops.square(distance), axis=1) / count + 1e-5)
        attention = ops.softmax(self.outer(self.inner(features)) - 1e9 * (1.0 - speech), axis=1)
        return ops.concatenate([mean, deviation, ops.sum(features * attention, axis=1)], axis=-1)


@keras.saving.register_keras_serializable(package="emolib")
class Sums(layers.Layer):
    """Add up the probabilities of the words of each class.

    Parameters
    ----------
    words
        The class of each word.
    classes
        How many classes there are; one without a word has probability 0.
    """

    def __init__(self, *, words: Sequence[int], classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words, self.classes = tuple(words), classes

    def get_config(self) -> dict[str, Any]:
        """Return what `keras` needs to make the layer again."""
        return {**super().get_config(), "words": self.words, "classes": self.classes}

    def call(self, probabilities: Any) -> Any:
        """Map ``(window, word)`` to ``(window, class)``."""
        return ops.matmul(probabilities, ops.one_hot(self.words, self.classes))


def build(
    architecture: str,
    *,
    profile: Profile,
    words: Sequence[int],
    classes: int,
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    filters: int,
    seed: int,
    frames: int | None = None,
) -> keras.Model:
    """Build an untrained network.

    Parameters
    ----------
    architecture
        One of `ARCHITECTURES`.
    profile
        Says what a window's features are.
    words
        The class of each emotion that the network tells apart: what is learnt finely is known better than what is
        learnt coarsely (see `emolib.corpora.labels.words`).
    classes
        How many classes there are.
    mean, scale
        Mean and standard deviation of each coefficient over the training data, shape ``(coefficient,)``.
    filters
        How wide ``default`` is; ``article`` is as wide as the article's.
    seed
        Seed of the initial weights and of dropout.
    frames
        Length of a window; None: as the profile says. The weights of ``default`` suit windows of any length.

    Returns
    -------
    keras.Model
        Inputs ``features`` (window, frame, coefficient) float32 and ``valid_frames`` (window,) int32, output
        ``probabilities`` (window, class), the sums over its layer ``words``.

    Raises
    ------
    SettingsError
        If the architecture is unknown.
    """
    if architecture not in _BODIES:
        raise SettingsError(f"architecture {architecture!r} found, expected one of {', '.join(ARCHITECTURES)}")
    whole, coefficients = window_shape(profile.features, profile.windows)
    features = keras.Input((frames or whole, coefficients), dtype="float32", name="features")
    valid_frames = keras.Input((), dtype="int32", name="valid_frames")
    standardize = Standardize(name="standardize")
    with _drawn_from(seed):
        hidden = _BODIES[architecture](features, standardize(features), valid_frames, profile, filters)
        told = layers.Dense(len(words), activation="softmax", name="words")(hidden)
    probabilities = Sums(words=words, classes=classes, name="probabilities")(told)
    standardize.set_weights([mean, scale])
    return keras.Model({"features": features, "valid_frames": valid_frames}, probabilities, name=architecture)


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Let layers draw the seeds of their weights and dropout from one seed, and leave the process's generator alone.

    Layers without a seed of their own draw it from Python's generator when they are made, and nothing at random later.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def learner(model: keras.Model) -> keras.Model:
    """Return the part of a network that learns: the same layers, with an output for each word."""
    return keras.Model(model.inputs, model.get_layer("words").output, name=model.name)


def to_keras(model: keras.Model) -> bytes:
    """Return a network in Keras's own format, from which training can go on."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that made a network."""
    return {
        # TensorFlow's distribution has another name on every kind of machine.
        "tensorflow": tensorflow.__version__,
        **{name: version(name) for name in ("keras", "onnx", "tf2onnx")},
    }


def to_onnx(model: keras.Model) -> bytes:
    """Return a network of `build` as ONNX, with the same names of inputs and output and a free batch dimension."""
    # Keras exports only a model that has been called; one that was just loaded has not.
    model({tensor.name: np.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False, opset_version=_OPSET)
        graph = onnx.load(path)
    # The exporter names the output after TensorFlow's last operation.
    exported = graph.graph.output[0].name
    for node in graph.graph.node:
        node.output[:] = ["probabilities" if name == exported else name for name in node.output]
    graph.graph.output[0].name = "probabilities"
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString(deterministic=True))


def aligned(
    model: keras.Model, features: NDArray[np.float32], valid_frames: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return windows that begin and end with their speech, at the mean level 0, if a network sees no difference.

    To one that looks at nothing else, and at levels only relative to their mean, they are the same as before, but for
    slopes at the edges; what is hidden in them, and what pads them, is then neither silence nor far too loud.
    """
    layer = next((layer for layer in model.layers if isinstance(layer, Speech)), None)
    if layer is None:
        return features, valid_frames
    first, last = layer.span(features, valid_frames)
    moved, lengths = augmentation.aligned(features, np.asarray(first), np.asarray(last))
    speech = np.arange(moved.shape[1]) < lengths[:, np.newaxis]
    level = moved[:, :, 0].sum(axis=1, where=speech) / lengths
    moved[:, :, 0] -= np.where(speech, level[:, np.newaxis], 0.0)
    return moved, lengths


def _article(features: Any, standardized: Any, valid_frames: Any, profile: Profile, filters: int) -> Any:
    """Two blocks of convolution, pooling and dropout, then a dense layer; padding is seen as it is.

    ``valid_frames`` stays unused: the article pads its clips and knows no mask.
    """
    del features, valid_frames, profile, filters
    hidden = standardized
    for width in (64, 128):
        hidden = layers.Conv1D(width, 5, padding="same", activation="relu")(hidden)
        hidden = layers.MaxPool1D(4)(hidden)
        hidden = layers.Dropout(0.3)(hidden)
    hidden = layers.Flatten()(hidden)
    hidden = layers.Dense(128, activation="relu")(hidden)
    return layers.Dropout(0.3)(hidden)


# Of the speech in a window: quieter frames before and after it are silence.
_SPEECH_DB = 30.0
# Steps of 64 ms from the first convolution on: at half as many frames a network of twice the weights takes no longer,
# but tells less through a telephone (tests/benchmarks/experiments.md).
_STRIDE = 4


def _default(features: Any, standardized: Any, valid_frames: Any, profile: Profile, filters: int) -> Any:
    """Residual dilated convolutions over coefficients and their deltas, all joined and pooled over speech."""
    # The first coefficient is the sum of all bands in dB, over the root of their number.
    speech = Speech(range=_SPEECH_DB * profile.features.n_mels**0.5)(features, valid_frames)
    hidden = Deltas()(RelativeLevel()(standardized, speech))
    # The convolutions run over frames alone, but as images of height one: ONNX Runtime keeps images in the layout of
    # its fast kernels from the first convolution to the last, and turns a sequence round before and after each.
    hidden = layers.Reshape((1, *hidden.shape[1:]))(hidden)
    hidden = layers.Activation("relu")(_normalised_convolution(hidden, filters, _STRIDE + 1, strides=_STRIDE))
    levels = []
    for dilation in (1, 2, 4, 8):
        hidden = _residual(hidden, filters, dilation)
        levels.append(hidden)
    hidden = layers.Activation("relu")(_normalised_convolution(layers.Concatenate()(levels), 2 * filters, 1))
    hidden = layers.Reshape(hidden.shape[2:])(hidden)
    hidden = AttentiveStatistics(stride=_STRIDE, units=64)(hidden, speech)
    return layers.Dropout(0.5)(hidden)


def _residual(hidden: Any, filters: int, dilation: int) -> Any:
    shortcut = hidden
    hidden = layers.Activation("relu")(_normalised_convolution(hidden, filters, 3, dilation=dilation))
    hidden = layers.SpatialDropout2D(0.1)(hidden)
    hidden = _normalised_convolution(hidden, filters, 3, dilation=dilation)
    return layers.Activation("relu")(layers.Add()([shortcut, hidden]))


def _normalised_convolution(hidden: Any, filters: int, width: int, *, strides: int = 1, dilation: int = 1) -> Any:
    over_frames = {"strides": (1, strides), "dilation_rate": (1, dilation), "padding": "same", "use_bias": False}
    hidden = layers.Conv2D(filters, (1, width), **over_frames)(hidden)
    # Keras's own momentum of 0.99 needs hundreds of steps; a small corpus has a dozen in an epoch.
    return layers.BatchNormalization(momentum=0.9)(hidden)


def _slope(features: Any) -> Any:
    """Return the slope of the regression line through five frames; the borders are continued by zeros."""
    frames = features.shape[1]
    around = ops.pad(features, ((0, 0), (2, 2), (0, 0)))
    near = around[:, 3 : 3 + frames] - around[:, 1 : 1 + frames]
    far = around[:, 4 : 4 + frames] - around[:, :frames]
    return (near + 2.0 * far) / 10.0


_BODIES: dict[str, Callable[[Any, Any, Any, Profile, int], Any]] = {"default": _default, "article": _article}
ARCHITECTURES = tuple(_BODIES)
